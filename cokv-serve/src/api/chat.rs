//! `/v1/chat/completions`, and the conversation of `/apply-template`.

use cokv_models::sampling::Sampling;
use serde_json::{Map, Value as Json};

use super::error::ApiError;
use super::extension::Extension;
use super::fields::Fields;
use super::form::{ELSEWHERE, Form, response_format};
use super::message::{Message, messages};
use super::tools::Tools;
use super::wanted::Wanted;

/// What a chat template is to render.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversed {
    /// What was said; at least one message.
    pub messages: Vec<Message>,
    /// Tools that the model may call.
    pub tools: Option<Json>,
    /// What else the template is told.
    pub kwargs: Map<String, Json>,
    /// Whether the prompt ends where an assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Whether the last message is left open, so that the answer goes on with it.
    pub continue_final_message: bool,
}

/// A request for answers to a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// Who is to answer.
    pub model: String,
    /// To what.
    pub conversation: Conversed,
    /// Whether calls of tools are looked for in what is said.
    pub calls_tools: bool,
    /// What form each answer has.
    pub form: Form,
    /// What the answer is to be.
    pub wanted: Wanted,
    /// What it says of caches.
    pub cache: Extension,
    /// A namespace within that of the key.
    pub salt: Option<String>,
    /// Whether only what stands before a breakpoint is kept for later.
    pub only_breakpoints: bool,
}

/// What OpenAI's servers do and this one does not, and what would change the answer.
const REFUSED: [&str; 5] = ["audio", "functions", "function_call", "prediction", "web_search_options"];

impl Conversed {
    /// Takes the fields that say what is rendered.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let tools = Tools::take(fields)?;
        Self::with(&tools, fields)
    }

    fn with(tools: &Tools, fields: &mut Fields) -> Result<Self, ApiError> {
        let continue_final_message = fields.or("continue_final_message", false)?;
        let conversation = Self {
            messages: messages(fields.required("messages")?)?,
            tools: tools.seen.clone(),
            kwargs: fields.or("chat_template_kwargs", Map::new())?,
            add_generation_prompt: fields.or("add_generation_prompt", !continue_final_message)?,
            continue_final_message,
        };
        if conversation.continue_final_message {
            let last = conversation.messages.last().map_or("", Message::role);
            if last != "assistant" {
                let message = "`continue_final_message` goes on with an assistant's message, and the last one is none";
                return Err(ApiError::value("continue_final_message", message));
            }
            if conversation.add_generation_prompt {
                let message = "an answer either goes on with the last message or begins one: not both";
                return Err(ApiError::value("add_generation_prompt", message));
            }
        }
        Ok(conversation)
    }
}

impl ChatRequest {
    /// Reads a body. `defaults` is how tokens are chosen where the request does not say it, `drawn` the seed.
    pub fn read(body: &[u8], defaults: &Sampling, drawn: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::read(body)?;
        let model = fields.required("model")?;
        fields.refuse(&REFUSED)?;
        fields.refuse(&ELSEWHERE)?;
        modalities(&mut fields)?;
        let tools = Tools::take(&mut fields)?;
        let conversation = Conversed::with(&tools, &mut fields)?;
        let schema = response_format(&mut fields)?;
        let (calls_tools, form) = tools.form(&mut fields, schema)?;
        if form != Form::Free && conversation.continue_final_message {
            let message = "an answer that goes on with a message cannot have a form of its own";
            return Err(ApiError::value("continue_final_message", message));
        }
        let mut wanted = Wanted::take(&mut fields, defaults, drawn)?;
        wanted.sampling.top_logprobs = logprobs(&mut fields)?;
        Ok(Self {
            model,
            conversation,
            calls_tools,
            form,
            wanted,
            cache: Extension::take(&mut fields)?,
            salt: fields.optional("cache_salt")?,
            only_breakpoints: only_breakpoints(&mut fields)?,
        })
    }
}

fn modalities(fields: &mut Fields) -> Result<(), ApiError> {
    let modalities: Vec<String> = fields.or("modalities", Vec::new())?;
    match modalities.iter().find(|modality| *modality != "text") {
        Some(other) => Err(ApiError::unsupported("modalities", format!("answers are text, not {other}"))),
        None => Ok(()),
    }
}

fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.or("logprobs", false)?;
    let top = fields.integer("top_logprobs", 0..=20)?;
    match (wanted, top) {
        (false, Some(1..)) => Err(ApiError::value("top_logprobs", "`top_logprobs` wants `logprobs` to be true")),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
    }
}

fn only_breakpoints(fields: &mut Fields) -> Result<bool, ApiError> {
    let Some(mut options) = fields.object("prompt_cache_options")? else { return Ok(false) };
    Ok(options.or("mode", String::new())? == "explicit")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Json) -> Result<ChatRequest, ApiError> {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
        if let (Json::Object(body), Json::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        ChatRequest::read(body.to_string().as_bytes(), &Sampling::default(), 7)
    }

    #[test]
    fn fields_that_nobody_knows_change_nothing() {
        let plain = read(json!({})).unwrap();
        assert_eq!(read(json!({ "frobnicate": [1], "prompt_cache_key": "x" })).unwrap(), plain);
        assert!(plain.conversation.add_generation_prompt && !plain.conversation.continue_final_message);
        assert_eq!((plain.calls_tools, plain.wanted.sampling.top_logprobs), (false, None));
    }

    #[test]
    fn what_would_change_the_answer_is_refused() {
        for (more, code, param) in [
            (json!({ "audio": {} }), "unsupported", "audio"),
            (json!({ "functions": [] }), "unsupported", "functions"),
            (json!({ "prediction": {} }), "unsupported", "prediction"),
            (json!({ "web_search_options": {} }), "unsupported", "web_search_options"),
            (json!({ "modalities": ["text", "audio"] }), "unsupported", "modalities"),
            (json!({ "guided_json": {} }), "unsupported", "guided_json"),
            (json!({ "response_format": { "type": "x" } }), "invalid_value", "response_format.type"),
            (json!({ "top_logprobs": 2 }), "invalid_value", "top_logprobs"),
            (json!({ "logprobs": true, "top_logprobs": 21 }), "invalid_value", "top_logprobs"),
            (json!({ "continue_final_message": true }), "invalid_value", "continue_final_message"),
            (json!({ "model": null }), "invalid_value", "model"),
            (json!({ "messages": null }), "invalid_value", "messages"),
        ] {
            let error = read(more.clone()).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Some(code), Some(param)), "{more}");
        }
    }

    #[test]
    fn a_template_sees_tools_that_are_not_called() {
        let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": {} } }]);
        let auto = read(json!({ "tools": tools })).unwrap();
        assert!(auto.calls_tools && auto.form == Form::Free);
        let none = read(json!({ "tools": tools, "tool_choice": "none" })).unwrap();
        assert!(!none.calls_tools && none.conversation.tools.is_some());
    }

    #[test]
    fn an_answer_with_a_form_is_whole() {
        let assistant = json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "{" }]);
        let format = json!({ "type": "json_object" });
        assert!(matches!(read(json!({ "response_format": format })).unwrap().form, Form::Json(_)));
        let body = json!({ "response_format": format, "messages": assistant, "continue_final_message": true });
        assert_eq!(read(body).unwrap_err().param.as_deref(), Some("continue_final_message"));
    }
}
