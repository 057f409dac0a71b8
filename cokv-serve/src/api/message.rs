//! Messages of a conversation as clients send them, and as chat templates see them.

use serde_json::{Map, Value as Json};

use super::error::ApiError;
use super::fields::{Fields, kind};

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// As a template sees it: its content is one string, or null where an assistant only calls tools.
    pub seen: Map<String, Json>,
    /// Bytes of its content up to which it is to be read by itself, ascending.
    pub breakpoints: Vec<usize>,
}

impl Message {
    /// A user's, of a text.
    pub fn user(content: &str) -> Self {
        let seen = [("role", "user"), ("content", content)].map(|(key, text)| (key.to_owned(), text.into()));
        Self { seen: seen.into_iter().collect(), breakpoints: Vec::new() }
    }

    /// Who speaks.
    pub fn role(&self) -> &str {
        self.seen.get("role").and_then(Json::as_str).unwrap_or_default()
    }

    /// What is said.
    pub fn content(&self) -> &str {
        self.seen.get("content").and_then(Json::as_str).unwrap_or_default()
    }

    /// Says something else.
    pub fn say(&mut self, content: &str) {
        self.seen.insert("content".into(), content.into());
        self.breakpoints.clear();
    }

    /// Says something behind what is said, and `between` in between.
    pub fn append(&mut self, behind: &str, between: &str) {
        let content = format!("{}{between}{behind}", self.content());
        self.seen.insert("content".into(), content.into());
    }

    /// Says something before what is said, and `between` in between. Breakpoints stay where they are in what was said.
    pub fn prepend(&mut self, before: &str, between: &str) {
        let content = format!("{before}{between}{}", self.content());
        self.seen.insert("content".into(), content.into());
        self.breakpoints.iter_mut().for_each(|at| *at += before.len() + between.len());
    }
}

/// Reads the messages of a request.
///
/// # Errors
/// There are none, or one of them is none.
pub fn messages(json: Json) -> Result<Vec<Message>, ApiError> {
    let Json::Array(messages) = json else {
        return Err(ApiError::value("messages", format!("`messages` must be an array, not {}", kind(&json))));
    };
    if messages.is_empty() {
        return Err(ApiError::value("messages", "`messages` must have one at least"));
    }
    messages.into_iter().enumerate().map(|(at, json)| message(&format!("messages[{at}]"), json)).collect()
}

fn message(path: &str, json: Json) -> Result<Message, ApiError> {
    let mut fields = Fields::within(path, json)?;
    let role: String = fields.required("role")?;
    let role = match role.as_str() {
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" => "tool",
        _ => {
            let message = format!("`{role}` is no role: system, developer, user, assistant and tool are");
            return Err(ApiError::value(fields.path("role"), message));
        }
    };
    fields.refuse(&["audio", "function_call"])?;
    let mut seen = Map::from_iter([("role".to_owned(), Json::from(role))]);
    let calls = fields.json("tool_calls").filter(|calls| calls.as_array().is_none_or(|calls| !calls.is_empty()));
    let content_path = fields.path("content");
    let (content, breakpoints) = match fields.json("content") {
        Some(content) => content_of(&content_path, content)?,
        None if role == "assistant" => (None, Vec::new()),
        None => return Err(ApiError::value(&content_path, format!("`{content_path}` is missing"))),
    };
    if content.is_none() && calls.is_none() {
        let message = format!("`{path}` says nothing: an assistant's message has a content or calls tools");
        return Err(ApiError::value(&content_path, message));
    }
    // Templates write what is null as `None`.
    seen.insert("content".into(), content.map_or_else(|| "".into(), Json::from));
    if let Some(calls) = calls {
        if role != "assistant" {
            return Err(ApiError::value(fields.path("tool_calls"), "only an assistant calls tools"));
        }
        seen.insert("tool_calls".into(), tool_calls(&fields.path("tool_calls"), calls)?);
    }
    for name in ["name", "tool_call_id", "reasoning_content"] {
        if let Some(text) = fields.optional::<String>(name)? {
            seen.insert(name.into(), text.into());
        }
    }
    Ok(Message { seen, breakpoints })
}

/// A text, or the texts of parts one after the other, and where parts end at which a breakpoint stands.
fn content_of(path: &str, content: Json) -> Result<(Option<String>, Vec<usize>), ApiError> {
    let parts = match content {
        Json::String(text) => return Ok((Some(text), Vec::new())),
        Json::Array(parts) => parts,
        other => {
            let message = format!("`{path}` must be a string or an array of parts, not {}", kind(&other));
            return Err(ApiError::value(path, message));
        }
    };
    let (mut text, mut breakpoints) = (String::new(), Vec::new());
    for (at, part) in parts.into_iter().enumerate() {
        let mut part = Fields::within(&format!("{path}[{at}]"), part)?;
        let kind: String = part.required("type")?;
        if kind != "text" {
            let message = format!("parts of type `{kind}` are not supported: this model reads text");
            return Err(ApiError::unsupported(part.path("type"), message));
        }
        text.push_str(&part.required::<String>("text")?);
        if let Some(mut breakpoint) = part.object("prompt_cache_breakpoint")? {
            let mode: String = breakpoint.or("mode", "explicit".into())?;
            if mode != "explicit" {
                return Err(ApiError::value(breakpoint.path("mode"), "a breakpoint's mode is `explicit`"));
            }
            breakpoints.push(text.len());
        }
    }
    breakpoints.dedup();
    Ok((Some(text), breakpoints))
}

/// Calls as they were made.
fn tool_calls(path: &str, calls: Json) -> Result<Json, ApiError> {
    let Json::Array(calls) = calls else {
        return Err(ApiError::value(path, format!("`{path}` must be an array, not {}", kind(&calls))));
    };
    let call = |(at, call): (usize, Json)| {
        let mut fields = Fields::within(&format!("{path}[{at}]"), call)?;
        let id: Option<String> = fields.optional("id")?;
        let kind: String = fields.or("type", "function".into())?;
        let function_path = fields.path("function");
        let Some(mut function) = fields.object("function")? else {
            return Err(ApiError::value(&function_path, format!("`{function_path}` is missing")));
        };
        let name: String = function.required("name")?;
        let arguments = match function.json("arguments") {
            Some(arguments) => arguments,
            None => Json::Object(Map::new()),
        };
        let function = Map::from_iter([("name".to_owned(), name.into()), ("arguments".to_owned(), arguments)]);
        let mut call = Map::from_iter([("type".to_owned(), kind.into()), ("function".to_owned(), function.into())]);
        if let Some(id) = id {
            call.insert("id".into(), id.into());
        }
        Ok(Json::Object(call))
    };
    calls.into_iter().enumerate().map(call).collect::<Result<Vec<_>, _>>().map(Json::Array)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_are_seen_as_templates_expect_them() {
        let read = messages(json!([
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [
                { "type": "text", "text": "aé", "prompt_cache_breakpoint": { "mode": "explicit", "ttl": "30m" } },
                { "type": "text", "text": "b" },
            ] },
            { "role": "assistant", "content": null, "refusal": null, "tool_calls": [
                { "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"x\": 1}" } },
                { "id": "2", "type": "function", "function": { "name": "g", "arguments": "{" } },
            ] },
            { "role": "tool", "tool_call_id": "1", "content": "2" },
        ]));
        let read = read.unwrap();
        assert_eq!(read[0].role(), "system");
        assert_eq!((read[1].content(), read[1].breakpoints.as_slice()), ("aéb", &[3][..]));
        assert_eq!(read[2].seen["tool_calls"][0]["function"]["arguments"], "{\"x\": 1}");
        assert_eq!(read[2].seen["tool_calls"][1]["function"]["arguments"], "{");
        assert_eq!(read[3].seen["tool_call_id"], "1");
        let mut later = read[1].clone();
        later.prepend("doc", "\n\n");
        assert_eq!((later.content(), later.breakpoints.as_slice()), ("doc\n\naéb", &[8][..]));
    }

    #[test]
    fn what_is_no_message_is_named() {
        for (messages_json, code, param) in [
            (json!([]), "invalid_value", "messages"),
            (json!("x"), "invalid_value", "messages"),
            (json!(["x"]), "invalid_value", "messages[0]"),
            (json!([{ "content": "x" }]), "invalid_value", "messages[0].role"),
            (json!([{ "role": "function", "content": "x" }]), "invalid_value", "messages[0].role"),
            (json!([{ "role": "user" }]), "invalid_value", "messages[0].content"),
            (json!([{ "role": "assistant" }]), "invalid_value", "messages[0].content"),
            (json!([{ "role": "user", "content": 3 }]), "invalid_value", "messages[0].content"),
            (
                json!([{ "role": "user", "content": [{ "type": "text" }] }]),
                "invalid_value",
                "messages[0].content[0].text",
            ),
            (
                json!([{ "role": "user", "content": [{ "type": "image_url" }] }]),
                "unsupported",
                "messages[0].content[0].type",
            ),
            (json!([{ "role": "user", "content": "x", "audio": {} }]), "unsupported", "messages[0].audio"),
            (json!([{ "role": "user", "content": "x", "tool_calls": [1] }]), "invalid_value", "messages[0].tool_calls"),
            (
                json!([{ "role": "assistant", "tool_calls": [{ "function": {} }] }]),
                "invalid_value",
                "messages[0].tool_calls[0].function.name",
            ),
        ] {
            let error = messages(messages_json.clone()).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Some(code), Some(param)), "{messages_json}");
        }
    }
}
