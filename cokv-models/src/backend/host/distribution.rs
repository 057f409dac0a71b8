//! Next-token distributions, given as logits.

use crate::kernel::simd::exp_row;

/// Logits whose exponentials are summed in f32 before the sums are added up in f64.
const BLOCK: usize = 1024;

/// Logarithm of the sum of exponentials, within 1e-6 of the exact one.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut block = [0.0; BLOCK];
    let block_sum = |logits: &[f32]| {
        let block = &mut block[..logits.len()];
        block.copy_from_slice(logits);
        f64::from(exp_row(block, max))
    };
    f64::from(max) + logits.chunks(BLOCK).map(block_sum).sum::<f64>().ln()
}

/// KL(p ‖ q) of two rows of logits, in nats. `q_normaliser` is the [`log_sum_exp`] of `q`.
pub fn divergence(p: &[f32], q: &[f32], q_normaliser: f64) -> f64 {
    let p_normaliser = log_sum_exp(p);
    let shift = q_normaliser - p_normaliser;
    let mut weights = [0.0; BLOCK];
    let mut sum = 0.0;
    for (p, q) in p.chunks(BLOCK).zip(q.chunks(BLOCK)) {
        let weights = &mut weights[..p.len()];
        weights.copy_from_slice(p);
        exp_row(weights, p_normaliser as f32);
        let terms = weights.iter().zip(p.iter().zip(q));
        sum += terms.map(|(&weight, (&p, &q))| f64::from(weight) * (f64::from(p) - f64::from(q) + shift)).sum::<f64>();
    }
    // Rounding may leave a tiny negative number where the two are equal.
    sum.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_divergences_are_those_of_the_distributions() {
        let (p, q) = ([0.0, 1.0f32.ln(), 2.0f32.ln()], [0.0f32; 3]);
        assert!((log_sum_exp(&p) - 4.0f64.ln()).abs() < 1e-6);
        // Probabilities 1/4, 1/4, 1/2 against 1/3 each.
        let exact = 0.5 * (0.75f64).ln() + 0.5 * (1.5f64).ln();
        assert!((divergence(&p, &q, log_sum_exp(&q)) - exact).abs() < 1e-6);
        assert_eq!(divergence(&p, &p, log_sum_exp(&p)), 0.0);
    }

    #[test]
    fn large_vocabularies_lose_no_precision() {
        let p: Vec<f32> = (0..50_000u64).map(|i| ((i * 7919 % 4001) as f32 / 400.0).sin() * 20.0).collect();
        let q: Vec<f32> = (0..50_000u64).map(|i| ((i * 104_729 % 4001) as f32 / 400.0).cos() * 20.0).collect();
        let exact = |row: &[f32]| row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        assert!((log_sum_exp(&p) - exact(&p)).abs() < 1e-6);
        let terms = p.iter().zip(&q).map(|(&p_, &q_)| {
            let (log_p, log_q) = (f64::from(p_) - exact(&p), f64::from(q_) - exact(&q));
            log_p.exp() * (log_p - log_q)
        });
        let exact: f64 = terms.sum();
        assert!((divergence(&p, &q, log_sum_exp(&q)) / exact - 1.0).abs() < 1e-5);
    }
}
