//! Numbers as answers.

use std::sync::LazyLock;

use regex::Regex;

/// A number as people write it: 1,234.5, -3, 2e6.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+").expect("valid")
});

/// Whether the last number of the prediction is the answer's, however each is written; answers of models end in what they
/// found. Where the answer holds no number, nothing is right.
pub(super) fn score(prediction: &str, answer: &str) -> f64 {
    let right = last(prediction).zip(last(answer)).is_some_and(|(said, wanted)| {
        // What is the same number in decimal notation may differ in the last bit.
        (said - wanted).abs() <= 1e-9 * wanted.abs().max(said.abs())
    });
    f64::from(u8::from(right))
}

/// Whether a text is one number and nothing else.
pub fn is_number(text: &str) -> bool {
    let text = text.trim();
    NUMBER.find(text).is_some_and(|found| found.range() == (0..text.len()))
}

fn last(text: &str) -> Option<f64> {
    let found = NUMBER.find_iter(text).last()?;
    found.as_str().replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_and_not_their_texts() {
        assert_eq!(score("First 3, then 4: the sum is 1,234.50 dollars.", "1234.5"), 1.0);
        assert_eq!(score("The answer is -7.", "-7"), 1.0);
        assert_eq!(score("2e3", "2000"), 1.0);
        assert_eq!(score("12 apples and 3 pears", "12"), 0.0);
        assert_eq!(score("none", "0"), 0.0);
        assert_eq!(score("5", "five"), 0.0);
        assert_eq!(score(".5", "0.50"), 1.0);
    }

    #[test]
    fn a_number_alone_is_told_from_a_text_with_one() {
        assert!(is_number(" 1,000 ") && is_number("-2.5"));
        assert!(!is_number("in 1843") && !is_number("") && !is_number("1,00"));
    }
}
