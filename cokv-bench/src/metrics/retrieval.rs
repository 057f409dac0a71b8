//! Accuracy of numbers, for passage retrieval and counting.

use std::sync::LazyLock;

use regex::Regex;

/// Digits of every script, as in Python.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d+").expect("valid"));
static PARAGRAPH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"Paragraph (\d+)").expect("valid"));
static PARAGRAPH_ZH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"段落(\d+)").expect("valid"));

/// Whether an answer names a paragraph as [`retrieval`] reads it; upstream stops with an error where none does.
pub(super) fn names_paragraph(answer: &str) -> bool {
    PARAGRAPH.is_match(answer)
}

/// As [`names_paragraph`], for [`retrieval_zh`].
pub(super) fn names_paragraph_zh(answer: &str) -> bool {
    PARAGRAPH_ZH.is_match(answer)
}

/// Share of the prediction's numbers that are the number after "Paragraph" in the answer
/// (`retrieval_score`).
pub(super) fn retrieval(prediction: &str, answer: &str) -> f64 {
    paragraph_share(&PARAGRAPH, prediction, answer)
}

/// As [`retrieval`], with the number after 段落 (`retrieval_zh_score`).
pub(super) fn retrieval_zh(prediction: &str, answer: &str) -> f64 {
    paragraph_share(&PARAGRAPH_ZH, prediction, answer)
}

/// Share of the prediction's numbers that equal the whole answer (`count_score`).
pub(super) fn count(prediction: &str, answer: &str) -> f64 {
    number_share(prediction, answer)
}

fn paragraph_share(pattern: &Regex, prediction: &str, answer: &str) -> f64 {
    let paragraph = pattern.captures(answer).and_then(|captures| captures.get(1));
    paragraph.map_or(0.0, |number| number_share(prediction, number.as_str()))
}

/// Numbers are compared as text, so "03" is not "3". Without any number the share is 0.
fn number_share(prediction: &str, number: &str) -> f64 {
    let numbers: Vec<&str> = NUMBER.find_iter(prediction).map(|found| found.as_str()).collect();
    if numbers.is_empty() {
        return 0.0;
    }
    let right = numbers.iter().filter(|found| **found == number).count();
    right as f64 / numbers.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_counts() {
        assert_eq!(retrieval("Paragraph 3 or 13", "Paragraph 3"), 0.5);
        assert_eq!(retrieval("03", "Paragraph 3"), 0.0);
        assert_eq!(retrieval("3, 3", "Paragraph 3 Paragraph 4"), 1.0);
        assert_eq!(retrieval_zh("段落3", "段落3"), 1.0);
        assert_eq!(count("There are 7 unique out of 30", "7"), 0.5);
    }

    #[test]
    fn other_digits_are_digits_but_not_the_same() {
        assert_eq!(count("７ 7", "7"), 0.5);
        assert_eq!(retrieval("٣", "Paragraph ٣"), 1.0);
        assert_eq!(count("x² 2", "2"), 1.0, "a superscript is no digit");
    }

    #[test]
    fn no_number_scores_nothing() {
        assert_eq!(count("none", ""), 0.0);
        assert_eq!(retrieval("3", "paragraph 3"), 0.0);
    }
}
