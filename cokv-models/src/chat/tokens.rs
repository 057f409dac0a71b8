//! Tokens of a conversation, in which nobody's words are control tokens.
//!
//! Templates open and close messages with tokens whose texts anybody can write. Where somebody has, his words are encoded by
//! themselves, as text; all else is encoded as transformers does it, in one piece, so that ordinary conversations have its tokens.

use std::collections::BTreeSet;
use std::ops::Range;

use super::marks::{Found, Marks, Said, any_key};
use super::{ChatTemplate, Conversation};
use crate::error::ModelError;
use crate::tokenizer::Tokenizer;

/// A place in what is said, whose tokens are not to depend on what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breakpoint {
    /// Which message.
    pub message: usize,
    /// Bytes of its content, which is a text, before the place.
    pub offset: usize,
}

/// A conversation as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// What the template wrote.
    pub text: String,
    /// Its tokens, opened as every text is.
    pub tokens: Vec<u32>,
    /// Tokens before each of the breakpoints, in their order.
    pub breakpoints: Vec<usize>,
}

impl ChatTemplate {
    /// Renders a conversation and encodes it. The text is cut at the breakpoints, and around words that hold the text of a special
    /// token; each piece is encoded by itself, and in those words no such token is recognised. White space at the ends of a
    /// content belongs to no piece where the template leaves it out.
    ///
    /// With `compatible` there is one piece, as in transformers, and whoever writes control tokens sends them. A breakpoint is then
    /// after the tokens that the text before it has by itself, too.
    ///
    /// # Errors
    /// Where the template refuses; where it changes what is said so that a breakpoint, or words that hold the text of a special token,
    /// cannot be found again; and where such a text is a key of a table.
    pub fn tokenize(
        &self,
        conversation: &Conversation,
        breakpoints: &[Breakpoint],
        tokenizer: &Tokenizer,
        compatible: bool,
    ) -> Result<Rendered, ModelError> {
        let text = self.render_conversation(conversation)?;
        let holds_special = |said: &str| !compatible && tokenizer.special_texts().any(|special| said.contains(special));
        let conversation = conversation.for_templates();
        refuse_keys(&conversation, &holds_special)?;
        let has_breakpoint = |said| breakpoints.iter().any(|breakpoint| said == Said::Content(breakpoint.message));
        // Templates ask whether there is something to say.
        let is_wanted = |said, text: &str| !text.trim().is_empty() && (has_breakpoint(said) || holds_special(text));
        let marks = Marks::of(&conversation, is_wanted);
        let found = if marks.is_empty() { Vec::new() } else { self.find(&marks, &text, tokenizer)? };
        let at: Vec<usize> = breakpoints.iter().map(|at| place(at, &found, &text)).collect::<Result<_, _>>()?;
        if compatible {
            return in_one_piece(text, &at, tokenizer);
        }
        let plain = found.into_iter().map(|found| found.range).filter(|range| holds_special(&text[range.clone()]));
        let plain: Vec<Range<usize>> = plain.collect();
        in_pieces(text, &plain, &at, tokenizer)
    }

    fn find(&self, marks: &Marks, text: &str, tokenizer: &Tokenizer) -> Result<Vec<Found>, ModelError> {
        // A template may refuse what it does not know.
        let marked = self.render_conversation(marks.conversation()).unwrap_or_default();
        let controls =
            |text: &str| tokenizer.special_texts().map(|special| text.matches(special).count()).sum::<usize>();
        // What was found by searching may have been written a second time, in part: then the rest holds more control tokens than
        // the template's.
        let is_all = |found: &Vec<Found>| controls(&outside(text, found)) == controls(&marked);
        marks.found(&marked, text).or_else(|| marks.searched(text).filter(is_all)).ok_or_else(|| {
            ModelError::ChatTemplate(
                "the model's template changes what is said, so that it cannot be told apart from the template's own words: leave out \
                 breakpoints and texts of special tokens"
                    .into(),
            )
        })
    }
}

fn in_one_piece(text: String, at: &[usize], tokenizer: &Tokenizer) -> Result<Rendered, ModelError> {
    let tokens = tokenizer.encode_conversation(&text)?;
    let before = |&at: &usize| {
        let before = tokenizer.encode_conversation(&text[..at])?;
        Ok(before.iter().zip(&tokens).take_while(|(ours, whole)| ours == whole).count())
    };
    let breakpoints = at.iter().map(before).collect::<Result<_, ModelError>>()?;
    Ok(Rendered { text, tokens, breakpoints })
}

/// Cuts at places, and around ranges in which nothing is a special token.
fn in_pieces(
    text: String,
    plain: &[Range<usize>],
    at: &[usize],
    tokenizer: &Tokenizer,
) -> Result<Rendered, ModelError> {
    let ends = plain.iter().flat_map(|range| [range.start, range.end]);
    let cuts: BTreeSet<usize> = ends.chain(at.iter().copied()).chain([text.len()]).collect();
    let (mut tokens, mut start, mut breakpoints) = (Vec::new(), 0, vec![0; at.len()]);
    for end in cuts {
        let piece = &text[start..end];
        let is_plain = plain.iter().any(|range| range.start <= start && end <= range.end);
        tokens.extend(if is_plain { tokenizer.encode_text(piece)? } else { tokenizer.encode(piece, false)? });
        breakpoints.iter_mut().zip(at).filter(|(_, at)| **at == end).for_each(|(before, _)| *before = tokens.len());
        start = end;
    }
    let length = tokens.len();
    let tokens = tokenizer.open(tokens);
    breakpoints.iter_mut().for_each(|before| *before += tokens.len() - length);
    Ok(Rendered { text, tokens, breakpoints })
}

/// A rendering without what was found in it.
fn outside(text: &str, found: &[Found]) -> String {
    let ends = [0].into_iter().chain(found.iter().map(|found| found.range.end));
    let starts = found.iter().map(|found| found.range.start).chain([text.len()]);
    // A line between pieces, so that no two of them make a token together.
    ends.zip(starts).map(|(end, start)| &text[end..start]).collect::<Vec<_>>().join("\n")
}

fn refuse_keys(conversation: &Conversation, holds_special: &dyn Fn(&str) -> bool) -> Result<(), ModelError> {
    let members = conversation.messages.iter().chain(&conversation.tools).chain(conversation.kwargs.values());
    match members.into_iter().any(|member| any_key(member, holds_special)) {
        true => Err(ModelError::ChatTemplate("the name of a field is the text of a special token".into())),
        false => Ok(()),
    }
}

/// Where a breakpoint is in the rendering.
fn place(at: &Breakpoint, found: &[Found], text: &str) -> Result<usize, ModelError> {
    let wrong = |what: &str| {
        let message = format!("breakpoint at byte {} of message {}: {what}", at.offset, at.message);
        ModelError::ChatTemplate(message)
    };
    let found = found.iter().find(|found| found.said == Said::Content(at.message));
    let Found { range, trimmed, .. } = found.ok_or_else(|| wrong("the template does not write this text"))?;
    let place = (range.start + at.offset.saturating_sub(*trimmed)).min(range.end);
    text.is_char_boundary(place).then_some(place).ok_or_else(|| wrong("it is within a character"))
}
