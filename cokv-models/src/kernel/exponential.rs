//! Exponentials in f64, a vector at a time: a vocabulary of them is what sampling a token costs.

use super::simd::dispatch;

/// Below this the exponential is no normal number any more.
const LEAST: f64 = -708.0;
/// Added to a number below 2^51, it leaves the nearest whole number in the last bits.
const SHIFT: f64 = 6_755_399_441_055_744.0;
/// The first bits of ln 2, whose products with exponents are exact, and the rest of it.
const LN_2: [f64; 2] = [0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10];
/// 1 / n! from 13 to 0: the next term is below the last bit where |r| < ln 2 / 2.
const TERMS: [f64; 14] = [
    1.0 / 6_227_020_800.0,
    1.0 / 479_001_600.0,
    1.0 / 39_916_800.0,
    1.0 / 3_628_800.0,
    1.0 / 362_880.0,
    1.0 / 40_320.0,
    1.0 / 5_040.0,
    1.0 / 720.0,
    1.0 / 120.0,
    1.0 / 24.0,
    1.0 / 6.0,
    0.5,
    1.0,
    1.0,
];

dispatch! {
    /// `exp((x - max) · scale)` of every x, none of which is larger than `max`; `scale` is positive. 0 for what is no number, and
    /// what would be no normal one.
    pub fn exponentials(x: &[f32], max: f32, scale: f64, out: &mut [f64]) = exponentials_body
}

#[inline(always)]
fn exponentials_body<const FMA: bool>(x: &[f32], max: f32, scale: f64, out: &mut [f64]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = exp::<FMA>((f64::from(x) - f64::from(max)) * scale);
    }
}

/// x = n ln 2 + r, a polynomial for exp(r), and n put into the exponent.
#[inline(always)]
fn exp<const FMA: bool>(x: f64) -> f64 {
    let shifted = fused::<FMA>(x, std::f64::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = fused::<FMA>(n, -LN_2[1], fused::<FMA>(n, -LN_2[0], x));
    let mut exponential = 0.0;
    for term in TERMS {
        exponential = fused::<FMA>(exponential, r, term);
    }
    let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1.0f64.to_bits()));
    if x > LEAST { exponential * power } else { 0.0 }
}

#[inline(always)]
fn fused<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_exact_to_the_last_bits() {
        let x: Vec<f32> = (0..100_000).map(|i| -(i as f32) * 0.00713).collect();
        let mut out = vec![f64::NAN; x.len()];
        for version in [exponentials, exponentials_body::<false>, exponentials_body::<true>] {
            for (max, scale) in [(0.0, 1.0), (3.5, 0.37), (0.25, 2.5)] {
                version(&x, max, scale, &mut out);
                for (&x, &ours) in x.iter().zip(&out) {
                    let exact = ((f64::from(x) - f64::from(max)) * scale).exp();
                    let near = (ours - exact).abs() <= 4.0 * f64::EPSILON * exact;
                    assert!(near || (exact < 1e-300 && ours == 0.0), "{x}: {ours} {exact}");
                }
            }
        }
    }

    #[test]
    fn the_largest_is_one_and_what_is_no_number_is_nothing() {
        let mut out = [f64::NAN; 4];
        exponentials(&[7.5, f32::NEG_INFINITY, f32::NAN, -1e30], 7.5, 1.3, &mut out);
        assert_eq!(out, [1.0, 0.0, 0.0, 0.0]);
    }
}
