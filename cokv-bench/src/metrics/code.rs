//! Edit similarity of code, for code completion.

use super::sequence_matcher;

/// A line with one of these is taken for prose, a fence or a comment, and skipped.
const NOT_CODE: [&str; 3] = ["`", "#", "//"];

/// Similarity of the prediction's first line of code and the answer, in `[0, 1]` in steps of 0.01
/// (`code_sim_score`).
///
/// A prediction without such a line counts as empty.
pub(super) fn similarity(prediction: &str, answer: &str) -> f64 {
    let line = prediction
        .trim_start_matches('\n')
        .split('\n')
        .find(|line| !NOT_CODE.iter().any(|mark| line.contains(mark)))
        .unwrap_or("");
    fuzzy_ratio(line, answer) / 100.0
}

/// Similarity of the whole texts, in `[0, 1]` in steps of 0.01.
pub(super) fn edit_similarity(prediction: &str, answer: &str) -> f64 {
    fuzzy_ratio(prediction.trim(), answer.trim()) / 100.0
}

/// `fuzzywuzzy.fuzz.ratio`: similarity in whole percent, halves rounded to the even neighbour as
/// Python rounds. Two empty texts are equal, hence 100.
fn fuzzy_ratio(first: &str, second: &str) -> f64 {
    if first == second {
        return 100.0;
    }
    (100.0 * sequence_matcher::ratio(first, second)).round_ties_even()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_cases() {
        assert_eq!(fuzzy_ratio("return x + 1", "return x+1"), 91.0);
        assert_eq!(fuzzy_ratio("self.foo = bar", "self.bar = foo"), 57.0);
        assert_eq!(fuzzy_ratio("abcd", "bcde"), 75.0);
        assert_eq!(fuzzy_ratio("public void run() {", "public void start() {"), 85.0);
        let first = format!("x = {}", "ab".repeat(120));
        let second = format!("y = {}", "ba".repeat(120));
        assert_eq!(fuzzy_ratio(&first, &second), 1.0, "autojunk");
    }

    #[test]
    fn halves_are_rounded_to_even() {
        // 2 of 16 characters are 12.5 percent, 6 of 16 are 37.5 percent.
        assert_eq!(fuzzy_ratio("axxxxxxx", "ayyyyyyy"), 12.0);
        assert_eq!(fuzzy_ratio("abcxxxxx", "abcyyyyy"), 38.0);
    }

    #[test]
    fn lines_that_look_like_comments_are_skipped() {
        assert_eq!(similarity("\n```python\n# note\nx = 1\ny", "x = 1"), 1.0);
        assert_eq!(similarity("url = 'http://a'", "url = 'http://a'"), 0.0);
        assert_eq!(similarity("\n\n \nx", " "), 1.0, "a blank line is code");
        assert_eq!(similarity("x = 1\r\ny", "x = 1"), 0.91, "a carriage return stays");
    }

    #[test]
    fn nothing_equals_nothing() {
        assert_eq!(similarity("# note", ""), 1.0);
        assert_eq!(similarity("", "x"), 0.0);
    }
}
