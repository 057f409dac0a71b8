//! LongBench-E's scores by the length of the text (`scorer_e` of upstream's `eval.py`).

use std::collections::BTreeMap;

/// Names of the buckets, as upstream writes them: below 4,000, below 8,000, and above, in LongBench's own count of a
/// text (words of English).
pub const BUCKETS: [&str; 3] = ["0-4k", "4-8k", "8k+"];

/// Rows of one task whose texts are about as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// How many.
    pub rows: usize,
    /// Their mean in percent, rounded to two digits; NaN where there is no row.
    pub score: f64,
}

/// The bucket of a text of this length.
pub fn bucket(length: u64) -> usize {
    match length {
        0..4000 => 0,
        4000..8000 => 1,
        _ => 2,
    }
}

/// Scores of each task by [bucket](BUCKETS), from rows of a task, the text's length and a score in `[0, 1]`.
pub fn by_length<'a>(rows: impl IntoIterator<Item = (&'a str, u64, f64)>) -> BTreeMap<&'a str, [Bucket; 3]> {
    let mut scores: BTreeMap<&str, [Vec<f64>; 3]> = BTreeMap::new();
    for (task, length, score) in rows {
        scores.entry(task).or_default()[bucket(length)].push(score);
    }
    let mean = |scores: Vec<f64>| Bucket { rows: scores.len(), score: mean_percent(&scores) };
    scores.into_iter().map(|(task, buckets)| (task, buckets.map(mean))).collect()
}

/// The mean of scores in `[0, 1]` as upstream prints it: in percent, rounded to two digits; NaN where there is none.
pub fn mean_percent(scores: &[f64]) -> f64 {
    two_decimals(100.0 * scores.iter().sum::<f64>() / scores.len() as f64)
}

/// Python's `round(x, 2)`: the decimal number nearest to the exact value. Scaling by 100 would round a first time.
fn two_decimals(x: f64) -> f64 {
    format!("{x:.2}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_python_s() {
        for (x, rounded) in [(2.675, 2.67), (50.005, 50.01), (0.125, 0.12), (66.666, 66.67)] {
            assert_eq!(two_decimals(x), rounded);
        }
        assert!(two_decimals(f64::NAN).is_nan());
    }

    #[test]
    fn buckets_end_where_upstream_s_do() {
        let rows =
            [("b", 3999, 1.0), ("b", 4000, 0.0), ("b", 7999, 1.0), ("a", 8000, 1.0), ("b", 0, 1.0), ("b", 1, 0.0)];
        let scores = by_length(rows);
        assert_eq!(scores.keys().copied().collect::<Vec<_>>(), ["a", "b"]);
        let [short, medium, long] = scores["b"];
        assert_eq!(short, Bucket { rows: 3, score: 66.67 });
        assert_eq!(medium, Bucket { rows: 2, score: 50.0 });
        assert!(long.rows == 0 && long.score.is_nan());
        assert_eq!(scores["a"][2], Bucket { rows: 1, score: 100.0 });
    }
}
