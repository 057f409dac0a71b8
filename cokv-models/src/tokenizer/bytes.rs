//! Bytes of single tokens, of which some are parts of characters.

use super::Tokenizer;
use crate::error::ModelError;

impl Tokenizer {
    /// The bytes that a token stands for. Of most tokens they are those of its text; a part of a character has no text.
    pub fn token_bytes(&self, id: u32) -> Result<Vec<u8>, ModelError> {
        let text = self.decode(&[id], false)?;
        let part = if text.contains(char::REPLACEMENT_CHARACTER) { self.inner.id_to_token(id) } else { None };
        Ok(part.and_then(|token| fallback(&token).or_else(|| letters(&token))).unwrap_or_else(|| text.into_bytes()))
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
    fn bytes_of_sentence_piece_are_bytes() {
        assert_eq!((fallback("<0xE2>"), fallback("<0xZZ>"), fallback("a")), (Some(vec![0xe2]), None, None));
    }
}
