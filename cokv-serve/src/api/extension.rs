//! `cokv`, the field that other servers do not have: what is kept of a prompt, and which document it goes on from.

use serde_json::{Map, Value as Json};

use super::error::ApiError;
use super::fields::Fields;

/// What a request says of caches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Extension {
    /// The document whose messages the request's follow.
    pub document: Option<String>,
    /// What is kept of what is read; none where the request does not say.
    pub compress: Option<Compress>,
    /// Refuses to answer from a cache of which something was left out.
    pub exact: bool,
    /// Whether what is read may be kept; none where the request does not say.
    pub store: Option<bool>,
}

/// What is kept of what is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compress {
    /// Of what.
    pub mode: Mode,
    /// A method as tables of methods say it, with its budget; what is not said is the server's default.
    pub method: Map<String, Json>,
}

/// Of what something is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Of nothing.
    #[default]
    Off,
    /// Of the whole prompt, once it is read.
    Question,
    /// Of what stands before the last breakpoint, before the rest is seen.
    Document,
}

impl Extension {
    /// Takes the field from a request.
    ///
    /// # Errors
    /// Keys that there are not are errors here: nobody else sends any.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let Some(mut fields) = fields.object("cokv")? else { return Ok(Self::default()) };
        let path = fields.path("compress");
        let extension = Self {
            document: fields.optional("document")?,
            compress: fields.json("compress").map(|json| compress(&path, json)).transpose()?,
            exact: fields.or("exact", false)?,
            store: fields.optional("store")?,
        };
        fields.end()?;
        Ok(extension)
    }
}

/// A mode, or a table of one and a method.
pub fn compress(path: &str, json: Json) -> Result<Compress, ApiError> {
    if let Json::String(name) = json {
        return Ok(Compress { mode: mode(path, &name)?, method: Map::new() });
    }
    let mut fields = Fields::within(path, json)?;
    let mode_path = fields.path("mode");
    let mode = mode(&mode_path, &fields.required::<String>("mode")?)?;
    Ok(Compress { mode, method: fields.rest() })
}

fn mode(path: &str, name: &str) -> Result<Mode, ApiError> {
    match name {
        "off" => Ok(Mode::Off),
        "question" => Ok(Mode::Question),
        "document" => Ok(Mode::Document),
        _ => Err(ApiError::value(path, format!("`{name}` is no mode: `off`, `question` and `document` are"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: Json) -> Result<Extension, ApiError> {
        Extension::take(&mut Fields::read(json!({ "cokv": json }).to_string().as_bytes()).unwrap())
    }

    #[test]
    fn what_nobody_says_is_off() {
        assert_eq!(read(Json::Null).unwrap(), Extension::default());
        assert_eq!(read(json!({})).unwrap(), Extension::default());
    }

    #[test]
    fn modes_are_names_or_tables() {
        assert_eq!(read(json!({ "compress": "question" })).unwrap().compress.unwrap().mode, Mode::Question);
        let table = read(json!({ "compress": { "mode": "document", "budget": "10%" }, "exact": true })).unwrap();
        let Compress { mode, method } = table.compress.unwrap();
        assert_eq!((mode, method["budget"].as_str(), table.exact), (Mode::Document, Some("10%"), true));
    }

    #[test]
    fn keys_that_there_are_not_are_errors() {
        for (json, param) in [
            (json!({ "documnt": "x" }), "cokv.documnt"),
            (json!({ "compress": "hard" }), "cokv.compress"),
            (json!({ "compress": {} }), "cokv.compress.mode"),
            (json!({ "compress": 1 }), "cokv.compress"),
            (json!({ "document": 1 }), "cokv.document"),
            (json!(1), "cokv"),
        ] {
            assert_eq!(read(json.clone()).unwrap_err().param.as_deref(), Some(param), "{json}");
        }
    }
}
