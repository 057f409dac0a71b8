//! A conversation with a model, one turn after the other.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use cokv_core::{Budget, Frame, Method};
use cokv_models::cache::file::{Identity, SavedCache};
use cokv_models::chat::{BEHIND_DOCUMENT, Breakpoint, Conversation};
use cokv_models::sampling::Sampling;
use cokv_models::{ModelError, Outline, StopRule};
use cokv_scheduler::{
    Compression, Document, DocumentTold, Handle, Job, Namespace, NewDocument, Refusal, Restored, Ticket, Told,
};
use serde_json::{Value as Json, json};
use thiserror::Error;

use crate::document::Turn;

/// What the document of a conversation is called.
const DOCUMENT: &str = "document";

/// Why a turn is not taken.
#[derive(Debug, Error)]
pub enum TalkError {
    /// A model that has no way to mark up a conversation.
    #[error("this model has no chat template: `cokv generate` goes on with a text")]
    NoTemplate,
    /// Nothing was said yet.
    #[error("nothing was said yet")]
    NothingSaid,
    /// The last answer is a part of what was compressed.
    #[error("nothing was said since the conversation was compressed, the last answer with it")]
    Compressed,
    /// A saved cache without the document's text.
    #[error("the file holds no text, without which a conversation cannot go on from it: `cokv ask` answers from it")]
    NoText,
    /// What was read is not what the template writes now.
    #[error("the document would be put to the model in other words now than when it was compressed: compress it again")]
    OtherWords,
    /// The scheduler refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The template or the tokenizer fails.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// A conversation with a model.
pub struct Talk {
    outline: Arc<Outline>,
    handle: Handle,
    /// How tokens are drawn from now on.
    pub sampling: Sampling,
    max_new_tokens: usize,
    system: Option<String>,
    messages: Vec<Json>,
    document: Option<Beginning>,
}

/// The document with which a conversation begins.
struct Beginning {
    document: Document,
    /// Of the messages what it is.
    end: Breakpoint,
    /// What the first thing that is said follows: a document in a user's turn that nobody has closed yet.
    open: Option<String>,
}

/// An answer on its way, which ends when this is dropped.
pub struct Answering {
    _ticket: Ticket,
    /// What becomes of it.
    pub told: Receiver<Told>,
}

/// A document on its way, which ends when this is dropped.
pub struct Reading {
    _ticket: Ticket,
    end: Breakpoint,
    open: Option<String>,
    /// What becomes of it.
    pub told: Receiver<DocumentTold>,
}

impl Talk {
    /// Nothing is said yet.
    ///
    /// # Errors
    /// Where the model has no chat template.
    pub fn new(
        outline: Arc<Outline>,
        handle: Handle,
        sampling: Sampling,
        max_new_tokens: usize,
        system: Option<String>,
    ) -> Result<Self, TalkError> {
        if outline.chat_template().is_none() {
            return Err(TalkError::NoTemplate);
        }
        Ok(Self { outline, handle, sampling, max_new_tokens, system, messages: Vec::new(), document: None })
    }

    /// The document that it begins with.
    pub fn document(&self) -> Option<&Document> {
        self.document.as_ref().map(|beginning| &beginning.document)
    }

    /// Forgets what was said; the document stays.
    pub fn clear(&mut self) {
        let keep = self.document.as_ref().map_or(0, |beginning| match beginning.open {
            Some(_) => 0,
            None => beginning.end.message + 1 - usize::from(self.system.is_some()),
        });
        self.messages.truncate(keep);
    }

    /// Says something, and has it answered.
    ///
    /// # Errors
    /// Where the template refuses, or the scheduler has ended.
    pub fn say(&mut self, text: &str) -> Result<Answering, TalkError> {
        let open = self.document.as_ref().and_then(|beginning| beginning.open.as_deref());
        let said = match open.filter(|_| self.messages.is_empty()) {
            Some(document) => format!("{document}{BEHIND_DOCUMENT}{text}"),
            None => text.to_owned(),
        };
        self.messages.push(json!({ "role": "user", "content": said }));
        let answering = self.answer();
        if answering.is_err() {
            self.messages.pop();
        }
        answering
    }

    /// Has the last thing that was said answered again.
    ///
    /// # Errors
    /// As of [`say`](Self::say), and where nothing was said.
    pub fn again(&mut self) -> Result<Answering, TalkError> {
        let compressed = match &self.document {
            Some(Beginning { open: None, end, .. }) => end.message + 1 - usize::from(self.system.is_some()),
            _ => 0,
        };
        if self.messages.len() <= compressed {
            return Err(if compressed > 0 { TalkError::Compressed } else { TalkError::NothingSaid });
        }
        if self.messages.last().is_some_and(|last| last["role"] == "assistant") {
            self.messages.pop();
        }
        self.answer()
    }

    /// Takes an answer for said.
    pub fn heard(&mut self, answer: &str) {
        self.messages.push(json!({ "role": "assistant", "content": answer }));
    }

    /// Takes back what was said and not answered.
    pub fn take_back(&mut self) {
        self.messages.pop();
    }

    fn answer(&self) -> Result<Answering, TalkError> {
        let breakpoint = self.document.as_ref().map(|beginning| beginning.end);
        let (tokens, _) = self.tokens(&self.messages, breakpoint, true)?;
        let (send, told) = channel();
        let ticket = self.handle.run(Job {
            namespace: Namespace::default(),
            tokens,
            document: self.document().map(|document| document.name.clone()),
            compression: Compression::Off,
            exact: false,
            store: true,
            choices: 1,
            sampling: self.sampling.clone(),
            constraint: None,
            stop: StopRule {
                tokens: self.outline.stop_tokens().to_vec(),
                max_new_tokens: self.max_new_tokens,
                min_new_tokens: 0,
            },
            deadline: None,
            // Where nobody listens any more the ticket is gone, too.
            hear: Box::new(move |event| drop(send.send(event))),
        })?;
        Ok(Answering { _ticket: ticket, told })
    }

    /// Messages in tokens, and how many of them come before a place.
    fn tokens(
        &self,
        messages: &[Json],
        end: Option<Breakpoint>,
        to_be_answered: bool,
    ) -> Result<(Vec<u32>, usize), TalkError> {
        let template = self.outline.chat_template().ok_or(TalkError::NoTemplate)?;
        let system = self.system.iter().map(|system| json!({ "role": "system", "content": system }));
        let conversation = Conversation {
            messages: system.chain(messages.iter().cloned()).collect(),
            add_generation_prompt: to_be_answered,
            ..Conversation::default()
        };
        let ends: Vec<Breakpoint> = end.into_iter().collect();
        let rendered = template.tokenize(&conversation, &ends, self.outline.tokenizer(), false)?;
        Ok((rendered.tokens, rendered.breakpoints.first().copied().unwrap_or_default()))
    }

    /// Begins anew with a document. It is there once [`take`](Self::take) has its end.
    ///
    /// # Errors
    /// Where the template refuses, or the scheduler has ended.
    pub fn open(&mut self, text: &str, compress: Option<(Method, Budget)>) -> Result<Reading, TalkError> {
        let text = text.trim_end();
        self.begin_anew()?;
        let (end, tokens) = self.opened(text)?;
        self.read(tokens, text.to_owned(), end, Some(text.to_owned()), compress)
    }

    /// Compresses all that was said up to here, with which the conversation then goes on.
    ///
    /// # Errors
    /// Where nothing was answered yet, the template refuses, or the scheduler has ended.
    pub fn compress(&mut self, method: Method, budget: Budget) -> Result<Reading, TalkError> {
        let last = self.messages.iter().rposition(|message| message["role"] == "assistant");
        let last = last.ok_or(TalkError::NothingSaid)?;
        let said = self.messages[..=last].to_vec();
        let content = said[last]["content"].as_str().unwrap_or_default();
        let end = Breakpoint { message: last + usize::from(self.system.is_some()), offset: content.trim_end().len() };
        let (mut tokens, before) = self.tokens(&said, Some(end), false)?;
        tokens.truncate(before);
        self.forget()?;
        self.read(tokens, Json::from(said).to_string(), end, None, Some((method, budget)))
    }

    /// A document in a user's turn: where it ends, and its tokens.
    fn opened(&self, text: &str) -> Result<(Breakpoint, Vec<u32>), TalkError> {
        let end = Breakpoint { message: usize::from(self.system.is_some()), offset: text.len() };
        let question = json!({ "role": "user", "content": format!("{text}{BEHIND_DOCUMENT}?") });
        let (mut tokens, before) = self.tokens(&[question], Some(end), true)?;
        tokens.truncate(before);
        Ok((end, tokens))
    }

    fn read(
        &self,
        tokens: Vec<u32>,
        text: String,
        end: Breakpoint,
        open: Option<String>,
        compress: Option<(Method, Budget)>,
    ) -> Result<Reading, TalkError> {
        let head = match &open {
            Some(_) => {
                let (_, other) = self.opened(if text.trim_start().starts_with('a') { "b" } else { "a" })?;
                tokens.iter().zip(&other).take_while(|(ours, others)| ours == others).count()
            }
            None => 0,
        };
        let close = Turn::of(&self.outline)?.close()?;
        let (send, told) = channel();
        let ticket = self.handle.read(NewDocument {
            namespace: Namespace::default(),
            shared: false,
            name: Some(DOCUMENT.into()),
            tokens,
            text,
            compress,
            frame: Frame { head, question: 0, tail: 0 },
            close,
            pin: true,
            time_to_live: None,
            hear: Box::new(move |event| drop(send.send(event))),
        })?;
        Ok(Reading { _ticket: ticket, end, open, told })
    }

    /// Goes on with a document that was read.
    pub fn take(&mut self, reading: Reading, document: Document) {
        let Reading { end, open, .. } = reading;
        self.document = Some(Beginning { document, end, open });
    }

    /// Begins anew with a saved cache.
    ///
    /// # Errors
    /// Where it is another model's, or there is no memory for it.
    pub fn restore(&mut self, saved: SavedCache, identity: Identity) -> Result<(), TalkError> {
        let text = saved.text.clone().ok_or(TalkError::NoText)?;
        self.begin_anew()?;
        let (end, tokens) = self.opened(&text)?;
        if tokens != saved.tokens {
            return Err(TalkError::OtherWords);
        }
        let of =
            Restored { namespace: Namespace::default(), shared: false, name: DOCUMENT.into(), pin: true, identity };
        let (send, restored) = channel();
        self.handle.restore(saved, of, Box::new(move |document| drop(send.send(document))))?;
        let document = restored.recv().map_err(|_| Refusal::Draining)??;
        self.document = Some(Beginning { document, end, open: Some(text) });
        Ok(())
    }

    fn begin_anew(&mut self) -> Result<(), TalkError> {
        self.messages.clear();
        self.document = None;
        self.forget()
    }

    /// Lets the document's memory go.
    fn forget(&self) -> Result<(), TalkError> {
        let (send, forgotten) = channel();
        self.handle.forget(Namespace::default(), DOCUMENT.into(), Box::new(move |gone| drop(send.send(gone))))?;
        let _ = forgotten.recv();
        Ok(())
    }
}
