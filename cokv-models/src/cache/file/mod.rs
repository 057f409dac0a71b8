//! A compressed document in a file, to be asked about by any process that has the same model: one safetensors file, which
//! `docs/cache-files.md` describes.
//!
//! A file is not trusted: whatever its bytes are, reading it ends with a cache or with an error that says what is wrong.

mod decode;
mod description;
mod encode;
mod error;
mod header;
mod identity;
mod numbers;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cokv_core::Pairs;

pub use self::description::Description;
pub use self::encode::encode;
pub use self::error::CacheFileError;
use self::header::Header;
pub use self::identity::{Difference, Identity};
use super::ragged::RaggedCache;
use crate::error::ModelError;

/// What the header of every such file says that it is.
const FORMAT: &str = "cokv-cache";
/// What is in it, and how.
const VERSION: &str = "1";

/// A saved cache as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedCache {
    /// Where it comes from.
    pub description: Description,
    /// All tokens of the document, kept or not.
    pub tokens: Vec<u32>,
    /// The document, where it was saved too.
    pub text: Option<String>,
    /// Positions of the tokens that each KV head keeps, ascending.
    pub positions: Vec<Vec<u32>>,
    /// What each KV head keeps of them.
    pairs: Vec<Pairs>,
}

/// What is known of a saved cache before its numbers are read.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Where it comes from.
    pub description: Description,
    /// Tokens of the document.
    pub seen: usize,
    /// Tokens that all heads keep together.
    pub kept: usize,
    /// Whether the document was saved too.
    pub has_text: bool,
    /// Of the file.
    pub bytes: u64,
}

impl Summary {
    /// Reads no more of a file than its header.
    pub fn read(path: &Path) -> Result<Self, CacheFileError> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let header = Header::read(&mut file, bytes)?;
        let (seen, kept) = header.check_shapes()?;
        Ok(Self { seen, kept, has_text: header.has("text"), description: header.description, bytes })
    }
}

impl SavedCache {
    /// Reads a file and checks all that can be checked without the model.
    pub fn read(path: &Path) -> Result<Self, CacheFileError> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let header = Header::read(&mut file, bytes)?;
        let mut data = vec![0; header.data_len()];
        file.read_exact(&mut data)?;
        decode::decode(header, &data)
    }

    /// Tokens that all heads keep together.
    pub fn kept(&self) -> usize {
        self.positions.iter().map(Vec::len).sum()
    }

    /// The cache, frozen, so that copies share it, in memory of the kind that an empty cache of the model has.
    ///
    /// # Errors
    /// Where it is the cache of another model, of another way to compute, or of tokens that the model has not; where there is no
    /// memory for it.
    pub fn restore(
        self,
        here: &Identity,
        vocabulary: usize,
        empty: &RaggedCache,
    ) -> Result<RaggedCache, CacheFileError> {
        self.description.check(here)?;
        if (empty.layout(), empty.format()) != (here.layout, here.format) {
            return Err(ModelError::Backend("a cache was to be restored in another model's memory".into()).into());
        }
        if let Some(&token) = self.tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ModelError::UnknownToken { token, vocabulary }.into());
        }
        Ok(empty.restored(self.tokens.len(), self.positions, &self.pairs)?)
    }
}

#[cfg(test)]
mod tests;
