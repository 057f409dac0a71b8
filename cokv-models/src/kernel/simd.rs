//! Vector loops compiled for AVX-512, AVX2 and the baseline, chosen at run time.
//!
//! Bodies are written over blocks of [`LANES`] so that the compiler vectorises them in each version.

#[cfg(target_arch = "x86_64")]
mod permission;

use std::sync::atomic::{AtomicU8, Ordering};

use half::{bf16, f16};

/// Independent sums of a dot product: one AVX-512 register, two of AVX2, four of NEON.
pub const LANES: usize = 16;

/// `a * b + c`, fused where the target has an instruction for it; elsewhere `mul_add` would be a slow library call.
#[inline(always)]
pub fn fused<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Defines a function that runs the widest version of a body which the processor supports. The body takes a constant
/// that says whether fused multiply-add is an instruction, and then the function's own type, if it has one.
macro_rules! dispatch {
    ($(#[$doc:meta])* pub fn $name:ident$(<$type_of:ident: $bound:ident>)?($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? = $body:ident) => {
        $(#[$doc])*
        pub fn $name$(<$type_of: $bound>)?($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")]
                fn avx512$(<$type_of: $bound>)?($($arg: $type),*) $(-> $result)? {
                    $body::<true $(, $type_of)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2$(<$type_of: $bound>)?($($arg: $type),*) $(-> $result)? {
                    $body::<true $(, $type_of)?>($($arg),*)
                }

                if $crate::kernel::simd::has_avx512() {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if $crate::kernel::simd::has_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            $body::<{ cfg!(target_arch = "aarch64") } $(, $type_of)?>($($arg),*)
        }
    };
}
pub(crate) use dispatch;

/// Registers that kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Registers {
    /// What the target always has: SSE2 on x86-64, NEON on aarch64.
    Plain = 1,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 with BW, VL and DQ.
    Avx512,
    /// These, and tiles of bytes and of bf16 that the system permits (AMX): products of many rows of f32 are sums of products of
    /// bf16, so that other bits come out than of all registers above.
    Amx,
}

/// The widest registers that kernels use; 0 until somebody asks.
static WIDEST: AtomicU8 = AtomicU8::new(0);

impl Registers {
    /// From the narrowest to the widest.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Avx2, Self::Avx512, Self::Amx];

    /// The widest that the processor has and the system permits; asks the system for tiles where the processor has them.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            let avx2 = has!("avx2") && has!("fma") && has!("f16c");
            if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512dq") {
                let tiles = has!("avx512vnni") && permission::tiles_permitted();
                return if tiles { Self::Amx } else { Self::Avx512 };
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Plain
    }

    /// The widest that kernels use.
    pub fn widest() -> Self {
        match WIDEST.load(Ordering::Relaxed) {
            1 => Self::Plain,
            2 => Self::Avx2,
            3 => Self::Avx512,
            4 => Self::Amx,
            _ => Self::limit(Self::Amx),
        }
    }

    /// Lets all kernels of the process use no wider registers than these and those of the processor; returns what they use
    /// now. For tests, which compare what machines compute.
    pub fn limit(most: Self) -> Self {
        let widest = Self::detect().min(most);
        WIDEST.store(widest as u8, Ordering::Relaxed);
        widest
    }
}

/// What people call the instructions that kernels use now.
pub fn instructions() -> &'static str {
    match Registers::widest() {
        Registers::Amx => "AMX (int8 and bf16 tiles)",
        #[cfg(target_arch = "x86_64")]
        Registers::Avx512 if std::arch::is_x86_feature_detected!("avx512vnni") => "AVX-512 VNNI",
        Registers::Avx512 => "AVX-512",
        Registers::Avx2 => "AVX2",
        Registers::Plain if cfg!(target_arch = "aarch64") => "NEON",
        Registers::Plain if cfg!(target_arch = "x86_64") => "SSE2",
        Registers::Plain => "what the target has",
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_tiles() -> bool {
    Registers::widest() >= Registers::Amx
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    Registers::widest() >= Registers::Avx512
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    Registers::widest() >= Registers::Avx2
}

dispatch! {
    /// Replaces every `x` by `exp(x - max)` and returns their sum. Within 2 units in the last place of `exp` for
    /// `x - max` in [-87, 0]; below that (and for minus infinity) the result is 0.
    pub fn exp_row(row: &mut [f32], max: f32) -> f32 = exp_row_body
}

#[inline(always)]
fn exp_row_body<const FMA: bool>(row: &mut [f32], max: f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let mut blocks = row.chunks_exact_mut(LANES);
    for block in &mut blocks {
        for lane in 0..LANES {
            block[lane] = exp::<FMA>(block[lane] - max);
            sums[lane] += block[lane];
        }
    }
    let mut sum = 0.0;
    for x in blocks.into_remainder() {
        *x = exp::<FMA>(*x - max);
        sum += *x;
    }
    sum + reduce(&sums)
}

/// Sum of the lanes, as a tree.
#[inline(always)]
pub fn reduce(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// `exp` of a number that is not positive, after Cephes' `expf`: x = n ln 2 + r, a polynomial for exp(r), and n put into
/// the exponent.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // Written so that NaN stays NaN: `max` would make it a small weight and hide it.
    let bounded = if x < -87.3 { -87.3 } else { x };
    let n = fused::<FMA>(bounded, std::f32::consts::LOG2_E, ROUND) - ROUND;
    let r = fused::<FMA>(n, -LN_2_LOW, fused::<FMA>(n, -LN_2_HIGH, bounded));
    let mut p = 1.987_569_1e-4;
    p = fused::<FMA>(p, r, 1.398_199_9e-3);
    p = fused::<FMA>(p, r, 8.333_452e-3);
    p = fused::<FMA>(p, r, 4.166_579_6e-2);
    p = fused::<FMA>(p, r, 0.166_666_66);
    p = fused::<FMA>(p, r, 0.5);
    let exponential = fused::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.3 { 0.0 } else { exponential * power }
}

dispatch! {
    /// Copies half-precision numbers to f32, exactly. `half`'s own conversion takes eight numbers a call, which made it the
    /// larger part of a decode step.
    pub fn widen_f16(from: &[f16], to: &mut [f32]) = widen_f16_body
}

#[inline(always)]
fn widen_f16_body<const FMA: bool>(from: &[f16], to: &mut [f32]) {
    for (&from, to) in from.iter().zip(to) {
        *to = widened(from);
    }
}

/// The same number, by integer operations that any processor has.
#[inline(always)]
pub(crate) fn widened(half: f16) -> f32 {
    /// Moves an exponent biased by 15 to one biased by 127, subnormals included.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITE: u32 = 0x7c00;
    let bits = u32::from(half.to_bits());
    let magnitude = bits & 0x7fff;
    let rebiased = (f32::from_bits(magnitude << 13) * REBIAS).to_bits();
    let infinite = if magnitude >= INFINITE { 0x7f80_0000 } else { 0 };
    f32::from_bits(rebiased | infinite | (bits & 0x8000) << 16)
}

dispatch! {
    /// Copies bfloat16 numbers to f32, exactly.
    pub fn widen_bf16(from: &[bf16], to: &mut [f32]) = widen_bf16_body
}

#[inline(always)]
fn widen_bf16_body<const FMA: bool>(from: &[bf16], to: &mut [f32]) {
    for (from, to) in from.iter().zip(to) {
        *to = f32::from_bits(u32::from(from.to_bits()) << 16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_exact_for_every_number() {
        let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut wide = vec![0.0; halves.len()];
        widen_f16(&halves, &mut wide);
        for (half, wide) in halves.iter().zip(&wide) {
            let same = half.to_f32().to_bits() == wide.to_bits() || (half.is_nan() && wide.is_nan());
            assert!(same, "{half:?}: {wide}");
        }
        let brains: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        widen_bf16(&brains, &mut wide);
        let same = |(brain, wide): (&bf16, &f32)| {
            brain.to_f32().to_bits() == wide.to_bits() || brain.is_nan() && wide.is_nan()
        };
        assert!(brains.iter().zip(&wide).all(same));
    }

    #[test]
    fn exp_is_accurate_on_the_whole_range() {
        let mut row: Vec<f32> = (0..100_000).map(|i| -87.0 * i as f32 / 100_000.0).collect();
        let exact: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
        let sum = exp_row(&mut row, 0.0);
        for (ours, exact) in row.iter().zip(&exact) {
            assert!((f64::from(*ours) - exact).abs() <= 2.0 * f64::from(f32::EPSILON) * exact, "{ours} {exact}");
        }
        assert!((f64::from(sum) / exact.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn masked_scores_become_zero() {
        let mut row = [f32::NEG_INFINITY, 3.0, -1000.0];
        assert_eq!(exp_row(&mut row, 3.0), 1.0);
        assert_eq!(row, [0.0, 1.0, 0.0]);
        assert!(exp_row(&mut [0.0, f32::NAN, 1.0], 1.0).is_nan());
        assert!(exp_row(&mut [0.0, f32::INFINITY], f32::INFINITY).is_nan());
    }

    #[test]
    fn all_versions_agree_with_the_plain_one() {
        let scores: Vec<f32> = (0..103).map(|i| ((i * 37 % 101) as f32).sin() * 9.0).collect();
        let (mut dispatched, mut plain) = (scores.clone(), scores);
        let sums = (exp_row(&mut dispatched, 9.0), exp_row_body::<false>(&mut plain, 9.0));
        assert!((sums.0 - sums.1).abs() < 1e-5 * sums.1);
        assert!(dispatched.iter().zip(&plain).all(|(a, b)| (a - b).abs() <= 1e-6 * b));
    }
}
