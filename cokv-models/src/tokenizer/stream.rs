//! Text of a sequence that is still growing.

use super::Tokenizer;
use crate::error::ModelError;

/// Text of a sequence that is still growing: characters are held back until all their bytes are there, or until
/// [`finish`](Self::finish) says that no more will come.
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

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, ids: Vec::new(), context: 0, told: 0 }
    }

    /// Adds a token and returns the text that is new.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        let text = self.untold()?;
        // An incomplete character decodes to the replacement character.
        if text.ends_with('\u{fffd}') {
            return Ok(String::new());
        }
        self.context = self.told;
        self.told = self.ids.len();
        Ok(text)
    }

    /// The text that was held back, once no token follows: bytes that are no character are replacement characters.
    pub fn finish(self) -> Result<String, ModelError> {
        self.untold()
    }

    fn untold(&self) -> Result<String, ModelError> {
        let before = self.tokenizer.decode(&self.ids[self.context..self.told], self.skip_special)?;
        let text = self.tokenizer.decode(&self.ids[self.context..], self.skip_special)?;
        Ok(text.get(before.len()..).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::decoders::byte_fallback::ByteFallback;
    use tokenizers::decoders::fuse::Fuse;
    use tokenizers::decoders::sequence::Sequence;
    use tokenizers::models::wordlevel::WordLevel;

    use super::*;

    /// Ids 0 to 255 are bytes, then words of more than one.
    fn tokenizer() -> Tokenizer {
        let bytes = (0..=255u8).map(|byte| format!("<0x{byte:02X}>"));
        let words = bytes.chain(["yes".into(), "\u{fffd}".into()]).zip(0..).collect();
        let model = WordLevel::builder().vocab(words).unk_token("yes".into()).build().unwrap();
        let mut inner = tokenizers::Tokenizer::new(model);
        let steps = vec![ByteFallback::default().into(), Fuse::default().into()];
        inner.with_decoder(Some(Sequence::new(steps)));
        Tokenizer { inner, opening: vec![], closing: vec![] }
    }

    const YES: u32 = 256;
    const REPLACEMENT: u32 = 257;

    #[test]
    fn characters_are_whole_or_held_back() {
        let tokenizer = tokenizer();
        let mut stream = tokenizer.stream();
        let mut texts = [YES, 0xc3, 0xa9, YES].map(|id| stream.push(id).unwrap()).to_vec();
        texts.push(stream.finish().unwrap());
        assert_eq!(texts, ["yes", "", "é", "yes", ""]);
    }

    #[test]
    fn the_end_of_an_answer_is_told_whatever_its_bytes_are() {
        let tokenizer = tokenizer();
        for end in [vec![0xe2, 0x82], vec![0xff], vec![REPLACEMENT], vec![0xff, REPLACEMENT]] {
            let ids = [&[YES], &end[..]].concat();
            let whole = tokenizer.decode(&ids, true).unwrap();
            assert!(whole.ends_with('\u{fffd}'), "{whole}");
            let mut stream = tokenizer.stream();
            let text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            assert_eq!(text + &stream.finish().unwrap(), whole);
            assert_eq!(tokenizer.pieces(&ids).unwrap().concat(), whole);
            assert_eq!(tokenizer.pieces(&ids).unwrap().len(), ids.len());
        }
        assert!(tokenizer.pieces(&[]).unwrap().is_empty());
    }
}
