//! Scores of different measures made comparable.

/// Subtracts the mean of all scores of a layer and divides by their standard deviation (of a sample, at least 1e-6),
/// over heads and tokens together, so that heads stay comparable with each other.
pub fn z_score(scores: &mut [f32]) {
    let count = scores.len() as f64;
    let mean = scores.iter().map(|&score| f64::from(score)).sum::<f64>() / count.max(1.0);
    let squares: f64 = scores.iter().map(|&score| (f64::from(score) - mean).powi(2)).sum();
    let deviation = (squares / (count - 1.0).max(1.0)).sqrt().max(1e-6);
    scores.iter_mut().for_each(|score| *score = ((f64::from(*score) - mean) / deviation) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_is_0_and_deviation_1() {
        let mut scores = [1.0, 2.0, 3.0, 6.0];
        z_score(&mut scores);
        let deviation = (14.0f32 / 3.0).sqrt();
        assert_eq!(scores, [-2.0 / deviation, -1.0 / deviation, 0.0, 3.0 / deviation]);
        for mut equal in [vec![], vec![4.0], vec![0.5; 3]] {
            z_score(&mut equal);
            assert!(equal.iter().all(|&score| score == 0.0));
        }
    }
}
