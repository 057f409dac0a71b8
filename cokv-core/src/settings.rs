//! Settings as data: what a configuration may say, with every default written out.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// A table of settings with a `name`, as a configuration would write it. Shown as one line of TOML:
/// `{ name = "snapkv", window = 32 }`, or `"full"` where there is nothing to set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(Table);

impl Settings {
    /// What serde writes of an implementation, under its registered name.
    pub fn of(name: &str, settings: &impl Serialize) -> Result<Self, toml::ser::Error> {
        let mut table = Table::try_from(settings)?;
        table.insert("name".into(), name.into());
        Ok(Self(table))
    }

    /// The registered name.
    pub fn name(&self) -> &str {
        self.0.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.0
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.len(), self.0.get("name")) {
            (1, Some(name)) => name.fmt(f),
            _ => f.write_str(&inline(&self.0)),
        }
    }
}

/// One line, the name first and the other keys in the order of the alphabet, so that a line can be hashed.
fn inline(table: &Table) -> String {
    let mut keys: Vec<&String> = table.keys().collect();
    keys.sort_by_key(|key| (*key != "name", *key));
    let entry = |key: &String| match &table[key] {
        Value::Table(inner) => format!("{key} = {}", inline(inner)),
        value => format!("{key} = {value}"),
    };
    let entries: Vec<String> = keys.into_iter().map(entry).collect();
    format!("{{ {} }}", entries.join(", "))
}

/// An implementation under its registered name, and its settings as data. Copies share the implementation.
#[derive(Debug)]
pub struct Named<T: ?Sized> {
    implementation: Arc<T>,
    settings: Settings,
}

impl<T: ?Sized> Named<T> {
    /// Puts the two together.
    pub fn new(implementation: Arc<T>, settings: Settings) -> Self {
        Self { implementation, settings }
    }

    /// What a configuration would say, every default written out.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

// By hand, because a derived one would ask it of `T`.
impl<T: ?Sized> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self { implementation: Arc::clone(&self.implementation), settings: self.settings.clone() }
    }
}

impl<T: ?Sized> Deref for Named<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.implementation
    }
}

impl<T: ?Sized> Serialize for Named<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.settings.serialize(serializer)
    }
}

/// Compressor and allocator of a method, every default written out. Shown as one line of TOML, an entry of `method = […]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodSettings {
    /// What scores tokens.
    pub compressor: Settings,
    /// What shares the budget out.
    pub allocator: Settings,
    /// What evicts while the model answers, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub while_decoding: Option<WhileDecodingSettings>,
}

impl fmt::Display for MethodSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ compressor = {}, allocator = {}", self.compressor, self.allocator)?;
        if let Some(while_decoding) = &self.while_decoding {
            write!(f, ", while_decoding = {while_decoding}")?;
        }
        f.write_str(" }")
    }
}

/// What evicts while the model answers, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WhileDecodingSettings {
    /// Answer tokens from one look to the next.
    pub every: usize,
    /// What scores tokens.
    pub compressor: Settings,
}

impl fmt::Display for WhileDecodingSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ every = {}, compressor = {} }}", self.every, self.compressor)
    }
}
