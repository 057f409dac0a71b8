//! `/v1/completions`.

use cokv_models::sampling::Sampling;
use serde_json::Value as Json;

use super::error::ApiError;
use super::extension::Extension;
use super::fields::Fields;
use super::form::ELSEWHERE;
use super::wanted::Wanted;

/// Answers of one request, to all its prompts.
const MOST_ROWS: usize = 64;

/// A text to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// As it is.
    Text(String),
    /// In tokens.
    Tokens(Vec<u32>),
}

/// A request for what follows some texts.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionRequest {
    /// Who is to answer.
    pub model: String,
    /// At least one.
    pub prompts: Vec<Prompt>,
    /// What follows each.
    pub wanted: Wanted,
    /// What it says of caches.
    pub cache: Extension,
    /// A namespace within that of the key.
    pub salt: Option<String>,
}

impl CompletionRequest {
    /// Reads a body, as [`ChatRequest::read`](super::chat::ChatRequest::read) does.
    pub fn read(body: &[u8], defaults: &Sampling, drawn: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::read(body)?;
        let model = fields.required("model")?;
        fields.refuse(&["suffix", "response_format"])?;
        fields.refuse(&ELSEWHERE)?;
        if fields.or("echo", false)? {
            return Err(ApiError::unsupported("echo", "`echo` is not supported here"));
        }
        let prompts = prompts(fields.required("prompt")?)?;
        let mut wanted = Wanted::take(&mut fields, defaults, drawn)?;
        if fields.integer("best_of", 1..=20)?.is_some_and(|of| of != wanted.choices as u64) {
            return Err(ApiError::unsupported("best_of", "`best_of` is not supported here: ask for `n` answers"));
        }
        if prompts.len() * wanted.choices > MOST_ROWS {
            return Err(ApiError::value("prompt", format!("a request may ask for {MOST_ROWS} answers altogether")));
        }
        wanted.sampling.top_logprobs = fields.integer("logprobs", 0..=5)?.map(|count| count as usize);
        Ok(Self { model, prompts, wanted, cache: Extension::take(&mut fields)?, salt: fields.optional("cache_salt")? })
    }
}

fn prompts(json: Json) -> Result<Vec<Prompt>, ApiError> {
    let wrong = || {
        ApiError::value("prompt", "`prompt` must be a string, strings, token ids or lists of token ids; none is empty")
    };
    let list = match json {
        Json::String(text) => return Ok(vec![Prompt::Text(text)]),
        Json::Array(list) if !list.is_empty() => list,
        _ => return Err(wrong()),
    };
    if list.iter().all(Json::is_number) {
        return serde_json::from_value(list.into()).map(|tokens| vec![Prompt::Tokens(tokens)]).map_err(|_| wrong());
    }
    let prompt = |json: Json| match json {
        Json::String(text) => Ok(Prompt::Text(text)),
        Json::Array(tokens) if !tokens.is_empty() => {
            serde_json::from_value(tokens.into()).map(Prompt::Tokens).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    };
    list.into_iter().map(prompt).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Json) -> Result<CompletionRequest, ApiError> {
        let mut body = json!({ "model": "m", "prompt": "x" });
        if let (Json::Object(body), Json::Object(more)) = (&mut body, more) {
            body.extend(more);
        }
        CompletionRequest::read(body.to_string().as_bytes(), &Sampling::default(), 7)
    }

    #[test]
    fn prompts_are_texts_or_tokens_one_or_many() {
        let prompts = |json| read(json!({ "prompt": json })).unwrap().prompts;
        let text = |text: &str| Prompt::Text(text.into());
        assert_eq!(prompts(json!("a")), [text("a")]);
        assert_eq!(prompts(json!(["a", "b"])), [text("a"), text("b")]);
        assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(prompts(json!([[1], [2]])), [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2])]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, code, param) in [
            (json!({ "prompt": [] }), "invalid_value", "prompt"),
            (json!({ "prompt": [[]] }), "invalid_value", "prompt"),
            (json!({ "prompt": [1, -2] }), "invalid_value", "prompt"),
            (json!({ "prompt": [1, "a"] }), "invalid_value", "prompt"),
            (json!({ "prompt": vec!["a"; 9], "n": 8 }), "invalid_value", "prompt"),
            (json!({ "suffix": "x" }), "unsupported", "suffix"),
            (json!({ "echo": true }), "unsupported", "echo"),
            (json!({ "best_of": 3 }), "unsupported", "best_of"),
            (json!({ "logprobs": 6 }), "invalid_value", "logprobs"),
        ] {
            let error = read(more.clone()).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Some(code), Some(param)), "{more}");
        }
        assert_eq!(read(json!({ "logprobs": 0 })).unwrap().wanted.sampling.top_logprobs, Some(0));
    }
}
