//! One name for the registers of every processor, so that a kernel is written once and compiled for each.
//!
//! AVX-512 and AVX2 are chosen at run time. Elsewhere [`Plain`] is an array that the compiler puts into what the target
//! always has: NEON on aarch64, SSE2 on x86-64.

use half::{bf16, f16};

use super::simd::{widen_bf16, widen_f16};

/// A register of f32 numbers.
///
/// # Safety
///
/// All methods need a processor with the features that the register belongs to.
pub(crate) trait Vector: Copy {
    /// Numbers of a register.
    const LANES: usize;
    /// Rows that a kernel works on at once without running out of registers.
    const ROWS: usize;

    unsafe fn zero() -> Self;
    unsafe fn splat(x: f32) -> Self;
    /// Reads [`Self::LANES`] numbers, which must be there.
    unsafe fn load<T: Number>(from: *const T) -> Self;
    /// Writes [`Self::LANES`] numbers, for which there must be room.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + c`
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;
    /// The sum of each register's lanes, each in the same order.
    unsafe fn sums(registers: [Self; 4]) -> [f32; 4];
}

/// How a cache or a weight stores a number.
pub trait Number: Copy + Default + Send + Sync {
    /// Whether there is nothing to widen.
    const IS_F32: bool = false;
    /// Numbers of bf16 that tiles take for one: as many as it is the sum of, and two of an f32, which lack its last bits.
    #[cfg(target_arch = "x86_64")]
    const BF16_PARTS: usize = 2;

    /// The same number.
    fn widen(self) -> f32;
    /// The same numbers, in `scratch` if they have to be copied.
    fn widen_all<'a>(numbers: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32];
    /// Reads sixteen numbers, which must be there, on a processor with AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512;
    /// Reads eight numbers, which must be there, on a processor with AVX2 and F16C.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256;
}

/// Four numbers, whatever the processor.
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 4]);

impl Vector for Plain {
    const LANES: usize = 4;
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; 4])
    }

    #[inline(always)]
    unsafe fn load<T: Number>(from: *const T) -> Self {
        // SAFETY: the caller has four numbers there.
        Self(std::array::from_fn(|lane| unsafe { from.add(lane).read() }.widen()))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has room for four numbers there.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        const FMA: bool = cfg!(target_arch = "aarch64");
        Self(std::array::from_fn(|lane| super::simd::fused::<FMA>(self.0[lane], b.0[lane], c.0[lane])))
    }

    #[inline(always)]
    unsafe fn sums(registers: [Self; 4]) -> [f32; 4] {
        registers.map(|Self([a, b, c, d])| (a + b) + (c + d))
    }
}

impl Number for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn widen_all<'a>(numbers: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        numbers
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm512_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's promise.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(from) }
    }
}

impl Number for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        super::simd::widened(self)
    }

    fn widen_all<'a>(numbers: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        widen_f16(numbers, scratch);
        scratch
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: sixteen halves are 256 bits; the rest is the caller's promise.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: eight halves are 128 bits; the rest is the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }
}

impl Number for bf16 {
    #[cfg(target_arch = "x86_64")]
    const BF16_PARTS: usize = 1;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn widen_all<'a>(numbers: &'a [Self], scratch: &'a mut [f32]) -> &'a [f32] {
        widen_bf16(numbers, scratch);
        scratch
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_512(from: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: sixteen numbers of 16 bits are 256 bits; the rest is the caller's promise.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())), 16)) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load_256(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: eight numbers of 16 bits are 128 bits; the rest is the caller's promise.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())), 16)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Number, Vector};

    impl Vector for __m512 {
        const LANES: usize = 16;
        const ROWS: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise about the processor, here and below.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load<T: Number>(from: *const T) -> Self {
            // SAFETY: as above; the caller has sixteen numbers there.
            unsafe { T::load_512(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; the caller has room for sixteen numbers there.
            unsafe { _mm512_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(self, b, c) }
        }

        #[inline(always)]
        unsafe fn sums(registers: [Self; 4]) -> [f32; 4] {
            // SAFETY: as above.
            unsafe {
                let halves = registers.map(|register| {
                    let high = _mm512_castpd_ps(_mm512_shuffle_f64x2::<0b1110>(
                        _mm512_castps_pd(register),
                        _mm512_castps_pd(register),
                    ));
                    _mm256_add_ps(_mm512_castps512_ps256(register), _mm512_castps512_ps256(high))
                });
                __m256::sums(halves)
            }
        }
    }

    impl Vector for __m256 {
        const LANES: usize = 8;
        const ROWS: usize = 2;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: the caller's promise about the processor, here and below.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_set1_ps(x) }
        }

        #[inline(always)]
        unsafe fn load<T: Number>(from: *const T) -> Self {
            // SAFETY: as above; the caller has eight numbers there.
            unsafe { T::load_256(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as above; the caller has room for eight numbers there.
            unsafe { _mm256_storeu_ps(to, self) }
        }

        #[inline(always)]
        unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(self, b, c) }
        }

        #[inline(always)]
        unsafe fn sums([a, b, c, d]: [Self; 4]) -> [f32; 4] {
            // SAFETY: as above.
            unsafe {
                let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
                let four = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps::<1>(pairs));
                let mut sums = [0.0; 4];
                _mm_storeu_ps(sums.as_mut_ptr(), four);
                sums
            }
        }
    }
}
