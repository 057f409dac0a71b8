//! A model's chat template and tokenizer, as requests need them.

use std::sync::Arc;

use cokv_models::{ModelError, Outline};

use crate::api::chat::Conversed;
use crate::api::completions::Prompt as Continued;
use crate::api::error::ApiError;

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
}

impl Prompts {
    /// For a model.
    ///
    /// # Errors
    /// Where its chat template fails at one user's message.
    pub fn of(outline: Arc<Outline>) -> Result<Self, ModelError> {
        let close = match outline.chat_template() {
            Some(template) => {
                let rendered = template.render("?")?;
                let tail = rendered.rsplit_once('?').map_or("", |(_, tail)| tail);
                outline.tokenizer().encode(tail, false)?
            }
            None => Vec::new(),
        };
        Ok(Self { outline, close })
    }

    /// What the template puts behind a user's text.
    pub fn close(&self) -> &[u32] {
        &self.close
    }

    /// A conversation.
    pub fn conversation(&self, conversed: &Conversed, marks: &[Mark]) -> Result<Prompt, ApiError> {
        let Some(template) = self.outline.chat_template() else {
            let message = "this model has no chat template: it goes on with texts, at /v1/completions";
            return Err(ApiError::unsupported("messages", message));
        };
        // TEMPORARY until branch sampling has conversations.
        let content: String = conversed.messages.iter().map(|message| message.content()).collect();
        let text = template.render(&content)?;
        let start = text.find(&content).unwrap_or(0);
        let base = |mark: &Mark| -> usize {
            start + conversed.messages[..mark.message].iter().map(|m| m.content().len()).sum::<usize>() + mark.byte
        };
        let tokens = self.outline.tokenizer().encode_conversation(&text)?;
        let before = |at: usize| Ok::<_, ModelError>(self.outline.tokenizer().encode_conversation(&text[..at])?.len());
        let marks = marks.iter().map(|mark| before(base(mark))).collect::<Result<_, _>>()?;
        Ok(Prompt { text, tokens, marks })
    }

    /// What finds calls of tools, where the template has a way to write them.
    pub fn calls(&self) -> Option<crate::text::calls::ParseCalls> {
        None
    }

    /// A text's tokens.
    pub fn encode(&self, asked: &crate::api::texts::Tokenize) -> Result<Vec<u32>, ApiError> {
        Ok(self.outline.tokenizer().encode(&asked.content, asked.add_special)?)
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
