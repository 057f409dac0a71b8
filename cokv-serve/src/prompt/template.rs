//! A model's chat template and tokenizer, as requests need them.

use std::sync::Arc;

use cokv_models::chat::{Breakpoint, Conversation, ToolCall, ToolSyntax};
use cokv_models::{ModelError, Outline};
use serde_json::Value as Json;

use crate::api::answer::Call;
use crate::api::chat::Conversed;
use crate::api::completions::Prompt as Continued;
use crate::api::error::ApiError;
use crate::api::texts::Tokenize;
use crate::random::drawn_id;
use crate::text::calls::ParseCalls;

/// A place in what is said: so many bytes of a message's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Which message.
    pub message: usize,
    /// Bytes before it.
    pub byte: usize,
}

/// A conversation in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As the template writes it.
    pub text: String,
    /// All of it.
    pub tokens: Vec<u32>,
    /// Tokens before each mark, in the order of the marks.
    pub marks: Vec<usize>,
}

/// Makes prompts for a model.
pub struct Prompts {
    outline: Arc<Outline>,
    /// What the template puts behind a user's text.
    close: Vec<u32>,
    /// Whether all is encoded in one piece.
    compatible: bool,
}

impl Prompts {
    /// For a model; `compatible` is as of [`ChatTemplate::tokenize`](cokv_models::chat::ChatTemplate::tokenize).
    ///
    /// # Errors
    /// Where its chat template fails at one user's message.
    pub fn of(outline: Arc<Outline>, compatible: bool) -> Result<Self, ModelError> {
        let close = match outline.chat_template() {
            Some(template) => {
                let rendered = template.render("?")?;
                let tail = rendered.rsplit_once('?').map_or("", |(_, tail)| tail);
                outline.tokenizer().encode(tail, false)?
            }
            None => Vec::new(),
        };
        Ok(Self { outline, close, compatible })
    }

    /// What the template puts behind a user's text.
    pub fn close(&self) -> &[u32] {
        &self.close
    }

    /// A conversation. Words that spell a control token are words; the tokens before a mark do not depend on what stands behind it.
    pub fn conversation(&self, conversed: &Conversed, marks: &[Mark]) -> Result<Prompt, ApiError> {
        let Some(template) = self.outline.chat_template() else {
            let message = "this model has no chat template: it goes on with texts, at /v1/completions";
            return Err(ApiError::unsupported("messages", message));
        };
        let conversation = Conversation {
            messages: conversed.messages.iter().map(|message| Json::Object(message.seen.clone())).collect(),
            tools: conversed.tools.clone(),
            kwargs: conversed.kwargs.clone(),
            add_generation_prompt: conversed.add_generation_prompt,
            continue_final_message: conversed.continue_final_message,
        };
        let breakpoints: Vec<Breakpoint> =
            marks.iter().map(|mark| Breakpoint { message: mark.message, offset: mark.byte }).collect();
        let rendered = template.tokenize(&conversation, &breakpoints, self.outline.tokenizer(), self.compatible)?;
        Ok(Prompt { text: rendered.text, tokens: rendered.tokens, marks: rendered.breakpoints })
    }

    /// Tokens of a prompt before and behind what one message says; the message's own lie between them.
    pub fn around(&self, conversed: &Conversed, tokens: &[u32], message: usize) -> Result<(usize, usize), ApiError> {
        let content = conversed.messages[message].content().trim();
        // Whatever begins alike, or ends alike, where the message does not is the template's.
        let differs = |letter: &&str| !content.starts_with(*letter) && !content.ends_with(*letter);
        let mut other = conversed.clone();
        other.messages[message].say(["a", "b", "c"].into_iter().find(differs).unwrap_or_default());
        let other = self.conversation(&other, &[])?.tokens;
        let alike = |pair: &(&u32, &u32)| pair.0 == pair.1;
        let before = tokens.iter().zip(&other).take_while(alike).count();
        let behind = tokens[before..].iter().rev().zip(other[before..].iter().rev()).take_while(alike).count();
        Ok((before, behind))
    }

    /// What finds calls of tools, where the template has a way to write them, or where they are `wanted` all the same.
    pub fn calls(&self, wanted: bool) -> Option<ParseCalls> {
        let shown = self.outline.chat_template().and_then(|template| template.tool_syntax());
        let syntax = shown.or(wanted.then_some(ToolSyntax::Hermes))?;
        Some(Arc::new(move |answer: &str| {
            let (beside, calls) = syntax.parse(answer);
            let call = |call: ToolCall| Call { id: drawn_id("call_"), name: call.name, arguments: call.arguments };
            (beside, calls.into_iter().map(call).collect())
        }))
    }

    /// A text's tokens.
    pub fn encode(&self, asked: &Tokenize) -> Result<Vec<u32>, ApiError> {
        let tokenizer = self.outline.tokenizer();
        Ok(match (asked.parse_special, asked.add_special) {
            (true, add_special) => tokenizer.encode(&asked.content, add_special)?,
            (false, false) => tokenizer.encode_text(&asked.content)?,
            // Nothing at all is opened, too.
            (false, true) => [tokenizer.encode_conversation("")?, tokenizer.encode_text(&asked.content)?].concat(),
        })
    }

    /// A text to go on with.
    pub fn text(&self, prompt: &Continued) -> Result<Vec<u32>, ApiError> {
        let tokens = match prompt {
            Continued::Text(text) => self.outline.tokenizer().encode_conversation(text)?,
            Continued::Tokens(tokens) => tokens.clone(),
        };
        let vocabulary = self.outline.config().vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ApiError::value("prompt", format!("there is no token {token}: the model has {vocabulary}")));
        }
        match tokens.is_empty() {
            true => Err(ApiError::value("prompt", "`prompt` is empty")),
            false => Ok(tokens),
        }
    }
}
