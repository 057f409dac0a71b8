//! F1 over words, for question answering.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::{python_text, segmentation};

/// A run of what Python's `\w` matches. Rust's own `\w` also takes combining marks, so the two
/// disagree on where a word ends.
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]+").expect("valid"));

/// F1 of normalised English words (`qa_f1_score`).
///
/// Case, ASCII punctuation and the articles a, an, the do not count, so a text made of them alone
/// scores 0 even against itself.
pub(super) fn f1(prediction: &str, answer: &str) -> f64 {
    let (prediction, answer) = (normalise(prediction), normalise(answer));
    let words = |text| python_text::split_whitespace(text).map(str::to_owned).collect::<Vec<_>>();
    f1_of_words(&words(&prediction), &words(&answer))
}

/// F1 of normalised Chinese words (`qa_f1_zh_score`).
///
/// Case and punctuation do not count, so a text of punctuation alone scores 0 even against itself.
pub(super) fn f1_zh(prediction: &str, answer: &str) -> f64 {
    f1_of_words(&words_zh(prediction), &words_zh(answer))
}

/// Case, ASCII punctuation and the articles a, an, the taken out.
pub(super) fn normalise(text: &str) -> String {
    let mut text = text.to_lowercase();
    // Punctuation goes first, so "a-b" becomes the word "ab" and "a." the article.
    text.retain(|character| !character.is_ascii_punctuation());
    WORD.replace_all(&text, |word: &Captures| match &word[0] {
        "a" | "an" | "the" => " ".to_owned(),
        other => other.to_owned(),
    })
    .into_owned()
}

fn words_zh(text: &str) -> Vec<String> {
    let mut words: Vec<_> = segmentation::words(text).into_iter().map(str::to_lowercase).collect();
    for word in &mut words {
        word.retain(|character| !is_dropped_zh(character));
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Whitespace, ASCII punctuation, and the Chinese punctuation that upstream lists. The gaps are
/// upstream's: it keeps 《, 〈, 〉 and the full-width full stop.
fn is_dropped_zh(character: char) -> bool {
    python_text::is_whitespace(character)
        || character.is_ascii_punctuation()
        || matches!(character,
            '–' | '—' | '‘' | '’' | '\u{201b}'..='\u{201f}' | '…' | '‧'
            | '、'..='〃' | '》'..='】' | '〔'..='〟' | '〰' | '\u{303e}' | '\u{303f}' | '﹏'
            | '！'..='－' | '／' | '：'..='＠' | '［'..='｀' | '｛'..='､')
}

fn f1_of_words(prediction: &[String], answer: &[String]) -> f64 {
    let mut unmatched: HashMap<&str, usize> = HashMap::new();
    for word in answer {
        *unmatched.entry(word).or_default() += 1;
    }
    let mut common = 0.0;
    for word in prediction {
        if let Some(count) = unmatched.get_mut(word.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1.0;
        }
    }
    if common == 0.0 {
        return 0.0;
    }
    let precision = common / prediction.len() as f64;
    let recall = common / answer.len() as f64;
    2.0 * precision * recall / (precision + recall)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(score: f64, expected: f64) -> bool {
        (score - expected).abs() < 1e-9
    }

    #[test]
    fn english_golden_cases() {
        assert_eq!(f1("The Eiffel Tower.", "Eiffel tower"), 1.0);
        assert_eq!(f1("a-b c", "ab c"), 1.0);
        assert!(close(f1("It’s Paris", "Paris"), 2.0 / 3.0), "curly quotes stay");
        assert_eq!(f1("the", "the"), 0.0);
        assert!(close(f1("The cat and the hat", "cat hat"), 0.8));
        assert!(close(f1("New York, New York", "new york"), 2.0 / 3.0));
    }

    #[test]
    fn words_end_where_python_ends_them() {
        // A combining mark is no letter for Python, so the article before it is removed.
        assert_eq!(normalise("a\u{301} the\u{200d}x an٣"), " \u{301}  \u{200d}x an٣");
        assert_eq!(f1("x\u{1c}y", "x y"), 1.0);
        assert_eq!(normalise("ΟΔΟΣ İ"), "οδος i\u{307}");
    }

    #[test]
    fn chinese_text_is_compared_by_words() {
        assert!(close(f1_zh("北京大学在北京", "北京大学"), 0.5));
        assert_eq!(f1_zh("。！", "。！"), 0.0);
        assert_eq!(f1_zh("ABC，公司", "abc 公司！"), 1.0);
        assert_eq!(words_zh("《红楼梦》．〈一〉"), ["《", "红楼梦", "．", "〈", "一", "〉"]);
    }

    proptest! {
        #[test]
        fn text_matches_itself_and_order_is_free(text in "[b-z]{1,5}( [b-z]{1,5}){0,5}", other in "[b-f ]{0,20}") {
            prop_assert_eq!(f1(&text, &text), 1.0);
            prop_assert!(close(f1(&text, &other), f1(&other, &text)));
        }
    }
}
