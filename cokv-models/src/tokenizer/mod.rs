//! Text to token ids and back.

mod from_gguf;

use std::path::Path;

use crate::error::ModelError;
use crate::weights::Gguf;

/// A model's tokenizer, with the rules that lie around it: the token before a text, and the special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Put before a text where the tokenizer's own post-processor does not do it.
    bos: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, which carries its own rules.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        if !path.is_file() {
            return Err(ModelError::malformed(path, "the tokenizer is missing; a model folder needs a tokenizer.json"));
        }
        let inner = tokenizers::Tokenizer::from_file(path).map_err(|error| ModelError::malformed(path, error))?;
        Ok(Self { inner, bos: None })
    }

    /// Builds the tokenizer that a GGUF file describes.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        from_gguf::build(gguf)
    }

    /// Token ids of a text. Special tokens written in the text (`<|im_start|>`) are recognised; with `add_special`, those
    /// that open every text are added, unless the text opens with one already.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding =
            self.inner.encode(text, add_special).map_err(|error| ModelError::Tokenizer(error.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        match self.bos {
            Some(bos) if add_special && ids.first() != Some(&bos) => ids.insert(0, bos),
            _ => {}
        }
        // A chat template may write the opening token itself; the post-processor then adds a second one.
        if add_special && ids.len() > 1 && ids[0] == ids[1] && self.is_special(ids[0]) {
            ids.remove(0);
        }
        Ok(ids)
    }

    /// Text of token ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        self.inner.decode(ids, skip_special).map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    /// Id of a token by its exact text.
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Whether a token is a control token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// Decodes a growing sequence piece by piece.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, ids: Vec::new(), printed: 0 }
    }
}

/// Text of a sequence that is still growing: characters are held back until all their bytes are there.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    printed: usize,
}

impl TextStream<'_> {
    /// Adds a token and returns the text that is new.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, true)?;
        // An incomplete character decodes to the replacement character.
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        let new = text.get(self.printed..).unwrap_or_default().to_owned();
        self.printed = text.len();
        Ok(new)
    }
}
