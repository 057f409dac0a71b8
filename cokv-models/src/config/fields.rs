//! The fields of a JSON object, refused by their names.

use std::path::Path;

use serde_json::Value as Json;

use super::{LARGEST_SIZE, sensible};
use crate::error::ModelError;

/// An object of config.json. A field that is null is one that is missing.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    json: &'a Json,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, json: &'a Json) -> Self {
        Self { path, json }
    }

    pub(super) fn get(self, key: &str) -> Option<&'a Json> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// A width or a count.
    pub(super) fn optional_size(self, key: &str) -> Result<Option<usize>, ModelError> {
        let size = self.optional_integer(key)?;
        size.map(|size| sensible(self.path, key, size, 0..=LARGEST_SIZE)).transpose()
    }

    /// A width or a count that must be there.
    pub(super) fn size(self, key: &str) -> Result<usize, ModelError> {
        self.optional_size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn optional_integer(self, key: &str) -> Result<Option<usize>, ModelError> {
        self.typed(key, "a whole number", |value| value.as_u64().map(|number| number as usize))
    }

    pub(super) fn optional_number(self, key: &str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Json::as_f64)
    }

    pub(super) fn number(self, key: &str) -> Result<f64, ModelError> {
        self.optional_number(key)?.ok_or_else(|| self.missing(key))
    }

    /// A list of numbers that must be there.
    pub(super) fn numbers(self, key: &str) -> Result<Vec<f32>, ModelError> {
        let number = |json: &Json| json.as_f64().map(|number| number as f32);
        let list = |json: &'a Json| json.as_array()?.iter().map(number).collect();
        self.typed(key, "a list of numbers", list)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn optional_flag(self, key: &str) -> Result<Option<bool>, ModelError> {
        self.typed(key, "true or false", Json::as_bool)
    }

    pub(super) fn optional_text(self, key: &str) -> Result<Option<&'a str>, ModelError> {
        self.typed(key, "a text", Json::as_str)
    }

    pub(super) fn optional_object(self, key: &str) -> Result<Option<Self>, ModelError> {
        self.typed(key, "an object", |json| json.is_object().then_some(Self { json, ..self }))
    }

    pub(super) fn missing(self, key: &str) -> ModelError {
        ModelError::malformed(self.path, format!("`{key}` is missing"))
    }

    fn typed<T>(
        self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Json) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let wrong = || ModelError::malformed(self.path, format!("`{key}` is {value}, not {expected}"));
        read(value).map(Some).ok_or_else(wrong)
    }
}
