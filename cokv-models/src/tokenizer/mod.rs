//! Text to token ids and back.

mod from_gguf;

use std::path::Path;

use crate::error::ModelError;
use crate::weights::Gguf;

/// A model's tokenizer, with the rules that lie around it: the token before a text, and the special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The token that opens every text, where there is one.
    opening: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, which carries its own rules.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        if !path.is_file() {
            return Err(ModelError::malformed(path, "the tokenizer is missing; a model folder needs a tokenizer.json"));
        }
        let malformed = |error| ModelError::malformed(path, error);
        let mut inner = tokenizers::Tokenizer::from_file(path).map_err(malformed)?;
        // Files saved after training may cut or pad every text.
        inner.with_truncation(None).map_err(malformed)?.with_padding(None);
        // Its post-processor knows; what it adds to nothing is what it adds to everything.
        let empty = inner.encode("", true).map_err(malformed)?;
        Ok(Self { opening: empty.get_ids().first().copied(), inner })
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
        if let Some(opening) = self.opening.filter(|_| add_special) {
            match ids.as_slice() {
                // A chat template may write the opening token itself; a post-processor then adds a second one.
                [first, second, ..] if *first == opening && *second == opening => drop(ids.remove(0)),
                [first, ..] if *first == opening => {}
                _ => ids.insert(0, opening),
            }
        }
        Ok(ids)
    }

    /// Text of token ids.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, ModelError> {
        self.inner.decode(ids, skip_special).map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    /// Id of a control token by its exact text. Ordinary tokens may be spelt alike: `</s>` is HTML to Qwen.
    pub fn special_token(&self, text: &str) -> Option<u32> {
        let added = self.inner.get_added_tokens_decoder();
        self.inner.token_to_id(text).filter(|id| added.get(id).is_some_and(|token| token.special))
    }

    /// Decodes a growing sequence piece by piece, control tokens left out.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, skip_special: true, ids: Vec::new(), context: 0, told: 0 }
    }

    /// The text that every token adds, control tokens included: together they are the text of all. Where a character has
    /// several tokens, the last one adds it.
    pub fn pieces(&self, ids: &[u32]) -> Result<Vec<String>, ModelError> {
        let mut stream = TextStream { skip_special: false, ..self.stream() };
        ids.iter().map(|&id| stream.push(id)).collect()
    }
}

/// Text of a sequence that is still growing: characters are held back until all their bytes are there.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    ids: Vec<u32>,
    /// Tokens from here to `told` are decoded again before each new one, which may depend on what stands before it: some
    /// tokenizers strip the space of a first token.
    context: usize,
    /// Tokens whose text has been returned.
    told: usize,
}

impl TextStream<'_> {
    /// Adds a token and returns the text that is new.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        let before = self.tokenizer.decode(&self.ids[self.context..self.told], self.skip_special)?;
        let text = self.tokenizer.decode(&self.ids[self.context..], self.skip_special)?;
        // An incomplete character decodes to the replacement character.
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.context = self.told;
        self.told = self.ids.len();
        Ok(text.get(before.len()..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

    use super::*;

    fn tokenizer(opening: Option<u32>) -> Tokenizer {
        let words = ["<s>", "a", "b", "?"].iter().zip(0..).map(|(word, id)| ((*word).to_owned(), id));
        let model = WordLevel::builder().vocab(words.collect()).unk_token("?".into()).build().unwrap();
        let mut inner = tokenizers::Tokenizer::new(model);
        inner.with_pre_tokenizer(Some(WhitespaceSplit));
        Tokenizer { inner, opening }
    }

    #[test]
    fn texts_open_with_one_opening_token() {
        let with = tokenizer(Some(0));
        assert_eq!(with.encode("a b", true).unwrap(), [0, 1, 2]);
        assert_eq!(with.encode("<s> a", true).unwrap(), [0, 1]);
        assert_eq!(with.encode("<s> <s> a", true).unwrap(), [0, 1]);
        assert_eq!(with.encode("a", false).unwrap(), [1]);
        assert_eq!(with.encode("", true).unwrap(), [0]);
        assert_eq!(tokenizer(None).encode("a a", true).unwrap(), [1, 1]);
    }
}
