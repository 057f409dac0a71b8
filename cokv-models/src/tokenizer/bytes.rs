//! Bytes of single tokens, of which some are parts of characters.

use super::Tokenizer;
use crate::error::ModelError;

impl Tokenizer {
    /// The bytes that a token stands for within a text. Of most tokens they are those of its text; a part of a character has no text.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>, ModelError> {
        let text = self.text_within(id)?;
        let part = if text.contains(char::REPLACEMENT_CHARACTER) { self.inner.id_to_token(id) } else { None };
        Ok(part.and_then(|token| fallback(&token).or_else(|| letters(&token))).unwrap_or_else(|| text.into_bytes()))
    }

    /// A token's text behind another one: some tokenizers leave out the space with which a text begins.
    fn text_within(&self, id: u32) -> Result<String, ModelError> {
        let before = self.encode_plainly("a").unwrap_or_default();
        let alone = self.decode(&before, false)?;
        let both = self.decode(&[&before[..], &[id]].concat(), false)?;
        match both.strip_prefix(&alone) {
            Some(text) => Ok(text.to_owned()),
            None => self.decode(&[id], false),
        }
    }

    /// The text of a special token, which is no text to the model; none of those that are.
    pub fn special_text(&self, id: u32) -> Option<&str> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.get(&id).filter(|token| token.special).map(|token| token.content.as_str())
    }
}

/// A byte as SentencePiece writes those that no other token has: `<0xE2>`.
fn fallback(token: &str) -> Option<Vec<u8>> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().map(|byte| vec![byte])
}

/// Bytes as GPT-2 writes them, each as a letter that can be seen.
fn letters(token: &str) -> Option<Vec<u8>> {
    token.chars().map(byte_of_letter).collect()
}

fn byte_of_letter(letter: char) -> Option<u8> {
    let is_seen = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    match u32::from(letter) {
        code @ 0..=255 => Some(code as u8).filter(|&byte| is_seen(byte)),
        // Those that cannot be seen, in their order.
        code => (0..=255).filter(|&byte| !is_seen(byte)).nth(code as usize - 256),
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::DecoderWrapper;
    use tokenizers::decoders::byte_fallback::ByteFallback;
    use tokenizers::decoders::fuse::Fuse;
    use tokenizers::decoders::sequence::Sequence;
    use tokenizers::decoders::strip::Strip;
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::normalizers::Replace;

    use super::*;

    #[test]
    fn letters_of_gpt_2_are_bytes() {
        assert_eq!(letters("ĠaÃ©"), Some(vec![b' ', b'a', 0xc3, 0xa9]));
        assert_eq!(letters("Ā"), Some(vec![0]));
        assert_eq!(letters("Ń"), Some(vec![0xad]), "the last that cannot be seen");
        assert_eq!(letters("日"), None);
        let all: Vec<u8> = (0..=0x143).filter_map(char::from_u32).filter_map(byte_of_letter).collect();
        let mut sorted = all.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!((all.len(), sorted.len()), (256, 256));
    }

    #[test]
    fn a_word_keeps_the_space_that_no_text_begins_with() {
        let words =
            ["<unk>", "<0xE2>", "\u{2581}a", "\u{2581}{", "{", "a"].map(String::from).into_iter().zip(0..).collect();
        let model = WordLevel::builder().vocab(words).unk_token("<unk>".into()).build().unwrap();
        let mut inner = tokenizers::Tokenizer::new(model);
        let to_spaces = || Replace::new("\u{2581}", " ").unwrap();
        let steps: Vec<DecoderWrapper> = vec![
            to_spaces().into(),
            ByteFallback::default().into(),
            Fuse::default().into(),
            Strip::new(' ', 1, 0).into(),
        ];
        inner.with_decoder(Some(Sequence::new(steps)));
        let tokenizer = Tokenizer { inner, opening: vec![], closing: vec![] };
        assert_eq!(tokenizer.decode(&[3], false).unwrap(), "{");
        let bytes = |id| tokenizer.token_bytes(id).unwrap();
        assert_eq!((bytes(3), bytes(4), bytes(1)), (b" {".to_vec(), b"{".to_vec(), vec![0xe2]));
    }

    #[test]
    fn bytes_of_sentence_piece_are_bytes() {
        assert_eq!((fallback("<0xE2>"), fallback("<0xZZ>"), fallback("a")), (Some(vec![0xe2]), None, None));
    }
}
