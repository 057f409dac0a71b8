//! Python's notion of whitespace.

/// Splits as Python's `str.split()` without arguments does: at runs of whitespace, and without
/// empty pieces.
pub(super) fn split_whitespace(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_whitespace).filter(|piece| !piece.is_empty())
}

/// Python's `str.isspace`: Unicode's white space and the four ASCII separators, which Rust's
/// `char::is_whitespace` leaves out.
pub(super) fn is_whitespace(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_ascii_separators_and_wide_spaces() {
        let pieces: Vec<_> = split_whitespace("\u{1c}a\u{1f}b\u{3000}\u{a0}c\u{200b}d ").collect();
        assert_eq!(pieces, ["a", "b", "c\u{200b}d"]);
    }
}
