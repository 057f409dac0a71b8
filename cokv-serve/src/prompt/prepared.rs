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
/// known. Where its parts lie is looked for where it is to be `framed`.
///
/// # Errors
/// Of the template, and where the prompt does not begin with the tokens of the document that is named.
pub fn prepare(
    prompts: &Prompts,
    conversed: &Conversed,
    named: Option<&Document>,
    known: &[Document],
    framed: bool,
) -> Result<Prepared, ApiError> {
    if let Some(document) = named {
        let ways = followed(conversed, document)?;
        if ways.is_empty() {
            let prepared = rendered(prompts, conversed, None, framed)?;
            return with(prepared, document).ok_or_else(|| mismatch(document));
        }
        for (whole, ends) in ways {
            if let Some(prepared) = with(rendered(prompts, &whole, Some(ends), framed)?, document) {
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
        if let Some(prepared) = with(rendered(prompts, conversed, Some(ends), framed)?, document) {
            return Ok(prepared);
        }
    }
    rendered(prompts, conversed, None, framed)
}

/// A prompt that begins with a document.
fn with(prepared: Prepared, document: &Document) -> Option<Prepared> {
    let begins = prepared.tokens.len() > document.tokens.len() && prepared.tokens.starts_with(&document.tokens);
    begins.then(|| Prepared { document: Some(document.name.clone()), ..prepared })
}

fn rendered(
    prompts: &Prompts,
    conversed: &Conversed,
    document: Option<Mark>,
    framed: bool,
) -> Result<Prepared, ApiError> {
    let messages = conversed.messages.iter().enumerate();
    let set = messages.flat_map(|(message, said)| said.breakpoints.iter().map(move |&byte| Mark { message, byte }));
    let mut marks: Vec<Mark> = document.into_iter().chain(set).collect();
    marks.sort();
    let Prompt { tokens, marks: places, .. } = prompts.conversation(conversed, &marks)?;
    let set = marks.iter().zip(&places).filter(|(mark, _)| Some(**mark) != document);
    let breakpoint = set.map(|(_, &place)| place).next_back();
    let frame = if framed { frame(prompts, conversed, &tokens, &places)? } else { Frame::default() };
    Ok(Prepared { tokens, document: None, breakpoint, frame })
}

/// Where the parts of a prompt lie: the question is what the last user says, or what of it stands behind the last place.
fn frame(prompts: &Prompts, conversed: &Conversed, tokens: &[u32], places: &[usize]) -> Result<Frame, ApiError> {
    let messages = &conversed.messages;
    let first = first(messages).message;
    let (head, _) = prompts.around(conversed, tokens, first)?;
    let Some(last) = messages.iter().rposition(|message| message.role() == "user") else {
        return Ok(Frame { head, ..Frame::default() });
    };
    let (begins, tail) = prompts.around(conversed, tokens, last)?;
    let ends = tokens.len() - tail;
    let question = places.iter().copied().filter(|&place| place <= ends).fold(begins, usize::max);
    Ok(Frame { head, question: ends - question, tail })
}
