//! How far two lists of numbers agree, or that it cannot be said.

use cokv_shapley::statistics;

/// Pearson's correlation; none where a list is constant, where the lengths differ, or for fewer than two numbers.
pub fn pearson(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.len() != second.len() || first.len() < 2 {
        return None;
    }
    // The mean of equal numbers may differ from them in the last bit, and the rest would correlate by chance.
    let constant =
        |values: &[f64]| values.windows(2).all(|pair| pair[0] == pair[1]) || statistics::variance(values) == 0.0;
    (!constant(first) && !constant(second)).then(|| statistics::pearson(first, second))
}

/// Spearman's rank correlation, equal numbers sharing their mean rank; none where [`pearson`] of the ranks is none.
pub fn spearman(first: &[f64], second: &[f64]) -> Option<f64> {
    pearson(&statistics::ranks(first), &statistics::ranks(second))
}

/// Share of the `ceil(share · n)` largest numbers of one list that are among those of the other; of equal numbers the
/// earlier one counts as larger. None where the lengths differ or nothing is counted.
pub fn top_overlap(first: &[f64], second: &[f64], share: f64) -> Option<f64> {
    let count = (share * first.len() as f64).ceil() as usize;
    if first.len() != second.len() || count == 0 {
        return None;
    }
    let best = |values: &[f64]| -> Vec<usize> { descending(values).into_iter().take(count).collect() };
    let (first, second) = (best(first), best(second));
    Some(first.iter().filter(|place| second.contains(place)).count() as f64 / first.len() as f64)
}

/// Places of the numbers, the largest first, equal ones in their order.
pub fn descending(values: &[f64]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    places.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    places
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn textbook_values() {
        // Anscombe's first set.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        assert!((pearson(&x, &y).unwrap() - 0.81642).abs() < 1e-5);
        assert!((spearman(&x, &y).unwrap() - 0.81818).abs() < 1e-5);
    }

    #[test]
    fn ties_share_their_rank() {
        // Counted from the largest.
        let ranks = |values: &[f64]| -> Vec<f64> {
            let last = values.len() as f64 - 1.0;
            statistics::ranks(values).into_iter().map(|rank| last - rank).collect()
        };
        assert_eq!(ranks(&[1.0, 3.0, 3.0, 2.0]), [3.0, 0.5, 0.5, 2.0]);
        assert_eq!(top_overlap(&[5.0, 5.0, 1.0, 0.0], &[5.0, 0.0, 5.0, 1.0], 0.5), Some(0.5));
    }

    #[test]
    fn nothing_is_said_about_constants_and_unequal_lengths() {
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), None);
        assert_eq!(spearman(&[1.0], &[1.0]), None);
        assert_eq!(pearson(&[1.0, 2.0], &[1.0]), None);
        assert_eq!(top_overlap(&[], &[], 0.1), None);
    }

    proptest! {
        #[test]
        fn agreement_is_symmetric_and_bounded(pairs in prop::collection::vec((-9i8..9, -9i8..9), 2..40)) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|(a, b)| (f64::from(a), f64::from(b))).unzip();
            for measure in [pearson, spearman] {
                prop_assert_eq!(measure(&x, &y), measure(&y, &x));
                if let Some(r) = measure(&x, &x) { prop_assert!((r - 1.0).abs() < 1e-12); }
                // Shifts and positive factors change nothing.
                let moved: Vec<f64> = x.iter().map(|v| 4.0 * v + 1.0).collect();
                if let (Some(r), Some(s)) = (measure(&x, &y), measure(&moved, &y)) { prop_assert!((r - s).abs() < 1e-9); }
            }
            prop_assert_eq!(top_overlap(&x, &x, 0.1), Some(1.0));
            prop_assert_eq!(top_overlap(&x, &y, 0.3), top_overlap(&y, &x, 0.3));
        }
    }
}
