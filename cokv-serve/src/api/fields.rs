//! Fields of a request's JSON, each of which is named where it is wrong.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::error::ApiError;

/// How deep arrays and objects may lie in each other.
pub const DEEPEST: usize = 64;

/// The fields of an object that nobody has taken yet. A field that is null is as good as none.
#[derive(Clone, Debug)]
pub struct Fields {
    fields: Map<String, Json>,
    /// What stands before a field's name where it is spoken of: `cokv.`.
    path: String,
}

impl Fields {
    /// Those of a body.
    ///
    /// # Errors
    /// It is no JSON, lies too deep, or is no object.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        if depth(body) > DEEPEST {
            return Err(ApiError::json(format!("the body's arrays and objects lie more than {DEEPEST} deep")));
        }
        let json =
            serde_json::from_slice(body).map_err(|error| ApiError::json(format!("the body is no JSON: {error}")))?;
        match json {
            Json::Object(fields) => Ok(Self { fields, path: String::new() }),
            other => Err(ApiError::json(format!("the body must be an object, not {}", kind(&other)))),
        }
    }

    /// Those of an object within another; `path` is where it lies.
    pub fn within(path: &str, json: Json) -> Result<Self, ApiError> {
        match json {
            Json::Object(fields) => Ok(Self { fields, path: format!("{path}.") }),
            other => Err(ApiError::value(path, format!("`{path}` must be an object, not {}", kind(&other)))),
        }
    }

    /// Where a field lies, as errors name it.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Takes a field as it is.
    pub fn json(&mut self, name: &str) -> Option<Json> {
        self.fields.remove(name).filter(|json| !json.is_null())
    }

    /// Takes a field of some type.
    ///
    /// # Errors
    /// It is of another.
    pub fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let path = self.path(name);
        let wrong = |error: serde_json::Error| ApiError::value(&path, format!("`{path}`: {error}"));
        self.json(name).map(serde_json::from_value).transpose().map_err(wrong)
    }

    /// Takes a field that has to be there.
    pub fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        let path = self.path(name);
        let missing = || ApiError::value(&path, format!("`{path}` is missing"));
        self.optional(name)?.ok_or_else(missing)
    }

    /// Takes a field that is as another where nobody says it.
    pub fn or<T: DeserializeOwned>(&mut self, name: &str, otherwise: T) -> Result<T, ApiError> {
        Ok(self.optional(name)?.unwrap_or(otherwise))
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// It is none, or beyond the ends.
    pub fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let path = self.path(name);
        let Some(json) = self.json(name) else { return Ok(None) };
        match json.as_u64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let message =
                    format!("`{path}` is {json}; it must be a whole number of {} to {}", range.start(), range.end());
                Err(ApiError::value(path, message))
            }
        }
    }

    /// Takes an object's fields.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let path = self.path(name);
        self.json(name).map(|json| Self::within(&path, json)).transpose()
    }

    /// Refuses what nobody has taken.
    pub fn end(&self) -> Result<(), ApiError> {
        match self.fields.keys().next() {
            Some(name) => {
                let path = self.path(name);
                Err(ApiError::value(&path, format!("there is no `{path}`")))
            }
            None => Ok(()),
        }
    }

    /// What nobody has taken.
    pub fn rest(self) -> Map<String, Json> {
        self.fields
    }

    /// Refuses fields that would change the answer and are not done.
    pub fn refuse(&mut self, names: &[&str]) -> Result<(), ApiError> {
        match names.iter().find(|name| self.json(name).is_some()) {
            Some(name) => {
                let path = self.path(name);
                Err(ApiError::unsupported(&path, format!("`{path}` is not supported here")))
            }
            None => Ok(()),
        }
    }
}

/// What a JSON value is, in words.
pub fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// How deep arrays and objects lie in each other, of what need not be JSON: nothing is built for it, so that nothing is too deep.
fn depth(body: &[u8]) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let (mut text, mut escaped) = (false, false);
    for &byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if text => escaped = true,
            b'"' => text = !text,
            b'[' | b'{' if !text => {
                open += 1;
                deepest = deepest.max(open);
            }
            b']' | b'}' if !text => open = open.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_wrong_are_named() {
        let mut fields = Fields::read(br#"{"a": 1.5, "b": null, "c": "x", "d": {"e": 9}}"#).unwrap();
        assert_eq!(fields.optional::<bool>("b"), Ok(None));
        assert_eq!(fields.required::<bool>("b").unwrap_err().message, "`b` is missing");
        let error = fields.optional::<f64>("c").unwrap_err();
        assert_eq!((error.status, error.code, error.param.as_deref()), (400, Some("invalid_value"), Some("c")));
        assert!(fields.integer("a", 1..=8).unwrap_err().message.contains("whole number of 1 to 8"));
        let mut inner = fields.object("d").unwrap().unwrap();
        assert!(inner.clone().end().unwrap_err().message.contains("`d.e`"));
        assert_eq!(inner.integer("e", 1..=8).unwrap_err().param.as_deref(), Some("d.e"));
        assert!(inner.end().is_ok() && fields.end().is_ok());
    }

    #[test]
    fn what_is_no_object_is_no_request() {
        for body in ["", "{", "[1]", "\u{1}", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(Fields::read(body.as_bytes()).unwrap_err().code, Some("invalid_json"), "{body}");
        }
        assert!(Fields::read(b"{\"a\": \"\xff\"}").is_err());
    }

    #[test]
    fn depth_counts_what_is_no_text() {
        assert_eq!((depth(br#"{"a":["[[[\"[[",{}]}"#), depth(b"]]][")), (3, 1));
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(Fields::read(nested(DEEPEST - 1).as_bytes()).is_ok());
        assert_eq!(Fields::read(nested(DEEPEST).as_bytes()).unwrap_err().code, Some("invalid_json"));
        assert!(Fields::read("[".repeat(1 << 20).as_bytes()).is_err());
    }
}
