//! What a client is told where it gets no answer, as OpenAI's clients read it.

use std::time::Duration;

use cokv_models::ModelError;
use cokv_models::sampling::SamplingError;
use cokv_scheduler::Refusal;
use serde_json::{Value as Json, json};

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    /// Of HTTP.
    pub status: u16,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`, by which programs tell errors apart.
    pub code: Option<&'static str>,
    /// For people.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// Numbers that programs may want beside the message.
    pub extra: Vec<(&'static str, u64)>,
    /// Seconds after which it may be otherwise, 1 to 120.
    pub retry_after: Option<u32>,
}

/// What clients wait at most before they ask again.
const LONGEST_WAIT: u64 = 120;
/// Where nobody knows how long it takes.
const A_MOMENT: Duration = Duration::from_secs(5);

impl ApiError {
    fn new(status: u16, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, kind, code, message, param: None, extra: Vec::new(), retry_after: None }
    }

    /// The request is wrong as it is: 400.
    pub fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", Some(code), message)
    }

    /// A field has a value that it cannot have.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid("invalid_value", message).of(param)
    }

    /// A field asks for something that is not done here, and that cannot be left out without another answer.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid("unsupported", message).of(param)
    }

    /// A body that is no JSON, or no object.
    pub fn json(message: impl Into<String>) -> Self {
        Self::invalid("invalid_json", message)
    }

    /// More tokens than the model can attend to.
    pub fn too_long(prompt_tokens: usize, max_tokens: usize, context: usize) -> Self {
        Refusal::TooLong { prompt_tokens, max_tokens, context }.into()
    }

    /// No key, or none that is known: 401.
    pub fn key() -> Self {
        let message = "this server wants an API key that it knows: Authorization: Bearer …";
        Self::new(401, "invalid_request_error", Some("invalid_api_key"), message)
    }

    /// A name of this server that nobody gave it: 403.
    pub fn host() -> Self {
        let message = "this server does not answer to that name: whoever runs it can list it as a host";
        Self::new(403, "invalid_request_error", Some("forbidden_host"), message)
    }

    /// No such address: 404.
    pub fn address(path: &str) -> Self {
        Self::new(404, "invalid_request_error", None, format!("there is nothing at {path}"))
    }

    /// Another model: 404.
    pub fn model(wanted: &str, served: &str) -> Self {
        let message = format!("the model `{wanted}` is not served here: this is `{served}`");
        Self::new(404, "invalid_request_error", Some("model_not_found"), message).of("model")
    }

    /// No such document, or none of whoever asks: 404.
    pub fn document(name: &str) -> Self {
        Refusal::NoDocument(name.into()).into()
    }

    /// A document that somebody else lets this one use: 403.
    pub fn not_ours(name: &str) -> Self {
        let message =
            format!("document `{name}` is not yours to forget: another key shares it, or it was given at the start");
        Self::new(403, "invalid_request_error", Some("forbidden"), message)
    }

    /// An address that wants another method: 405.
    pub fn method() -> Self {
        Self::new(405, "invalid_request_error", None, "this address wants another method")
    }

    /// A request that does not come to its end: 408.
    pub fn slow(seconds: u64) -> Self {
        let message = format!("the request's body was not there after {seconds} s");
        Self::new(408, "invalid_request_error", Some("request_timeout"), message)
    }

    /// A body that is too large: 413.
    pub fn body(limit: usize) -> Self {
        let message = format!("a request may have {limit} bytes");
        Self::new(413, "invalid_request_error", Some("body_too_large"), message)
    }

    /// A body that does not say that it is JSON: 415.
    pub fn content_type() -> Self {
        Self::new(415, "invalid_request_error", None, "the body must be JSON: Content-Type: application/json")
    }

    /// A key that has its share already: 429.
    pub fn of_key(requests: usize, retry_after: Duration) -> Self {
        let message = format!("{requests} requests with this key are being answered already");
        Self::new(429, "rate_limit_error", Some("too_many_requests_of_key"), message).after(retry_after)
    }

    /// Schemas of others are being read: 429.
    #[cfg(feature = "structured")]
    pub fn schemas() -> Self {
        let message = "the schemas of other requests are being read, and take long";
        Self::new(429, "rate_limit_error", Some("too_many_schemas"), message).after(A_MOMENT)
    }

    /// Something that must not happen: 500.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "server_error", Some("internal"), message)
    }

    /// Names the field that is wrong.
    pub fn of(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    fn with(self, extra: &[(&'static str, u64)]) -> Self {
        Self { extra: extra.to_vec(), ..self }
    }

    fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs().clamp(1, LONGEST_WAIT) as u32;
        Self { retry_after: Some(seconds), ..self }
    }

    /// Whether a client that asks again after such a status is to be told that it gets the same.
    pub fn is_final(&self) -> bool {
        (400..500).contains(&self.status) && self.status != 429
    }

    /// The body. All four keys are there, always.
    pub fn body_json(&self) -> Json {
        let mut error = json!({ "message": self.message, "type": self.kind, "param": self.param, "code": self.code });
        if let Json::Object(error) = &mut error {
            error.extend(self.extra.iter().map(|&(key, number)| (key.to_owned(), number.into())));
        }
        json!({ "error": error })
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.to_string();
        let invalid = |code, message| Self::invalid(code, message);
        let conflict = |code, message| Self::new(409, "conflict_error", Some(code), message);
        match refusal {
            Refusal::TooLong { prompt_tokens, max_tokens, context } => {
                invalid("context_length_exceeded", message).of("messages").with(&[
                    ("prompt_tokens", prompt_tokens as u64),
                    ("max_tokens", max_tokens as u64),
                    ("context", context as u64),
                ])
            }
            Refusal::NeverFits { needed, limit, .. } => {
                invalid("cache_too_large", message).with(&[("needed_bytes", needed), ("limit_bytes", limit)])
            }
            Refusal::PinLimit { needed, limit } => {
                invalid("pin_limit", message).of("pin").with(&[("needed_bytes", needed), ("limit_bytes", limit)])
            }
            Refusal::QueueFull { retry_after, .. } => {
                Self::new(429, "rate_limit_error", Some("queue_full"), message).after(retry_after)
            }
            Refusal::NoRoomNow(_) => Self::new(429, "rate_limit_error", Some("no_room_now"), message).after(A_MOMENT),
            Refusal::Sampling(error) => error.into(),
            Refusal::Method(_) => invalid("invalid_value", message).of("cokv.compress"),
            Refusal::Compressed(_) => conflict("compressed_cache", message),
            Refusal::NoDocument(_) => Self::new(404, "invalid_request_error", Some("document_not_found"), message),
            Refusal::DocumentExists(_) => conflict("document_exists", message),
            Refusal::Mismatch { .. } => conflict("document_mismatch", message),
            Refusal::Constraint(_) => invalid("invalid_schema", message),
            Refusal::Deadline(_) => Self::new(408, "invalid_request_error", Some("deadline"), message),
            Refusal::Draining => Self::new(503, "server_error", Some("draining"), message).after(A_MOMENT),
            Refusal::NotFinite(_) => Self::new(500, "server_error", Some("not_finite"), message),
            _ => Self::internal(message),
        }
    }
}

impl From<SamplingError> for ApiError {
    fn from(error: SamplingError) -> Self {
        Self::value(error.parameter, error.message)
    }
}

/// Of templates and tokenizers, which see what a client has sent.
impl From<ModelError> for ApiError {
    fn from(error: ModelError) -> Self {
        let message = error.to_string();
        match error {
            ModelError::ChatTemplate(_) => Self::invalid("template_refused", message).of("messages"),
            ModelError::EmptyPrompt => Self::value("messages", message),
            ModelError::UnknownToken { .. } => Self::value("tokens", message),
            _ => Self::internal(message),
        }
    }
}
