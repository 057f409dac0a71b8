//! What of a prompt is a document, what asks about it, and what a chat template added.

/// Where the parts of a prompt end: `head | document | question | tail`. Head and tail are a chat template's; a question is known
/// where a task says where it begins. Of a document that is compressed before anything is asked, question and tail are still to
/// come and count 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Tokens before the user's text.
    pub head: usize,
    /// Tokens of the user's text from where its question begins.
    pub question: usize,
    /// Tokens behind the user's text.
    pub tail: usize,
}

impl Frame {
    /// A prompt of which nothing is known but its last tokens, a chat template's.
    pub fn with_tail(tail: usize) -> Self {
        Self { tail, ..Self::default() }
    }
}
