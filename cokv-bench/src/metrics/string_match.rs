//! RULER's `string_match_all` and `string_match_part`.

/// Between the values of an answer that has several.
pub const SEPARATOR: &str = ", ";

/// The share of the answer's values that occur in the prediction, in any order and in letters of either case.
///
/// RULER keeps the values as a list of references; here they are one answer, joined by [`SEPARATOR`], because a record's
/// `answers` are alternatives and the first is what a model is made to say.
pub(super) fn all(prediction: &str, answer: &str) -> f64 {
    let prediction = prediction.to_lowercase();
    let values: Vec<String> =
        answer.split(SEPARATOR).map(str::to_lowercase).filter(|value| !value.is_empty()).collect();
    let found = values.iter().filter(|value| prediction.contains(value.as_str())).count();
    found as f64 / values.len().max(1) as f64
}

/// Whether the whole answer occurs in the prediction, in letters of either case. RULER takes the best of several references,
/// as every metric here does of a record's answers.
pub(super) fn part(prediction: &str, answer: &str) -> f64 {
    f64::from(u8::from(!answer.is_empty() && prediction.to_lowercase().contains(&answer.to_lowercase())))
}

#[cfg(test)]
mod tests {
    use super::{all, part};

    #[test]
    fn the_share_of_values_that_occur_counts() {
        assert_eq!(all("They are 17, 4 and Bakot.", "BAKOT, 17, 99, 23"), 0.5);
        assert_eq!(all("17\n23", "23, 17"), 1.0);
        assert_eq!(all("Ünder", "üNDER"), 1.0);
        assert_eq!(all("none of them", "17"), 0.0);
    }

    #[test]
    fn the_whole_answer_has_to_occur() {
        assert_eq!(part("It was in paris, France.", "Paris, France"), 1.0);
        assert_eq!(part("It was in Paris.", "Paris, France"), 0.0);
        assert_eq!(part("anything", ""), 0.0);
    }

    #[test]
    fn an_answer_without_values_is_never_found() {
        assert_eq!(all("anything", ""), 0.0);
        assert_eq!(all("", "17"), 0.0);
    }
}
