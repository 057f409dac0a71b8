//! What stands between the products: norms, the gate of a feed-forward layer, sums. Each is one pass over memory.

use super::pool;
use super::simd::{LANES, dispatch, exp, fused, reduce};

/// Numbers that one piece of parallel work takes; fewer are not worth waking a thread.
const PIECE: usize = 1 << 15;

/// Root-mean-square norm of rows as long as `weight`: `x / sqrt(mean(x²) + epsilon) * weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "rows of a norm");
    let mut out = vec![0.0; x.len()];
    let piece = (PIECE / width).max(1) * width;
    pool::for_each_chunk(&mut out, piece, |index, out| {
        let start = index * piece;
        norm_rows(&x[start..start + out.len()], weight, epsilon, out);
    });
    out
}

/// `gate / (1 + exp(-gate)) * up`, number by number.
pub fn silu_times(gate: &[f32], up: &[f32]) -> Vec<f32> {
    pairwise(gate, up, silu_times_piece)
}

/// `a + b`, number by number.
pub fn add(a: &[f32], b: &[f32]) -> Vec<f32> {
    pairwise(a, b, add_piece)
}

fn pairwise(a: &[f32], b: &[f32], work: fn(&[f32], &[f32], &mut [f32])) -> Vec<f32> {
    assert_eq!(a.len(), b.len(), "operands that are paired");
    let mut out = vec![0.0; a.len()];
    pool::for_each_chunk(&mut out, PIECE, |index, out| {
        let range = index * PIECE..index * PIECE + out.len();
        work(&a[range.clone()], &b[range], out);
    });
    out
}

dispatch! {
    /// Norms of whole rows.
    pub fn norm_rows(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) = norm_rows_body
}

#[inline(always)]
fn norm_rows_body<const FMA: bool>(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
        let (blocks, rest) = x.as_chunks::<LANES>();
        let mut squares = [0.0f32; LANES];
        for block in blocks {
            for lane in 0..LANES {
                squares[lane] = fused::<FMA>(block[lane], block[lane], squares[lane]);
            }
        }
        let sum = reduce(&squares) + rest.iter().map(|x| x * x).sum::<f32>();
        let scale = (sum / x.len() as f32 + epsilon).sqrt().recip();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * weight;
        }
    }
}

dispatch! {
    /// One piece of [`silu_times`].
    pub fn silu_times_piece(gate: &[f32], up: &[f32], out: &mut [f32]) = silu_times_body
}

#[inline(always)]
fn silu_times_body<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((&gate, &up), out) in gate.iter().zip(up).zip(out) {
        // Of a number that is not positive, so that it cannot overflow.
        let power = exp::<FMA>(-gate.abs());
        let numerator = if gate < 0.0 { power } else { 1.0 };
        *out = gate * numerator / (1.0 + power) * up;
    }
}

dispatch! {
    /// One piece of [`add`].
    pub fn add_piece(a: &[f32], b: &[f32], out: &mut [f32]) = add_body
}

#[inline(always)]
fn add_body<const FMA: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((a, b), out) in a.iter().zip(b).zip(out) {
        *out = a + b;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 100.15) - 10.0).collect()
    }

    proptest! {
        #[test]
        fn all_equal_the_reference(rows in 1usize..6, width in 1usize..100, seed in 0u64..99) {
            let (a, b) = (numbers(rows * width, seed), numbers(rows * width, seed + 1));
            let weight = &b[..width];
            let exact = a.chunks_exact(width).flat_map(|row| {
                let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
                row.iter().zip(weight).map(move |(&x, &w)| f64::from(x) / (mean + 1e-5).sqrt() * f64::from(w))
            });
            let near = |ours: f32, exact: f64| (f64::from(ours) - exact).abs() <= 3e-6 * exact.abs().max(1.0);
            for norm in [rms_norm(&a, weight, 1e-5), { let mut out = vec![0.0; a.len()]; norm_rows_body::<false>(&a, weight, 1e-5, &mut out); out }] {
                prop_assert!(norm.iter().zip(exact.clone()).all(|(&ours, exact)| near(ours, exact)));
            }
            let silu = |x: f32| f64::from(x) / (1.0 + (-f64::from(x)).exp());
            let gated = silu_times(&a, &b);
            prop_assert!(gated.iter().zip(a.iter().zip(&b)).all(|(&ours, (&gate, &up))| near(ours, silu(gate) * f64::from(up))));
            prop_assert!(add(&a, &b).iter().zip(a.iter().zip(&b)).all(|(&sum, (a, b))| sum == a + b));
        }
    }

    #[test]
    fn pieces_are_whole_rows() {
        let (width, rows) = (PIECE / 3 + 1, 7);
        let x: Vec<f32> = numbers(rows * width, 3);
        let together = rms_norm(&x, &vec![1.0; width], 0.0);
        for (row, x) in x.chunks_exact(width).enumerate() {
            assert_eq!(rms_norm(x, &vec![1.0; width], 0.0), together[row * width..(row + 1) * width]);
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        assert!(rms_norm(&[1.0, f32::NAN], &[1.0, 1.0], 1e-5).iter().all(|x| x.is_nan()));
        assert!(silu_times(&[f32::NAN], &[1.0])[0].is_nan());
        assert_eq!(silu_times(&[-200.0, 200.0], &[1.0, 1.0]), [0.0, 200.0]);
    }
}
