//! Whether a prediction is the answer, for short answers.

use super::python_text;
use super::qa::normalise;

/// Whether both are the same words, as SQuAD's `exact_match_score` compares them: case, ASCII punctuation and the articles a,
/// an, the do not count. Texts in which nothing else is are compared as they are.
pub(super) fn score(prediction: &str, answer: &str) -> f64 {
    let words = |text: &str| python_text::split_whitespace(&normalise(text)).collect::<Vec<_>>().join(" ");
    let (said, wanted) = (words(prediction), words(answer));
    let equal = if said.is_empty() && wanted.is_empty() { prediction.trim() == answer.trim() } else { said == wanted };
    f64::from(u8::from(equal))
}

#[cfg(test)]
mod tests {
    use super::score;

    #[test]
    fn case_marks_and_articles_do_not_count() {
        assert_eq!(score(" The Eiffel Tower.\n", "eiffel tower"), 1.0);
        assert_eq!(score("The Eiffel Tower in Paris", "Eiffel Tower"), 0.0);
        assert_eq!(score("", "yes"), 0.0);
        assert_eq!((score("(A)", "a"), score("?", "!"), score("?", "?")), (0.0, 0.0, 1.0));
    }
}
