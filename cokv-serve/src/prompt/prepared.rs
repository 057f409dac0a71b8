//! Prompts of conversations, with the documents that they go on from.

use cokv_core::Frame;
use cokv_scheduler::Document;

use super::document::{begins_with, first, followed, mismatch};
use super::template::{Mark, Prompt, Prompts};
use crate::api::chat::Conversed;
use crate::api::error::ApiError;

/// A prompt, and what is known of its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// All of it.
    pub tokens: Vec<u32>,
    /// The document with whose tokens it begins.
    pub document: Option<String>,
    /// Tokens before the last breakpoint that the request sets.
    pub breakpoint: Option<usize>,
    /// Where its parts lie.
    pub frame: Frame,
}

/// The prompt of a conversation. It follows the document that is named; where none is, it may begin with one of those that are
/// known.
///
/// # Errors
/// Of the template, and where the prompt does not begin with the tokens of the document that is named.
pub fn prepare(
    prompts: &Prompts,
    conversed: &Conversed,
    named: Option<&Document>,
    known: &[Document],
) -> Result<Prepared, ApiError> {
    if let Some(document) = named {
        let ways = followed(conversed, document)?;
        if ways.is_empty() {
            let prepared = rendered(prompts, conversed, None)?;
            return with(prepared, document).ok_or_else(|| mismatch(document));
        }
        for (whole, ends) in ways {
            if let Some(prepared) = with(rendered(prompts, &whole, Some(ends))?, document) {
                return Ok(prepared);
            }
        }
        return Err(mismatch(document));
    }
    let mut candidates: Vec<(Mark, &Document)> =
        known.iter().filter_map(|document| Some((begins_with(conversed, document)?, document))).collect();
    candidates.sort_by_key(|(_, document)| std::cmp::Reverse(document.tokens.len()));
    for (ends, document) in candidates {
        // One that was read with another template is another text.
        if let Some(prepared) = with(rendered(prompts, conversed, Some(ends))?, document) {
            return Ok(prepared);
        }
    }
    rendered(prompts, conversed, None)
}

/// A prompt that begins with a document.
fn with(prepared: Prepared, document: &Document) -> Option<Prepared> {
    let begins = prepared.tokens.len() > document.tokens.len() && prepared.tokens.starts_with(&document.tokens);
    begins.then(|| Prepared { document: Some(document.name.clone()), ..prepared })
}

fn rendered(prompts: &Prompts, conversed: &Conversed, ends: Option<Mark>) -> Result<Prepared, ApiError> {
    let messages = &conversed.messages;
    let set = messages.iter().enumerate();
    let set = set.flat_map(|(message, said)| said.breakpoints.iter().map(move |&byte| Mark { message, byte }));
    let mut marks: Vec<Mark> = set.collect();
    let breakpoints = marks.len();
    marks.push(first(messages));
    let last = messages.iter().rposition(|message| message.role() == "user");
    if let Some(message) = last {
        marks.extend([0, messages[message].content().len()].map(|byte| Mark { message, byte }));
    }
    marks.extend(ends);
    let Prompt { tokens, marks: places, .. } = prompts.conversation(conversed, &marks)?;
    let breakpoint = breakpoints.checked_sub(1).map(|at| places[at]);
    let frame = match last {
        Some(_) => {
            let [head, begins, ended] = [0, 1, 2].map(|at| places[breakpoints + at]);
            let document = ends.and_then(|_| places.last().copied());
            // What stands behind a document, or a breakpoint, asks about it.
            let question = [breakpoint, document].into_iter().flatten().filter(|&at| at <= ended).fold(begins, usize::max);
            Frame { head, question: ended - question, tail: tokens.len() - ended }
        }
        None => Frame { head: places[breakpoints], ..Frame::default() },
    };
    Ok(Prepared { tokens, document: None, breakpoint, frame })
}
