//! Rouge-L as the Python package `rouge` 1.0.1 computes it, for summaries.

use std::collections::HashSet;

use super::{python_text, segmentation};

/// Python's default `sys.getrecursionlimit()`, in frames.
///
/// `rouge` walks back through its table by recursion, one frame per step, so two long sentences
/// exceed this limit; upstream then catches the error and the score is 0. Chinese summaries reach
/// it first, since only an ASCII full stop ends a sentence.
///
/// The boundary was measured with CPython 3.11. Other versions may put it one step elsewhere, and
/// so may 3.11 itself where the walk ends with more than 256 words of one sentence left.
pub const PYTHON_RECURSION_LIMIT: usize = 1000;

/// Frames on Python's stack below the first recursive one when `eval.py` runs: from the module
/// over `scorer`, `rouge_score` and five functions of the package to `_recon_lcs`.
const CALLING_FRAMES: usize = 9;

/// `rouge_zh_score` calls `rouge_score`: one more frame.
const CALLING_FRAMES_ZH: usize = CALLING_FRAMES + 1;

/// Keeps the F-measure finite where nothing matches; it also keeps it just below 1.
const SMOOTHING: f64 = 1e-8;

type Sentence<'t> = Vec<&'t str>;

/// Rouge-L F-measure of space-separated words, case-sensitive and without stemming
/// (`rouge_score`).
///
/// It is 0 where either text has no sentence and where Python would run into its recursion limit
/// (see [`PYTHON_RECURSION_LIMIT`]). Identical texts score a little below 1.
pub(super) fn rouge_l(prediction: &str, answer: &str) -> f64 {
    summary_level(prediction, answer, PYTHON_RECURSION_LIMIT - CALLING_FRAMES).unwrap_or(0.0)
}

/// [`rouge_l`] of the words of segmented Chinese text (`rouge_zh_score`).
pub(super) fn rouge_l_zh(prediction: &str, answer: &str) -> f64 {
    let prediction = segmentation::words(prediction).join(" ");
    let answer = segmentation::words(answer).join(" ");
    summary_level(&prediction, &answer, PYTHON_RECURSION_LIMIT - CALLING_FRAMES_ZH).unwrap_or(0.0)
}

/// Counts distinct words only: those of the prediction, those of the answer, and those in any
/// longest common subsequence of a sentence of one and a sentence of the other. `None` stands for
/// an exception in Python.
fn summary_level(prediction: &str, answer: &str, frame_limit: usize) -> Option<f64> {
    let predicted = sentences(prediction);
    let reference = sentences(answer);
    if predicted.is_empty() || reference.is_empty() {
        return None;
    }
    let mut common = HashSet::new();
    for reference_sentence in &reference {
        for predicted_sentence in &predicted {
            common.extend(common_subsequence(reference_sentence, predicted_sentence, frame_limit)?);
        }
    }
    let recall = common.len() as f64 / distinct_words(&reference);
    let precision = common.len() as f64 / distinct_words(&predicted);
    Some(2.0 * (precision * recall / (precision + recall + SMOOTHING)))
}

/// Splits at every ASCII full stop, also within a number. A sentence of whitespace alone has one
/// empty word.
fn sentences(text: &str) -> Vec<Sentence<'_>> {
    text.split('.')
        .filter(|sentence| !sentence.is_empty())
        .map(|sentence| {
            let words: Sentence = python_text::split_whitespace(sentence).collect();
            if words.is_empty() { vec![""] } else { words }
        })
        .collect()
}

fn distinct_words(sentences: &[Sentence]) -> f64 {
    sentences.iter().flatten().collect::<HashSet<_>>().len() as f64
}

/// The words of a longest common subsequence, last first; `None` where finding them takes more
/// than `frame_limit` recursive frames in Python.
///
/// Which of several subsequences it is matters, because their words are counted as a set: ties go
/// to a step back in `predicted`.
fn common_subsequence<'t>(reference: &[&'t str], predicted: &[&'t str], frame_limit: usize) -> Option<Vec<&'t str>> {
    // Every walk takes at least as many steps as the shorter sentence has words. Leaving here
    // bounds the table and lets its entries fit 16 bits.
    if reference.len().min(predicted.len()) >= frame_limit {
        return None;
    }
    let table = subsequence_lengths(reference, predicted);
    let (mut row, mut column) = (reference.len(), predicted.len());
    let mut common = Vec::new();
    let mut frames = 1;
    while row > 0 && column > 0 {
        if reference[row - 1] == predicted[column - 1] {
            common.push(reference[row - 1]);
            row -= 1;
            column -= 1;
        } else if table[row - 1][column] > table[row][column - 1] {
            row -= 1;
        } else {
            column -= 1;
        }
        frames += 1;
    }
    (frames <= frame_limit).then_some(common)
}

/// Entry `[row][column]` is the length of a longest common subsequence of the first `row` and the
/// first `column` words.
fn subsequence_lengths(reference: &[&str], predicted: &[&str]) -> Vec<Vec<u16>> {
    let mut table = vec![vec![0; predicted.len() + 1]; reference.len() + 1];
    for (row, reference_word) in reference.iter().enumerate() {
        for (column, predicted_word) in predicted.iter().enumerate() {
            table[row + 1][column + 1] = if reference_word == predicted_word {
                table[row][column] + 1
            } else {
                table[row][column + 1].max(table[row + 1][column])
            };
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(score: f64, expected: f64) -> bool {
        (score - expected).abs() < 1e-9
    }

    #[test]
    fn golden_cases() {
        assert!(close(rouge_l("police killed", "police killed"), 0.999999995));
        assert!(close(rouge_l("the cat the cat sat", "the cat sat"), 0.999999995));
        assert!(close(rouge_l("a b c d", "d c b a"), 0.249999995));
        let score = rouge_l("police killed the gunman. the end.", "the gunman police killed.");
        assert!((score - 2.0 / 3.0).abs() < 1e-8);
        assert_eq!(rouge_l("Hello World.", "hello world."), 0.0);
        assert!(close(rouge_l("a.b", "a b"), 0.999999995));
        assert!(close(rouge_l("w1 w2 w3 w4 w5", "w1 w3 w5. w2 w4"), 0.999999995));
    }

    #[test]
    fn texts_without_sentences_score_zero() {
        assert_eq!(rouge_l("...", "a"), 0.0);
        assert_eq!(rouge_l("", "a"), 0.0);
        assert_eq!(rouge_l_zh("", ""), 0.0);
        assert!(close(rouge_l(" ", "\n"), 0.999999995), "blank sentences match");
    }

    #[test]
    fn ties_step_back_in_the_prediction() {
        let found = common_subsequence(&["x", "y"], &["y", "x"], 10);
        assert_eq!(found, Some(vec!["y"]));
    }

    #[test]
    fn chinese_sentences_end_at_ascii_full_stops_only() {
        assert!(close(rouge_l_zh("我来到北京", "我来到北京"), 0.999999995));
        assert!(close(rouge_l_zh("北京。我", "我。北京"), rouge_l("北京 。 我", "我 。 北京")));
    }

    #[test]
    fn long_sentences_hit_the_recursion_limit() {
        let numbers =
            |range: std::ops::Range<usize>| range.map(|number| number.to_string()).collect::<Vec<_>>().join(" ");
        let (fits, exceeds) = (numbers(0..990), numbers(0..991));
        assert!(rouge_l(&fits, &fits) > 0.99);
        assert_eq!(rouge_l(&exceeds, &exceeds), 0.0);
        // Chinese punctuation is segmented into single characters.
        let (fits, exceeds) = ("。".repeat(989), "。".repeat(990));
        assert!(rouge_l_zh(&fits, &fits) > 0.99);
        assert_eq!(rouge_l_zh(&exceeds, &exceeds), 0.0);
        // Steps count, not words: nothing in common means one step per predicted word.
        let predicted = format!("{}.x", numbers(0..990));
        assert!(rouge_l(&predicted, "x") > 0.0);
        assert_eq!(rouge_l(&format!("{}.x", numbers(0..991)), "x"), 0.0);
    }

    proptest! {
        #[test]
        fn identical_text_scores_almost_one(text in "[a-c .]{0,30}") {
            let score = rouge_l(&text, &text);
            prop_assert!(close(score, 0.999999995) || text.chars().all(|character| character == '.'));
        }
    }
}
