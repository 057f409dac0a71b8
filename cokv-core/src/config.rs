//! TOML tables whose errors point at the line: `cokv.toml:12: unknown key `windw`; did you mean `window`?`

use std::fmt;
use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::Settings;

/// A configuration that cannot be read, with the place.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the user named it.
    pub file: String,
    /// Line of the mistake, counted from 1; none where only the file is known.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Origin<'i> {
    file: &'i str,
    text: &'i str,
}

/// A TOML table that remembers where it was written.
#[derive(Clone, Debug)]
pub struct ConfigTable<'i> {
    origin: Origin<'i>,
    table: Spanned<DeTable<'i>>,
}

/// One of several implementations, with its settings: `allocator = "uniform"` or
/// `compressor = { name = "snapkv", window = 32 }`.
#[derive(Clone, Debug)]
pub struct Choice<'i> {
    /// The implementation's registered name.
    pub name: String,
    /// All other keys of the table.
    pub settings: ConfigTable<'i>,
}

impl<'i> Choice<'i> {
    /// An implementation with its default settings; errors point at `table`.
    pub fn named(name: &str, table: &ConfigTable<'i>) -> Self {
        Self { name: name.into(), settings: table.like(table.table.span(), DeTable::new()) }
    }

    /// A preset's choice in the place of this one, which named the preset: the settings that are written here win.
    pub(crate) fn over(&self, preset: Self) -> Self {
        let span = self.settings.table.span();
        let mut table = DeTable::new();
        for (key, value) in preset.settings.table.into_inner() {
            table.insert(Spanned::new(span.clone(), key.into_inner()), Spanned::new(span.clone(), value.into_inner()));
        }
        for (key, value) in self.settings.table.get_ref() {
            // An entry that is there keeps its old key, and with it the old place.
            table.remove(key.get_ref().as_ref());
            table.insert(key.clone(), value.clone());
        }
        Self { name: preset.name, settings: self.settings.like(span, table) }
    }

    /// The settings of what was built of this choice: every default written out.
    ///
    /// # Errors
    /// Where TOML cannot write them: integers above its largest, keys that are no text.
    pub fn settings_of(&self, built: &impl Serialize) -> Result<Settings, ConfigError> {
        Settings::of(&self.name, built)
            .map_err(|error| self.settings.error(format!("the settings of `{}` cannot be written: {error}", self.name)))
    }
}

impl<'i> ConfigTable<'i> {
    /// Parses a whole document; `file` is what errors call it.
    pub fn parse(file: &'i str, text: &'i str) -> Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let table =
            DeTable::parse(text).map_err(|error| origin.at(error.span().unwrap_or(0..0), error.message().into()))?;
        Ok(Self { origin, table })
    }

    /// Whether a key is written.
    pub fn contains(&self, key: &str) -> bool {
        self.table.get_ref().contains_key(key)
    }

    /// Whether nothing is left in the table.
    pub fn is_empty(&self) -> bool {
        self.table.get_ref().is_empty()
    }

    /// Removes the table under `key`; an absent one is empty.
    pub fn take_table(&mut self, key: &str) -> Result<Self, ConfigError> {
        match self.table.get_mut().remove(key) {
            None => Ok(self.like(self.table.span(), DeTable::new())),
            Some(value) => self.expect_table(key, value),
        }
    }

    /// Removes the table under `key`, which may be written as a mere name: that of the choice under `named` in it.
    pub fn take_table_or_name(&mut self, key: &str, named: &'static str) -> Result<Option<Self>, ConfigError> {
        let Some(value) = self.table.get_mut().remove(key) else { return Ok(None) };
        if !value.get_ref().is_str() {
            return self.expect_table(key, value).map(Some);
        }
        let mut table = self.like(value.span(), DeTable::new());
        table.put(named, value);
        Ok(Some(table))
    }

    /// Removes the tables under `key`, each with a name of its own (`[key.name]`); an absent one has none.
    pub fn take_named_tables(&mut self, key: &str) -> Result<Vec<(String, Self)>, ConfigError> {
        let parent = self.take_table(key)?;
        let entries = parent.table.clone().into_inner().into_iter();
        let named = |(name, value): (Spanned<_>, _)| -> Result<_, ConfigError> {
            let name: std::borrow::Cow<'_, str> = name.into_inner();
            Ok((name.to_string(), parent.expect_table(&format!("{key}.{name}"), value)?))
        };
        entries.map(named).collect()
    }

    /// Removes the array of tables under `key` (`[[key]]`); an absent one is empty.
    pub fn take_tables(&mut self, key: &str) -> Result<Vec<Self>, ConfigError> {
        let Some(value) = self.table.get_mut().remove(key) else {
            return Ok(Vec::new());
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(entries) => entries.into_iter().map(|entry| self.expect_table(key, entry)).collect(),
            other => Err(self
                .origin
                .at(span, format!("`{key}` must be tables, written [[{key}]], not {}", other.type_str()))),
        }
    }

    /// Removes the table under `key`, or all of them where it is an array; an absent one is empty, and one.
    pub fn take_table_or_tables(&mut self, key: &str) -> Result<Vec<Self>, ConfigError> {
        match self.table.get_ref().get(key).map(|value| value.get_ref()) {
            Some(DeValue::Array(_)) => self.take_tables(key),
            _ => Ok(vec![self.take_table(key)?]),
        }
    }

    /// Removes these keys into a table of their own, in the same place.
    pub fn take_keys(&mut self, keys: &[&str]) -> Self {
        let entries = keys.iter().filter_map(|key| self.table.get_mut().remove_entry(*key));
        let taken = entries.collect();
        self.like(self.table.span(), taken)
    }

    /// Removes the truth value under `key`; an absent one is false.
    pub fn take_flag(&mut self, key: &str) -> Result<bool, ConfigError> {
        let Some(value) = self.table.get_mut().remove(key) else { return Ok(false) };
        match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(self.origin.at(value.span(), format!("`{key}` is true or false, not {}", other.type_str()))),
        }
    }

    /// Removes the choice under `key`, written as a name or as a table with a `name`.
    pub fn take_choice(&mut self, key: &str) -> Result<Option<Choice<'i>>, ConfigError> {
        self.table.get_mut().remove(key).map(|value| self.expect_choice(key, value)).transpose()
    }

    /// Removes the choices that are listed under `key`, each written as a name or as a table with a `name`.
    pub fn take_choices(&mut self, key: &str) -> Result<Option<Vec<Choice<'i>>>, ConfigError> {
        let Some(value) = self.table.get_mut().remove(key) else {
            return Ok(None);
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(entries) => {
                entries.into_iter().map(|entry| self.expect_choice(key, entry)).collect::<Result<_, _>>().map(Some)
            }
            other => {
                let kind = other.type_str();
                Err(self
                    .origin
                    .at(span, format!("`{key}` must be a list of names or of tables with a name, not {kind}")))
            }
        }
    }

    fn expect_choice(&self, key: &str, value: Spanned<DeValue<'i>>) -> Result<Choice<'i>, ConfigError> {
        let span = value.span();
        match value.into_inner() {
            DeValue::String(name) => Ok(Choice { name: name.into_owned(), settings: self.like(span, DeTable::new()) }),
            DeValue::Table(table) => {
                let mut settings = self.like(span.clone(), table);
                match settings.table.get_mut().remove("name").map(Spanned::into_inner) {
                    Some(DeValue::String(name)) => Ok(Choice { name: name.into_owned(), settings }),
                    _ => Err(self.origin.at(span, format!("`{key}` needs a name: {key} = {{ name = \"…\" }}"))),
                }
            }
            other => {
                let kind = other.type_str();
                Err(self.origin.at(span, format!("`{key}` must be a name or a table with a name, not {kind}")))
            }
        }
    }

    /// Writes a choice under `key`, in place of what is there.
    pub(crate) fn put_choice(&mut self, key: &'static str, choice: Choice<'i>) {
        let span = choice.settings.table.span();
        let mut table = choice.settings.table.into_inner();
        let name = Spanned::new(span.clone(), DeValue::String(choice.name.into()));
        table.insert(Spanned::new(span.clone(), "name".into()), name);
        self.put(key, Spanned::new(span, DeValue::Table(table)));
    }

    /// Writes a text under `key`, if nothing is there.
    pub(crate) fn put_text_unless_there(&mut self, key: &'static str, text: String) {
        if !self.contains(key) {
            self.put(key, Spanned::new(self.table.span(), DeValue::String(text.into())));
        }
    }

    fn put(&mut self, key: &'static str, value: Spanned<DeValue<'i>>) {
        self.table.get_mut().remove(key);
        self.table.get_mut().insert(Spanned::new(value.span(), key.into()), value);
    }

    /// One table for every combination of the values that are listed under `key` for settings of the choice under
    /// `choice`, each with what distinguishes it: with `select = { drop_lowest = [1, 5] }`,
    /// `variants("select", "allocator")` gives two tables whose allocators have the one and the other value, labelled
    /// `drop_lowest=1` and `drop_lowest=5`. Without the key there is one, the table itself, without a label.
    pub fn variants(mut self, key: &str, choice: &str) -> Result<Vec<(String, Self)>, ConfigError> {
        let Some(listed) = self.table.get_mut().remove(key) else {
            return Ok(vec![(String::new(), self)]);
        };
        let listed = self.expect_table(key, listed)?;
        let mut variants = vec![(String::new(), self)];
        for (name, values) in listed.table.clone().into_inner() {
            let written = name.get_ref().clone();
            let span = values.span();
            let values: Vec<Spanned<DeValue<'i>>> = match values.into_inner() {
                DeValue::Array(values) => values.into_iter().collect(),
                _ => Vec::new(),
            };
            if values.is_empty() {
                let message = format!("`{key}` lists values to choose from: {key} = {{ {written} = [1, 5, 10] }}");
                return Err(listed.origin.at(span, message));
            }
            let mut finer = Vec::with_capacity(variants.len() * values.len());
            for (label, table) in &variants {
                for value in &values {
                    let text = &listed.origin.text[value.span()];
                    let separator = if label.is_empty() { "" } else { "," };
                    let mut table = table.clone();
                    table.set(choice, name.clone(), value.clone())?;
                    finer.push((format!("{label}{separator}{written}={text}"), table));
                }
            }
            variants = finer;
        }
        Ok(variants)
    }

    /// Sets one setting of the choice under `choice`.
    fn set(
        &mut self,
        choice: &str,
        name: Spanned<DeString<'i>>,
        value: Spanned<DeValue<'i>>,
    ) -> Result<(), ConfigError> {
        let span = self.table.span();
        let Some(chosen) = self.table.get_mut().get_mut(choice) else {
            return Err(self.origin.at(span, format!("there is no `{choice}` to choose settings of")));
        };
        let place = chosen.span();
        if let DeValue::String(implementation) = chosen.get_ref().clone() {
            let mut table = DeTable::new();
            let implementation = Spanned::new(place.clone(), DeValue::String(implementation));
            table.insert(Spanned::new(place, "name".into()), implementation);
            *chosen.get_mut() = DeValue::Table(table);
        }
        if let DeValue::Table(table) = chosen.get_mut() {
            table.insert(name, value);
        }
        Ok(())
    }

    /// Reads the whole table as a settings struct (`#[serde(deny_unknown_fields)]`).
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        self.read_beside(&[])
    }

    /// As [`read`](Self::read), where `others` were taken out before: a misspelt key finds its nearest among them too.
    pub fn read_beside<T: DeserializeOwned>(&self, others: &[&str]) -> Result<T, ConfigError> {
        T::deserialize(toml::de::Deserializer::from(self.table.clone())).map_err(|error| {
            // An error about the table as a whole (a missing key) carries no span of its own.
            self.origin.at(error.span().unwrap_or(self.table.span()), explain(error.message(), others))
        })
    }

    /// An error that points at one of the table's keys, or at the table where the key is not written.
    pub fn error_at(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let written = self.table.get_ref().get_key_value(key).map(|(key, _)| key.span());
        self.origin.at(written.unwrap_or_else(|| self.table.span()), message.into())
    }

    /// An error that points at this table.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.origin.at(self.table.span(), message.into())
    }

    fn like(&self, span: Range<usize>, table: DeTable<'i>) -> Self {
        Self { origin: self.origin, table: Spanned::new(span, table) }
    }

    fn expect_table(&self, key: &str, value: Spanned<DeValue<'i>>) -> Result<Self, ConfigError> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(self.like(span, table)),
            other => Err(self.origin.at(span, format!("`{key}` must be a table, not {}", other.type_str()))),
        }
    }
}

impl Origin<'_> {
    fn at(&self, span: Range<usize>, message: String) -> ConfigError {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        ConfigError { file: self.file.into(), line: Some(line), message }
    }
}

/// Adds the nearest known name to serde's "unknown field `x`, expected one of `a`, `b`"; `others` are known as fields too.
fn explain(message: &str, others: &[&str]) -> String {
    let Some(rest) = message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))
    else {
        return message.into();
    };
    let mut quoted = rest.split('`').step_by(2);
    let unknown = quoted.next().unwrap_or_default();
    let known = quoted.filter(|name| !name.is_empty());
    match message.starts_with("unknown field") {
        true => unknown_name("key", unknown, known.chain(others.iter().copied())),
        false => unknown_name("value", unknown, known),
    }
}

/// "unknown KIND `x`; did you mean `y`? (known: …)".
pub fn unknown_name<'a>(kind: &str, unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(unknown, name), name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = nearest.map(|(_, name)| format!("; did you mean `{name}`?")).unwrap_or_default();
    let list = match known.as_slice() {
        [] => "none are known".into(),
        names => format!("known: {}", names.join(", ")),
    };
    format!("unknown {kind} `{unknown}`{hint} ({list})")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        window: usize,
        kernel: usize,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { window: 8, kernel: 7 }
        }
    }

    const DOCUMENT: &str = r#"
[model]
source = "x"

[[method]]
compressor = { name = "snapkv", window = 32 }

[[method]]
compressor = { name = "snapkv",
  windw = 32 }

[[method]]
compressor = "full"
"#;

    fn methods() -> Vec<ConfigTable<'static>> {
        ConfigTable::parse("cokv.toml", DOCUMENT).unwrap().take_tables("method").unwrap()
    }

    #[test]
    fn choices_are_names_or_tables() {
        let mut methods = methods();
        let table = methods[0].take_choice("compressor").unwrap().unwrap();
        assert_eq!(table.name, "snapkv");
        assert_eq!(table.settings.read::<Settings>().unwrap(), Settings { window: 32, kernel: 7 });
        let name = methods[2].take_choice("compressor").unwrap().unwrap();
        assert_eq!((name.name.as_str(), name.settings.is_empty()), ("full", true));
        assert!(methods[2].take_choice("allocator").unwrap().is_none());
    }

    #[test]
    fn variants_are_all_combinations() {
        let text = "compressor = 'c'\nallocator = 'a'\nselect = { x = [1, 5], y = ['p', 'q'] }";
        let variants = ConfigTable::parse("cokv.toml", text).unwrap().variants("select", "allocator").unwrap();
        let labels: Vec<&str> = variants.iter().map(|(label, _)| label.as_str()).collect();
        assert_eq!(labels, ["x=1,y='p'", "x=1,y='q'", "x=5,y='p'", "x=5,y='q'"]);
        let mut last = variants[3].1.clone();
        let allocator = last.take_choice("allocator").unwrap().unwrap();
        #[derive(Debug, Deserialize, PartialEq)]
        struct Allocator {
            x: usize,
            y: String,
        }
        assert_eq!(allocator.name, "a");
        assert_eq!(allocator.settings.read::<Allocator>().unwrap(), Allocator { x: 5, y: "q".into() });
        let error = |text: &str| {
            let table = ConfigTable::parse("cokv.toml", text).unwrap();
            table.variants("select", "allocator").unwrap_err().to_string()
        };
        assert!(error("select = { x = [1] }").contains("no `allocator`"));
        assert!(error("allocator = 'a'\nselect = { x = 1 }").contains(":2: `select` lists values to choose from"));
    }

    #[test]
    fn unknown_keys_are_named_with_line_and_nearest() {
        let choice = methods()[1].take_choice("compressor").unwrap().unwrap();
        let error = choice.settings.read::<Settings>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cokv.toml:10: unknown key `windw`; did you mean `window`? (known: window, kernel)"
        );
    }

    #[test]
    fn wrong_types_and_broken_syntax_carry_their_line() {
        let table = ConfigTable::parse("a.toml", "\nwindow = \"wide\"").unwrap();
        assert_eq!(table.read::<Settings>().unwrap_err().line, Some(2));
        assert_eq!(ConfigTable::parse("a.toml", "x = 1\ny = ").unwrap_err().line, Some(2));
        let mut table = ConfigTable::parse("a.toml", "method = 3").unwrap();
        assert!(table.take_tables("method").unwrap_err().message.contains("[[method]]"));
    }
}
