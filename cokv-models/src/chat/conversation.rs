//! What is said, as OpenAI's API and transformers write it down.

use serde_json::{Map, Value as Json, json};

use super::secret::Secret;
use crate::error::ModelError;

/// What a chat template is to mark up.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// Messages as `apply_chat_template` takes them: tables with a `role`, a `content`, and whatever else a template reads
    /// (`tool_calls`, `tool_call_id`, `reasoning_content`).
    pub messages: Vec<Json>,
    /// A list of functions that may be called, each with its JSON schema.
    pub tools: Option<Json>,
    /// What else the template sees, whether it asks for it or not. It goes before what the model's settings say.
    pub kwargs: Map<String, Json>,
    /// Whether the model answers next.
    pub add_generation_prompt: bool,
    /// Whether the model goes on with the last message, which is not closed then.
    pub continue_final_message: bool,
}

impl Default for Conversation {
    /// Nothing is said, and the model is to answer.
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: None,
            kwargs: Map::new(),
            add_generation_prompt: true,
            continue_final_message: false,
        }
    }
}

impl Conversation {
    /// One message of a user.
    pub fn of_user(message: &str) -> Self {
        Self { messages: vec![json!({ "role": "user", "content": message })], ..Self::default() }
    }

    /// As templates read it: OpenAI's API has the arguments of a tool call as the text of a JSON table, and templates, which write
    /// them as JSON, as the table itself. A text that is none stays one.
    pub(super) fn for_templates(&self) -> Self {
        let mut read = self.clone();
        let calls = |message: &mut Json| message.get_mut("tool_calls").and_then(Json::as_array_mut).map(std::mem::take);
        for message in &mut read.messages {
            let Some(mut calls) = calls(message) else { continue };
            for call in &mut calls {
                let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
                let table = arguments.as_str().and_then(|text| serde_json::from_str::<Map<_, _>>(text).ok());
                if let Some(table) = table {
                    *arguments = Json::Object(table);
                }
            }
            message["tool_calls"] = Json::Array(calls);
        }
        read
    }

    /// Puts a tag behind the last message's text, which a template that closes the message writes before what closes it. The
    /// space behind it shows whether the template trims. Returns the text as it was.
    pub(super) fn tag_end(&mut self, tag: &Secret) -> Result<String, ModelError> {
        let content = self.messages.last_mut().and_then(|message| message.get_mut("content"));
        let text = match content {
            Some(Json::String(text)) => Some(text),
            Some(Json::Array(parts)) => {
                let texts = parts.iter_mut().rev().filter_map(|part| part.get_mut("text"));
                texts.filter_map(as_text).next()
            }
            _ => None,
        };
        let text = text.ok_or_else(|| {
            ModelError::ChatTemplate("there is no text in the last message that could be continued".into())
        })?;
        let before = text.clone();
        text.push_str(tag.as_str());
        text.push(' ');
        Ok(before)
    }
}

fn as_text(json: &mut Json) -> Option<&mut String> {
    match json {
        Json::String(text) => Some(text),
        _ => None,
    }
}

/// What a template wrote up to the tag, as transformers cuts it.
pub(super) fn up_to_tag(rendered: &str, tag: &Secret, text: &str) -> Result<String, ModelError> {
    let place = rendered.rfind(tag.as_str()).filter(|_| rendered.contains(text.trim()));
    let lost = "the model's template changes the last message, so that it cannot be continued";
    let (before, behind) = rendered.split_at(place.ok_or_else(|| ModelError::ChatTemplate(lost.into()))?);
    let trims = !behind[tag.as_str().len()..].starts_with(' ');
    Ok(if trims { before.trim_end() } else { before }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_tables_where_their_text_is_one() {
        let call =
            |arguments: Json| json!([{ "type": "function", "function": { "name": "f", "arguments": arguments } }]);
        for (written, read) in [
            (json!(r#"{"b": 1, "a": [2]}"#), json!({ "b": 1, "a": [2] })),
            (json!("{\"cut"), json!("{\"cut")),
            (json!("[1]"), json!("[1]")),
            (json!({ "x": 1 }), json!({ "x": 1 })),
        ] {
            let message = json!({ "role": "assistant", "content": null, "tool_calls": call(written) });
            let conversation = Conversation { messages: vec![message], ..Conversation::default() }.for_templates();
            assert_eq!(conversation.messages[0]["tool_calls"], call(read));
        }
        for calls in [json!(null), json!("x"), json!([1])] {
            let messages = vec![json!({ "role": "assistant", "tool_calls": calls }), json!(1)];
            let conversation = Conversation { messages, ..Conversation::default() };
            assert_eq!(conversation.for_templates(), conversation);
        }
    }
}
