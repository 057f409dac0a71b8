//! From names in a TOML file to implementations.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::config::{Choice, unknown_name};
use crate::preset::Choices;
use crate::{
    BudgetAllocator, CacheCompressor, ConfigError, ConfigTable, ImportanceEstimator, Method, Named, Preset,
    WhileDecoding,
};

type Builder<T> = Box<dyn Fn(&Choice<'_>) -> Result<Named<T>, ConfigError> + Send + Sync>;

/// Every compressor and allocator that a TOML file may name, and estimators of heads beside cokv's own. A user's own crate
/// adds its policies to `cokv_policies::registry()`:
///
/// ```
/// # use cokv_core::{CacheCompressor, LayerView, PolicyError, Registry};
/// #[derive(Debug, serde::Serialize, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Oldest {}
///
/// impl CacheCompressor for Oldest {
///     fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
///         let row = (0..layer.prompt_len).map(|token| -(token as f32));
///         Ok(std::iter::repeat_n(row, layer.layout.kv_heads).flatten().collect())
///     }
/// }
///
/// let mut registry = Registry::default();
/// registry.add_compressor("oldest", |settings| settings.read::<Oldest>());
/// ```
#[derive(Default)]
pub struct Registry {
    compressors: BTreeMap<String, Builder<dyn CacheCompressor>>,
    allocators: BTreeMap<String, Builder<dyn BudgetAllocator>>,
    estimators: BTreeMap<String, Builder<dyn ImportanceEstimator>>,
    presets: BTreeMap<String, Preset>,
}

impl Registry {
    /// Makes a compressor known; a second one of the same name replaces the first.
    pub fn add_compressor<C, F>(&mut self, name: &str, read: F)
    where
        C: CacheCompressor + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<C, ConfigError> + Send + Sync + 'static,
    {
        self.compressors.insert(name.into(), builder(read, |compressor| Arc::new(compressor)));
    }

    /// Makes an allocator known; a second one of the same name replaces the first.
    pub fn add_allocator<A, F>(&mut self, name: &str, read: F)
    where
        A: BudgetAllocator + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<A, ConfigError> + Send + Sync + 'static,
    {
        self.allocators.insert(name.into(), builder(read, |allocator| Arc::new(allocator)));
    }

    /// Makes an estimator of heads known, beside cokv's own; a second one of the same name replaces the first.
    pub fn add_estimator<E, F>(&mut self, name: &str, read: F)
    where
        E: ImportanceEstimator + Serialize + 'static,
        F: Fn(&ConfigTable<'_>) -> Result<E, ConfigError> + Send + Sync + 'static,
    {
        self.estimators.insert(name.into(), builder(read, |estimator| Arc::new(estimator)));
    }

    /// Gives settings that somebody published a name, which stands where a compressor's would. `method` is what a
    /// `[[method]]` table would say: `compressor = …`, and `allocator = …` if it is a whole method. A second preset of
    /// the same name replaces the first, and a compressor goes before a preset.
    ///
    /// ```
    /// # let mut registry = cokv_core::Registry::default();
    /// registry.add_preset(
    ///     "wide-snapkv",
    ///     "compressor = { name = 'snapkv', window = 64 }\nallocator = 'ada-kv'",
    ///     "our workshop paper, table 2",
    /// );
    /// ```
    pub fn add_preset(&mut self, name: &str, method: &str, source: &str) {
        self.presets.insert(name.into(), Preset::new(name, method, source));
    }

    /// All presets by name, sorted.
    pub fn presets(&self) -> impl Iterator<Item = (&str, &Preset)> {
        self.presets.iter().map(|(name, preset)| (name.as_str(), preset))
    }

    /// Names of all compressors, sorted.
    pub fn compressors(&self) -> impl Iterator<Item = &str> {
        self.compressors.keys().map(String::as_str)
    }

    /// Names of all allocators, sorted.
    pub fn allocators(&self) -> impl Iterator<Item = &str> {
        self.allocators.keys().map(String::as_str)
    }

    /// Names of the estimators that were added, sorted.
    pub fn estimators(&self) -> impl Iterator<Item = &str> {
        self.estimators.keys().map(String::as_str)
    }

    /// Builds an estimator from its name and settings; none where the name is not one that was added.
    pub fn estimator(&self, choice: &Choice<'_>) -> Option<Result<Named<dyn ImportanceEstimator>, ConfigError>> {
        self.estimators.get(&choice.name).map(|build| build(choice))
    }

    /// Builds a compressor from its name, or that of a preset, and its settings.
    pub fn compressor(&self, choice: &Choice<'_>) -> Result<Named<dyn CacheCompressor>, ConfigError> {
        let choice = &match self.preset(choice)? {
            None => choice.clone(),
            Some((compressor, None)) => compressor,
            Some((_, Some(_))) => {
                let message = format!("`{}` is a whole method, and what is needed here is a compressor", choice.name);
                return Err(choice.settings.error(message));
            }
        };
        let names = || self.compressors().chain(self.presets.keys().map(String::as_str));
        let build = self.compressors.get(&choice.name).ok_or_else(|| {
            choice.settings.error(match self.allocators.contains_key(&choice.name) {
                true => format!(
                    "`{0}` is an allocator: write allocator = \"{0}\" beside a compressor, such as compressor = \
                     \"snapkv\"",
                    choice.name
                ),
                false => unknown_name("compressor", &choice.name, names()),
            })
        })?;
        build(choice)
    }

    /// Builds an allocator from its name and settings.
    pub fn allocator(&self, choice: &Choice<'_>) -> Result<Named<dyn BudgetAllocator>, ConfigError> {
        let scores = self.compressors.contains_key(&choice.name) || self.presets.contains_key(&choice.name);
        let build = self.allocators.get(&choice.name).ok_or_else(|| {
            choice.settings.error(match scores {
                true => format!("`{0}` is no allocator: write compressor = \"{0}\"", choice.name),
                false => unknown_name("allocator", &choice.name, self.allocators()),
            })
        })?;
        build(choice)
    }

    /// What the name of a preset stands for, with the settings that are written beside the name; none where it is no
    /// preset's.
    fn preset<'i>(&'i self, choice: &Choice<'i>) -> Result<Option<Choices<'i>>, ConfigError> {
        let Some(preset) = self.presets.get(&choice.name).filter(|_| !self.compressors.contains_key(&choice.name))
        else {
            return Ok(None);
        };
        let (compressor, allocator) = preset.choices()?;
        let bare = Choice::named(&choice.name, &choice.settings);
        Ok(Some((choice.over(compressor), allocator.map(|allocator| bare.over(allocator)))))
    }

    /// A `[[method]]` table in which a compressor and an allocator stand for the preset that it names, whose name
    /// becomes the method's. Other tables are as before.
    pub fn expand<'i>(&'i self, mut table: ConfigTable<'i>) -> Result<ConfigTable<'i>, ConfigError> {
        let mut written = table.clone();
        let (named, beside) = (written.take_choice("compressor")?, written.take_choice("allocator")?);
        let Some(named) = named else { return Ok(table) };
        let Some((compressor, allocator)) = self.preset(&named)? else { return Ok(table) };
        match (allocator, &beside) {
            (Some(allocator), None) => {
                table.put_text_unless_there("name", named.name);
                table.put_choice("allocator", allocator);
            }
            (Some(_), Some(_)) => {
                let message = format!(
                    "`{}` is a whole method, allocator included: leave this one out, or write the compressor that the \
                     preset stands for (`cokv methods` shows it)",
                    named.name
                );
                return Err(table.error_at("allocator", message));
            }
            (None, beside) => {
                let name = default_name(&named.name, beside.as_ref().map_or(UNIFORM, |allocator| &allocator.name));
                table.put_text_unless_there("name", name);
            }
        }
        table.put_choice("compressor", compressor);
        Ok(table)
    }

    /// Builds a method from a `[[method]]` table: `compressor`, a compressor or a preset, `allocator` (default
    /// `uniform`) and `name` (default: the compressor's, with the allocator's behind it where that is not the default).
    pub fn method(&self, table: ConfigTable<'_>) -> Result<Method, ConfigError> {
        let mut table = self.expand(table)?;
        let whole = table.clone();
        let compressor = table.take_choice("compressor")?;
        let allocator = table.take_choice("allocator")?.unwrap_or_else(|| Choice::named(UNIFORM, &whole));
        let decoding = table.take_table_or_name(WHILE_DECODING, "compressor")?;
        let MethodName { name, .. } = table.read()?;
        let compressor = compressor
            .ok_or_else(|| whole.error("a method needs a compressor, for example: compressor = \"snapkv\""))?;
        let name = name.unwrap_or_else(|| default_name(&compressor.name, &allocator.name));
        let label = |letter: char| letter.is_ascii_alphanumeric() || "-_.+ ".contains(letter);
        if name.trim() != name || name.is_empty() || !name.chars().all(label) {
            let message = format!("`{name}` cannot name a method: use letters, digits, blanks, `-`, `_`, `.` and `+`");
            return Err(whole.error_at("name", message));
        }
        let mut method = Method::new(name, self.compressor(&compressor)?, self.allocator(&allocator)?);
        if let Some(decoding) = decoding {
            method.set_while_decoding(self.while_decoding(decoding, &compressor)?);
        }
        Ok(method)
    }

    /// What evicts while the model answers: the method's own compressor, where no other is named.
    fn while_decoding(&self, mut table: ConfigTable<'_>, of_prompt: &Choice<'_>) -> Result<WhileDecoding, ConfigError> {
        let whole = table.clone();
        let compressor = table.take_choice("compressor")?;
        let Again { every, .. } = table.read()?;
        if every == 0 {
            return Err(whole.error_at("every", "`every` is the answer tokens from one look to the next: at least 1"));
        }
        let compressor = self.compressor(compressor.as_ref().unwrap_or(of_prompt))?;
        if !compressor.evicts() {
            let message = format!(
                "`{}` keeps everything: `while_decoding` needs a compressor that says what to keep, such as \"snapkv\"",
                compressor.settings().name()
            );
            return Err(whole.error_at("compressor", message));
        }
        Ok(WhileDecoding { every, compressor })
    }
}

/// The key of what evicts while the model answers.
const WHILE_DECODING: &str = "while_decoding";

/// The allocator of a method that names none.
const UNIFORM: &str = "uniform";

fn default_name(compressor: &str, allocator: &str) -> String {
    if allocator == UNIFORM { compressor.into() } else { format!("{compressor}+{allocator}") }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodName {
    name: Option<String>,
    // Taken out before this is read; named here so that a misspelt key finds its nearest neighbour.
    #[serde(default, rename = "compressor")]
    _compressor: IgnoredAny,
    #[serde(default, rename = "allocator")]
    _allocator: IgnoredAny,
    #[serde(default, rename = "while_decoding")]
    _while_decoding: IgnoredAny,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    #[serde(default = "Again::every")]
    every: usize,
    #[serde(default, rename = "compressor")]
    _compressor: IgnoredAny,
}

impl Again {
    fn every() -> usize {
        WhileDecoding::EVERY
    }
}

/// Reads the settings of a `T`, and keeps what serde writes of them beside it.
fn builder<T, D, F>(read: F, share: fn(T) -> Arc<D>) -> Builder<D>
where
    T: Serialize + 'static,
    D: ?Sized + 'static,
    F: Fn(&ConfigTable<'_>) -> Result<T, ConfigError> + Send + Sync + 'static,
{
    Box::new(move |choice| {
        let built = read(&choice.settings)?;
        let settings = choice.settings_of(&built)?;
        Ok(Named::new(share(built), settings))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{AllocationRequest, BudgetPlan, LayerView, PolicyError};

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Flat {}

    impl CacheCompressor for Flat {
        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
        }
    }

    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Broad {
        width: usize,
        depth: usize,
    }

    impl CacheCompressor for Broad {
        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Flat {}.score(layer)
        }
    }

    impl BudgetAllocator for Flat {
        fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
            Ok(BudgetPlan::new(vec![0; request.layout.heads()]))
        }
    }

    fn method(text: &str) -> Result<Method, ConfigError> {
        let mut registry = Registry::default();
        registry.add_compressor("flat", |settings| settings.read::<Flat>());
        registry.add_allocator("uniform", |settings| settings.read::<Flat>());
        registry.add_allocator("other", |settings| settings.read::<Flat>());
        registry.add_compressor("broad", |settings| settings.read::<Broad>());
        registry.add_preset("broad-paper", "compressor = { name = 'broad', width = 3, depth = 4 }", "a paper");
        registry.add_preset("whole", "compressor = { name = 'broad', width = 5 }\nallocator = 'other'", "another");
        registry.method(ConfigTable::parse("cokv.toml", text)?)
    }

    #[test]
    fn names_default_to_what_the_method_is_made_of() {
        assert_eq!(method("compressor = 'flat'").unwrap().name(), "flat");
        assert_eq!(method("compressor = 'flat'\nallocator = 'other'").unwrap().name(), "flat+other");
        assert_eq!(method("compressor = 'flat'\nname = 'mine'").unwrap().name(), "mine");
        assert_eq!(method("compressor = 'flat'\nname = 'flat w32'").unwrap().name(), "flat w32");
    }

    #[test]
    fn presets_stand_for_settings_that_can_be_changed() {
        for (text, name, settings) in [
            (
                "compressor = 'broad-paper'",
                "broad-paper",
                "{ compressor = { name = \"broad\", depth = 4, width = 3 }, allocator = \"uniform\" }",
            ),
            (
                "compressor = { name = 'broad-paper', width = 9 }\nallocator = 'other'",
                "broad-paper+other",
                "{ compressor = { name = \"broad\", depth = 4, width = 9 }, allocator = \"other\" }",
            ),
            (
                "compressor = { name = 'whole', depth = 1 }",
                "whole",
                "{ compressor = { name = \"broad\", depth = 1, width = 5 }, allocator = \"other\" }",
            ),
            (
                "compressor = 'whole'\nname = 'mine'",
                "mine",
                "{ compressor = { name = \"broad\", depth = 0, width = 5 }, allocator = \"other\" }",
            ),
        ] {
            let method = method(text).unwrap();
            assert_eq!((method.name(), method.settings().to_string().as_str()), (name, settings), "{text}");
        }
    }

    #[test]
    fn settings_beside_a_preset_are_errors_where_they_are_written() {
        let message = |text: &str| method(text).err().unwrap().to_string();
        let unknown = message("name = 'x'\ncompressor = { name = 'whole', widht = 1 }");
        assert!(unknown.starts_with("cokv.toml:2: unknown key `widht`; did you mean `width`?"), "{unknown}");
        let wrong = message("name = 'x'\ncompressor = { name = 'whole', width = 'far' }");
        assert!(wrong.starts_with("cokv.toml:2: invalid type"), "{wrong}");
        let twice = message("compressor = 'whole'\nallocator = 'other'");
        assert!(twice.starts_with("cokv.toml:2: `whole` is a whole method"), "{twice}");
    }

    /// Regression: an allocator's name was taken for a misspelt compressor.
    #[test]
    fn names_of_the_other_kind_are_recognised() {
        let message = |text: &str| method(text).err().unwrap().to_string();
        assert!(
            message("compressor = 'other'").contains(":1: `other` is an allocator: write allocator = \"other\" beside")
        );
        for name in ["whole", "broad"] {
            let text = format!("compressor = 'flat'\nallocator = '{name}'");
            assert!(message(&text).contains(&format!(":2: `{name}` is no allocator: write compressor = \"{name}\"")));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let message = |text: &str| method(text).err().unwrap().to_string();
        assert_eq!(
            message("compressor = 'flatt'"),
            "cokv.toml:1: unknown compressor `flatt`; did you mean `flat`? (known: broad, flat, broad-paper, whole)"
        );
        assert!(
            message("compressor = 'flat'\nalocator = 'other'")
                .contains(":2: unknown key `alocator`; did you mean `allocator`?")
        );
        assert!(message("\ncompressor = { name = 'flat', speed = 1 }").contains(":2: unknown key `speed`"));
        assert!(message("name = 'mine'").contains("needs a compressor"));
        assert!(message("compresor = 'flat'").contains("unknown key `compresor`; did you mean `compressor`?"));
        assert!(message("compressor = 'flat'\nname = 'a|b'").contains(":2: `a|b` cannot name a method"));
    }
}
