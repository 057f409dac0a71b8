//! How evenly something is spread.

/// Entropy of numbers, at least 0, as shares of their sum: from 0 where one has all to 1 where all are equal. None of
/// fewer than two, or where there is nothing to share.
pub fn evenness(numbers: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let (count, sum) = numbers.clone().fold((0usize, 0.0), |(count, sum), number| (count + 1, sum + number));
    if count < 2 || sum <= 0.0 {
        return None;
    }
    let entropy: f64 = numbers.map(|number| number / sum).filter(|&share| share > 0.0).map(|p| -p * p.ln()).sum();
    Some((entropy / (count as f64).ln()).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evenness_lies_between_0_and_1() {
        let of = |numbers: &[f64]| evenness(numbers.iter().copied());
        assert_eq!(of(&[3.0, 0.0, 0.0]), Some(0.0));
        assert!((of(&[0.5; 7]).unwrap() - 1.0).abs() < 1e-12);
        let half = 0.5 * 2f64.ln() + 0.5 * 4f64.ln();
        assert!((of(&[2.0, 1.0, 1.0]).unwrap() - half / 3f64.ln()).abs() < 1e-12);
        assert_eq!((of(&[1.0]), of(&[]), of(&[0.0; 3])), (None, None, None));
    }
}
