//! Conversations that go on from a document.

use cokv_models::ModelError;
use cokv_models::chat::BEHIND_DOCUMENT;
use cokv_scheduler::{Document, Refusal};
use serde_json::Value as Json;

use super::template::{Mark, Prompt, Prompts};
use crate::api::chat::Conversed;
use crate::api::documents::Content;
use crate::api::error::ApiError;
use crate::api::message::{Message, messages};

/// A document before anybody asks.
pub struct Opened {
    /// What is read of it.
    pub tokens: Vec<u32>,
    /// Tokens before its first message's content.
    pub head: usize,
    /// What later requests are rendered with.
    pub text: String,
}

/// A document as it is read: up to the last letter of what it says, whatever is asked then.
pub fn open(prompts: &Prompts, content: &Content) -> Result<Opened, ApiError> {
    let (messages, text) = match content {
        Content::Text(text) => (vec![Message::user(text.trim_end())], text.trim_end().to_owned()),
        Content::Messages { messages, sent } => (messages.clone(), sent.to_string()),
    };
    let ends = end(&messages);
    let mut asked = plain(messages);
    if matches!(content, Content::Text(_)) {
        // The user has not come to an end: a template that trims a text must not trim the document.
        asked.messages[0].append("?", BEHIND_DOCUMENT);
    }
    let Prompt { mut tokens, marks, .. } = prompts.conversation(&asked, &[ends])?;
    let (head, _) = prompts.around(&asked, &tokens, first(&asked.messages).message)?;
    tokens.truncate(marks[0]);
    match tokens.is_empty() {
        true => Err(ModelError::EmptyPrompt.into()),
        false => Ok(Opened { tokens, head, text }),
    }
}

/// A conversation that follows a document's, and where the document ends in it: every way to read the document's text, the
/// likeliest first. There is none where the document's text is not known and the request has to say it.
pub fn followed(conversed: &Conversed, document: &Document) -> Result<Vec<(Conversed, Mark)>, ApiError> {
    let mut ways = Vec::new();
    if let Some(said) = said(document) {
        let ends = end(&said);
        let messages = said.into_iter().chain(conversed.messages.iter().cloned()).collect();
        ways.push((Conversed { messages, ..conversed.clone() }, ends));
    }
    if !document.text.is_empty() {
        let mut whole = conversed.clone();
        let first = &mut whole.messages[0];
        if first.role() == "user" {
            first.prepend(document.text.trim_end(), BEHIND_DOCUMENT);
            ways.push((whole, Mark { message: 0, byte: document.text.trim_end().len() }));
        } else if ways.is_empty() {
            let message = "a document is the beginning of a user's message: the first message must be a user's";
            return Err(ApiError::value("messages[0].role", message));
        }
    }
    Ok(ways)
}

/// Where a conversation may say a document by itself.
pub fn begins_with(conversed: &Conversed, document: &Document) -> Option<Mark> {
    let text = document.text.trim_end();
    let first = conversed.messages.first()?;
    if !text.is_empty() && first.role() == "user" && first.content().starts_with(text) {
        return Some(Mark { message: 0, byte: text.len() });
    }
    let said = said(document)?;
    let alike = said.len() < conversed.messages.len()
        && said.iter().zip(&conversed.messages).all(|(document, here)| document.seen == here.seen);
    alike.then(|| end(&said))
}

/// Why a conversation does not go on from a document.
pub fn mismatch(document: &Document) -> ApiError {
    Refusal::Mismatch { name: document.name.clone(), tokens: document.tokens.len() }.into()
}

/// The messages of a document that is a conversation.
fn said(document: &Document) -> Option<Vec<Message>> {
    let json: Json = serde_json::from_str(&document.text).ok()?;
    messages(json).ok()
}

/// A conversation with nothing else.
fn plain(messages: Vec<Message>) -> Conversed {
    Conversed {
        messages,
        tools: None,
        kwargs: serde_json::Map::new(),
        add_generation_prompt: false,
        continue_final_message: false,
    }
}

/// Where the first message that says something begins.
pub fn first(messages: &[Message]) -> Mark {
    Mark { message: messages.iter().position(|message| !message.content().is_empty()).unwrap_or(0), byte: 0 }
}

/// Where the last message that says something ends.
fn end(messages: &[Message]) -> Mark {
    let message = messages.iter().rposition(|message| !message.content().is_empty()).unwrap_or(0);
    Mark { message, byte: messages.get(message).map_or(0, |message| message.content().len()) }
}
