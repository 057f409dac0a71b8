//! How far two lists of numbers agree.

/// Pearson's correlation; none where a list is constant, where the lengths differ, or for fewer than two numbers.
pub fn pearson(first: &[f64], second: &[f64]) -> Option<f64> {
    if first.len() != second.len() || first.len() < 2 {
        return None;
    }
    let centred = |values: &[f64]| -> Option<Vec<f64>> {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let centred: Vec<f64> = values.iter().map(|value| value - mean).collect();
        let length = centred.iter().map(|value| value * value).sum::<f64>().sqrt();
        // The mean of equal numbers may differ from them in the last bit, and the rest would correlate by chance.
        let constant = values.windows(2).all(|pair| pair[0] == pair[1]) || length == 0.0;
        (!constant).then(|| centred.iter().map(|value| value / length).collect())
    };
    let correlation: f64 = centred(first)?.iter().zip(centred(second)?).map(|(a, b)| a * b).sum();
    Some(correlation.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, equal numbers sharing their mean rank; none where [`pearson`] of the ranks is none.
pub fn spearman(first: &[f64], second: &[f64]) -> Option<f64> {
    pearson(&ranks(first), &ranks(second))
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

fn ranks(values: &[f64]) -> Vec<f64> {
    let order = descending(values);
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0.0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        for &place in ties {
            ranks[place] = before + (ties.len() as f64 - 1.0) / 2.0;
        }
        before += ties.len() as f64;
    }
    ranks
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
