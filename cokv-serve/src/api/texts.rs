//! `/tokenize` and `/detokenize`.

use super::error::ApiError;
use super::fields::Fields;

/// A text to be cut into tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenize {
    /// The text.
    pub content: String,
    /// Whether the tokens that open and close every text are wanted.
    pub add_special: bool,
    /// Whether control tokens that the text writes are control tokens.
    pub parse_special: bool,
    /// Whether the text of each token is wanted, too.
    pub with_pieces: bool,
}

impl Tokenize {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::read(body)?;
        Ok(Self {
            content: fields.required("content")?,
            add_special: fields.or("add_special", false)?,
            parse_special: fields.or("parse_special", false)?,
            with_pieces: fields.or("with_pieces", false)?,
        })
    }
}

/// The tokens of `/detokenize`.
pub fn detokenize(body: &[u8]) -> Result<Vec<u32>, ApiError> {
    Fields::read(body)?.required("tokens")
}
