//! `/v1/cokv/documents`: texts that are read once, perhaps compressed, and asked about by their names.

use std::time::Duration;

use cokv_models::cache::Segment;
use cokv_scheduler::Document;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};

use super::error::ApiError;
use super::extension::{Compress, Mode, compress};
use super::fields::Fields;
use super::message::{Message, messages};

/// What a document says.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A user's message that the first question goes on with.
    Text(String),
    /// A conversation that a request's messages follow.
    Messages {
        /// What was said.
        messages: Vec<Message>,
        /// As it was sent.
        sent: Json,
    },
}

/// A document to be read.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentRequest {
    /// Its name; drawn from its tokens where there is none.
    pub id: Option<String>,
    /// What it says.
    pub content: Content,
    /// What is kept of it; none where the request does not say.
    pub compress: Option<Compress>,
    /// Whether it stays whatever else wants memory.
    pub pin: bool,
    /// How long it stays after its last use.
    pub time_to_live: Option<Duration>,
    /// Whether every namespace may use it.
    pub shared: bool,
    /// A namespace within that of the key.
    pub salt: Option<String>,
}

/// A file to be written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRequest {
    /// Its name without folder and ending.
    pub name: String,
    /// What a document read from it is called.
    pub id: Option<String>,
    /// A namespace within that of the key.
    pub salt: Option<String>,
}

impl DocumentRequest {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::read(body)?;
        let text: Option<String> = fields.optional("text")?;
        let content = match (text, fields.json("messages")) {
            (Some(text), None) if !text.trim().is_empty() => Content::Text(text),
            (Some(_), None) => return Err(ApiError::value("text", "`text` is empty")),
            (None, Some(sent)) => Content::Messages { messages: messages(sent.clone())?, sent },
            _ => return Err(ApiError::value("text", "a document has either `text` or `messages`")),
        };
        let request = Self {
            id: fields.optional("id")?,
            content,
            compress: fields.json("compress").map(of_document).transpose()?,
            pin: fields.or("pin", true)?,
            time_to_live: time_to_live(&mut fields)?,
            shared: fields.or("shared", false)?,
            salt: fields.optional("cache_salt")?,
        };
        fields.end()?;
        request.id.iter().try_for_each(|id| check_name("id", id))?;
        Ok(request)
    }
}

impl FileRequest {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::read(body)?;
        let (name, id) = (fields.required::<String>("name")?, fields.optional("id")?);
        let request = Self { name, id, salt: fields.optional("cache_salt")? };
        fields.end()?;
        check_name("name", &request.name)?;
        check_name("id", request.id.as_ref().unwrap_or(&request.name))?;
        Ok(request)
    }
}

/// Whether a document, or its file, may be called so: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, so that no name leads out of a folder.
pub fn is_document_name(name: &str) -> bool {
    let first = name.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    let all = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._-".contains(letter));
    first && all && name.len() <= 64
}

fn check_name(param: &str, name: &str) -> Result<(), ApiError> {
    match is_document_name(name) {
        true => Ok(()),
        false => {
            let message = format!("`{param}` has 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or a digit");
            Err(ApiError::value(param, message))
        }
    }
}

/// As of a request's `cokv.compress`; a table need not say that it is the document that is compressed.
fn of_document(json: Json) -> Result<Compress, ApiError> {
    let compress = match json {
        Json::Object(mut table) => {
            table.entry("mode").or_insert("document".into());
            compress("compress", table.into())
        }
        other => compress("compress", other),
    }?;
    match compress.mode {
        Mode::Question => Err(ApiError::value("compress", "a document is compressed before there is a question")),
        _ => Ok(compress),
    }
}

/// Seconds, or a number with `s`, `m` or `h`.
fn time_to_live(fields: &mut Fields) -> Result<Option<Duration>, ApiError> {
    let Some(json) = fields.json("ttl") else { return Ok(None) };
    let seconds = match &json {
        Json::String(text) => {
            let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
            let unit = [("s", 1), ("m", 60), ("h", 3600)].into_iter().find(|(name, _)| *name == unit);
            number.parse::<u32>().ok().zip(unit).map(|(number, (_, seconds))| u64::from(number) * seconds)
        }
        other => other.as_u64().filter(|&seconds| seconds <= u32::MAX.into()),
    };
    let wrong = || ApiError::value("ttl", format!("`ttl` is {json}; it must be seconds, or such as \"30m\""));
    seconds.filter(|&seconds| seconds > 0).map(Duration::from_secs).map(Some).ok_or_else(wrong)
}

/// A document as a client sees it; `detailed` says what each head keeps.
pub fn shown(document: &Document, detailed: bool) -> Json {
    let made_by = document.made_by.as_ref();
    let mut shown = json!({
        "id": document.name,
        "object": "cokv.document",
        "tokens": document.tokens.len(),
        "kept_tokens": document.kept_tokens(),
        "bytes": document.cache.bytes(),
        "method": made_by.map(|made| &made.method),
        "settings": made_by.map(|made| &made.settings),
        "budget": made_by.map(|made| &made.budget),
        "sha256": sha256(document.tokens.iter().flat_map(|token| token.to_le_bytes())),
        "state": state(made_by.is_some()),
        "pinned": document.pinned,
        "shared": document.shared,
        "ttl": document.time_to_live.map(|time| time.as_secs()),
        "hits": document.hits,
    });
    if detailed {
        shown["kept_by_head"] = by_layer(&kept_by_head(&document.cache), document.cache.layout().kv_heads);
    }
    shown
}

/// What a cache is called of which something was left out, or nothing.
pub fn state(compressed: bool) -> &'static str {
    if compressed { "compressed" } else { "full" }
}

fn kept_by_head(cache: &Segment) -> Vec<usize> {
    (0..cache.layout().heads()).map(|head| cache.len(head)).collect()
}

/// `[layers][KV heads]` of what is flat.
pub fn by_layer(by_head: &[usize], kv_heads: usize) -> Json {
    by_head.chunks(kv_heads.max(1)).map(Json::from).collect()
}

/// In hexadecimal digits.
pub fn sha256(bytes: impl IntoIterator<Item = u8>) -> String {
    let bytes: Vec<u8> = bytes.into_iter().collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Json) -> Result<DocumentRequest, ApiError> {
        DocumentRequest::read(json.to_string().as_bytes())
    }

    #[test]
    fn a_document_is_a_text_or_messages() {
        let text = read(json!({ "text": "x", "ttl": "30m", "compress": { "budget": "10%" } })).unwrap();
        assert_eq!((text.pin, text.shared, text.time_to_live), (true, false, Some(Duration::from_secs(1800))));
        assert_eq!(text.compress.unwrap().mode, Mode::Document);
        let said = read(json!({ "messages": [{ "role": "user", "content": "x" }], "ttl": 5, "id": "a.b" })).unwrap();
        assert!(matches!(said.content, Content::Messages { messages, .. } if messages.len() == 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, param) in [
            (json!({}), "text"),
            (json!({ "text": " " }), "text"),
            (json!({ "text": "x", "messages": [] }), "text"),
            (json!({ "text": "x", "id": "../x" }), "id"),
            (json!({ "text": "x", "id": "" }), "id"),
            (json!({ "text": "x", "id": "a".repeat(65) }), "id"),
            (json!({ "text": "x", "ttl": "soon" }), "ttl"),
            (json!({ "text": "x", "ttl": "" }), "ttl"),
            (json!({ "text": "x", "ttl": "5é" }), "ttl"),
            (json!({ "text": "x", "ttl": 0 }), "ttl"),
            (json!({ "text": "x", "pinned": true }), "pinned"),
            (json!({ "text": "x", "compress": "question" }), "compress"),
        ] {
            assert_eq!(read(json.clone()).unwrap_err().param.as_deref(), Some(param), "{json}");
        }
    }

    #[test]
    fn names_of_files_lead_nowhere_else() {
        for name in ["..", ".x", "a/b", "a\\b", "-a", "ä", "a b", "a\0"] {
            assert!(FileRequest::read(json!({ "name": name }).to_string().as_bytes()).is_err(), "{name}");
        }
        assert!(FileRequest::read(br#"{"name": "report-2.v1"}"#).is_ok());
    }
}
