//! Few queries against many keys, as in a decode step. The time is that of reading the cache: its numbers are widened in
//! registers and written nowhere.
//!
//! A key's score and a value's share do not depend on what lies beside them, so that a shared prompt and a copy of it give
//! the same bits.
#![expect(clippy::needless_range_loop, reason = "indices name registers of several arrays at once")]

use std::cell::RefCell;
use std::ops::Range;

use super::HeadView;
use crate::kernel::row_blocks::RowBlocks;
use crate::kernel::rows::{Elements, HeadRows};
use crate::kernel::vector::{Number, Plain, Vector};

/// Products of queries `[queries, head_dim]` with some of the head's keys: `scores` are `[queries, keys]`.
pub(super) fn score(queries: &[f32], head: &HeadView<'_>, keys: Range<usize>, head_dim: usize, scores: &mut [f32]) {
    let (stride, mut done) = (keys.len(), 0);
    for (elements, range) in head.segments(HeadRows::keys, keys, head_dim) {
        let tokens = range.len() / head_dim;
        let scores = &mut scores[done..];
        match elements {
            Elements::F32(keys) => score_numbers(queries, &keys[range], head_dim, scores, stride),
            Elements::F16(keys) => score_numbers(queries, &keys[range], head_dim, scores, stride),
            Elements::Bf16(keys) => score_numbers(queries, &keys[range], head_dim, scores, stride),
            Elements::Blocks(keys) => {
                with_widened(keys, range, |keys| score_numbers(queries, keys, head_dim, scores, stride));
            }
        }
        done += tokens;
    }
}

/// Adds to each of `sums`, `[queries, head_dim]`, some of the head's values times their `weights`, `[queries, values]`.
pub(super) fn add_weighted(
    weights: &[f32],
    head: &HeadView<'_>,
    values: Range<usize>,
    head_dim: usize,
    sums: &mut [f32],
) {
    let (stride, mut done) = (values.len(), 0);
    for (elements, range) in head.segments(HeadRows::values, values, head_dim) {
        let tokens = range.len() / head_dim;
        let weights = &weights[done..];
        match elements {
            Elements::F32(values) => add_weighted_numbers(weights, stride, &values[range], head_dim, sums),
            Elements::F16(values) => add_weighted_numbers(weights, stride, &values[range], head_dim, sums),
            Elements::Bf16(values) => add_weighted_numbers(weights, stride, &values[range], head_dim, sums),
            Elements::Blocks(values) => {
                with_widened(values, range, |values| add_weighted_numbers(weights, stride, values, head_dim, sums));
            }
        }
        done += tokens;
    }
}

/// Numbers of blocks in f32: a tile of keys, which stays in the processor's cache.
fn with_widened(blocks: &RowBlocks, range: Range<usize>, work: impl FnOnce(&[f32])) {
    thread_local! {
        static WIDENED: RefCell<Vec<f32>> = RefCell::default();
    }
    WIDENED.with_borrow_mut(|widened| {
        widened.resize(range.len(), 0.0);
        blocks.widen(range, widened);
        work(widened);
    });
}

/// Runs a body with the widest registers of the processor.
macro_rules! widest {
    ($name:ident($($arg:ident: $type:ty),*) = $body:ident) => {
        fn $name<T: Number>($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};

                use crate::kernel::simd::{has_avx2, has_avx512};

                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,f16c")]
                fn avx512<T: Number>($($arg: $type),*) {
                    // SAFETY: the function is compiled for AVX-512.
                    unsafe { $body::<__m512, T>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2<T: Number>($($arg: $type),*) {
                    // SAFETY: the function is compiled for AVX2.
                    unsafe { $body::<__m256, T>($($arg),*) }
                }
                if has_avx512() {
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if has_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            // SAFETY: plain registers need no feature.
            unsafe { $body::<Plain, T>($($arg),*) }
        }
    };
}

widest!(score_numbers(queries: &[f32], keys: &[T], head_dim: usize, scores: &mut [f32], stride: usize) = score_with);
widest!(add_weighted_numbers(weights: &[f32], stride: usize, values: &[T], head_dim: usize, sums: &mut [f32]) = add_weighted_with);

/// Calls a function that knows its number of rows, at most four, when it is compiled.
macro_rules! of_rows {
    ($rows:expr, $function:ident::<$vector:ident, $number:ident>($($argument:expr),*)) => {
        match $rows {
            1 => $function::<$vector, $number, 1>($($argument),*),
            2 => $function::<$vector, $number, 2>($($argument),*),
            3 => $function::<$vector, $number, 3>($($argument),*),
            _ => $function::<$vector, $number, 4>($($argument),*),
        }
    };
}

/// Keys whose products are summed over lanes at once.
const TOGETHER: usize = 4;

/// # Safety
///
/// The processor must have the registers.
#[inline(always)]
unsafe fn score_with<V: Vector, T: Number>(
    queries: &[f32],
    keys: &[T],
    head_dim: usize,
    scores: &mut [f32],
    stride: usize,
) {
    let count = queries.len() / head_dim;
    let mut first = 0;
    while first < count {
        let rows = (count - first).min(V::ROWS);
        let queries = &queries[first * head_dim..(first + rows) * head_dim];
        let scores = &mut scores[first * stride..];
        // SAFETY: the caller's promise; there are as many queries as rows.
        unsafe { of_rows!(rows, score_rows::<V, T>(queries, keys, head_dim, scores, stride)) };
        first += rows;
    }
}

/// # Safety
///
/// The processor must have the registers; `queries` must be `[ROWS, head_dim]`.
#[inline(always)]
unsafe fn score_rows<V: Vector, T: Number, const ROWS: usize>(
    queries: &[f32],
    keys: &[T],
    head_dim: usize,
    scores: &mut [f32],
    stride: usize,
) {
    let tokens = keys.len() / head_dim;
    let in_registers = head_dim - head_dim % V::LANES;
    let mut token = 0;
    while token < tokens {
        let some = (tokens - token).min(TOGETHER);
        // Where fewer are left, the last one is computed again.
        let key: [&[T]; TOGETHER] = std::array::from_fn(|i| &keys[(token + i.min(some - 1)) * head_dim..][..head_dim]);
        let mut sums = [[unsafe { V::zero() }; TOGETHER]; ROWS];
        for at in (0..in_registers).step_by(V::LANES) {
            // SAFETY: keys and queries have `head_dim` numbers, of which a register's are left from `at` on.
            unsafe {
                let numbers = key.map(|key| V::load(key.as_ptr().add(at)));
                for row in 0..ROWS {
                    let query = V::load(queries.as_ptr().add(row * head_dim + at));
                    for i in 0..TOGETHER {
                        sums[row][i] = query.multiply_add(numbers[i], sums[row][i]);
                    }
                }
            }
        }
        for row in 0..ROWS {
            // SAFETY: the caller's promise.
            let mut products = unsafe { V::sums(sums[row]) };
            for at in in_registers..head_dim {
                for i in 0..TOGETHER {
                    products[i] += queries[row * head_dim + at] * key[i][at].widen();
                }
            }
            scores[row * stride + token..][..some].copy_from_slice(&products[..some]);
        }
        token += TOGETHER;
    }
}

/// # Safety
///
/// The processor must have the registers.
#[inline(always)]
unsafe fn add_weighted_with<V: Vector, T: Number>(
    weights: &[f32],
    stride: usize,
    values: &[T],
    head_dim: usize,
    sums: &mut [f32],
) {
    let count = sums.len() / head_dim;
    let mut first = 0;
    while first < count {
        let rows = (count - first).min(V::ROWS);
        let weights = &weights[first * stride..];
        let sums = &mut sums[first * head_dim..(first + rows) * head_dim];
        // SAFETY: the caller's promise; there are as many sums as rows.
        unsafe { of_rows!(rows, add_weighted_rows::<V, T>(weights, stride, values, head_dim, sums)) };
        first += rows;
    }
}

/// # Safety
///
/// The processor must have the registers; `sums` must be `[ROWS, head_dim]`.
#[inline(always)]
unsafe fn add_weighted_rows<V: Vector, T: Number, const ROWS: usize>(
    weights: &[f32],
    stride: usize,
    values: &[T],
    head_dim: usize,
    sums: &mut [f32],
) {
    const WIDE: usize = 4;
    let mut at = 0;
    while at + WIDE * V::LANES <= head_dim {
        // SAFETY: the caller's promise; the columns exist.
        unsafe { add_weighted_columns::<V, T, ROWS, WIDE>(weights, stride, values, head_dim, at, sums) };
        at += WIDE * V::LANES;
    }
    while at + V::LANES <= head_dim {
        // SAFETY: as above.
        unsafe { add_weighted_columns::<V, T, ROWS, 1>(weights, stride, values, head_dim, at, sums) };
        at += V::LANES;
    }
    for (token, value) in values.chunks_exact(head_dim).enumerate() {
        for row in 0..ROWS {
            for at in at..head_dim {
                sums[row * head_dim + at] += weights[row * stride + token] * value[at].widen();
            }
        }
    }
}

/// # Safety
///
/// The processor must have the registers; `sums` must be `[ROWS, head_dim]`, and `at` and as many numbers as `REGISTERS`
/// hold lie within `head_dim`.
#[inline(always)]
unsafe fn add_weighted_columns<V: Vector, T: Number, const ROWS: usize, const REGISTERS: usize>(
    weights: &[f32],
    stride: usize,
    values: &[T],
    head_dim: usize,
    at: usize,
    sums: &mut [f32],
) {
    let tokens = values.len() / head_dim;
    let weights: [&[f32]; ROWS] = std::array::from_fn(|row| &weights[row * stride..][..tokens]);
    // SAFETY: the caller's promise; every value has `head_dim` numbers.
    unsafe {
        let place = |sums: *mut f32, row: usize, i: usize| sums.add(row * head_dim + at + i * V::LANES);
        let target = sums.as_mut_ptr();
        let mut held: [[V; REGISTERS]; ROWS] =
            std::array::from_fn(|row| std::array::from_fn(|i| V::load(place(target, row, i).cast_const())));
        for token in 0..tokens {
            let value = values.as_ptr().add(token * head_dim + at);
            let numbers: [V; REGISTERS] = std::array::from_fn(|i| V::load(value.add(i * V::LANES)));
            for row in 0..ROWS {
                let weight = V::splat(*weights[row].get_unchecked(token));
                for i in 0..REGISTERS {
                    held[row][i] = weight.multiply_add(numbers[i], held[row][i]);
                }
            }
        }
        for row in 0..ROWS {
            for i in 0..REGISTERS {
                held[row][i].store(place(target, row, i));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5) - 1.0).collect()
    }

    /// A kernel's inputs, with the results in f64 beside them.
    struct Case<T> {
        queries: Vec<f32>,
        rows: Vec<T>,
        head_dim: usize,
        tokens: usize,
        weights: Vec<f32>,
        scores: Vec<f64>,
        sums: Vec<f64>,
    }

    impl<T: Number> Case<T> {
        fn new(count: usize, tokens: usize, head_dim: usize, seed: u64, narrow: impl Fn(f32) -> T) -> Self {
            let queries = numbers(count * head_dim, seed);
            let rows: Vec<T> = numbers(tokens * head_dim, seed + 1).into_iter().map(narrow).collect();
            let weights = numbers(count * tokens, seed + 2);
            let wide = |at: usize| f64::from(rows[at].widen());
            let mut scores = vec![0.0; count * tokens];
            let mut sums = vec![0.0; count * head_dim];
            for query in 0..count {
                for token in 0..tokens {
                    for at in 0..head_dim {
                        let number = wide(token * head_dim + at);
                        scores[query * tokens + token] += f64::from(queries[query * head_dim + at]) * number;
                        sums[query * head_dim + at] += f64::from(weights[query * tokens + token]) * number;
                    }
                }
            }
            Self { queries, rows, head_dim, tokens, weights, scores, sums }
        }

        /// # Safety
        ///
        /// The processor must have the registers.
        unsafe fn check<V: Vector>(&self) {
            let mut scores = vec![f32::NAN; self.scores.len()];
            let mut sums = vec![0.0; self.sums.len()];
            // SAFETY: the caller's promise.
            unsafe {
                score_with::<V, T>(&self.queries, &self.rows, self.head_dim, &mut scores, self.tokens);
                add_weighted_with::<V, T>(&self.weights, self.tokens, &self.rows, self.head_dim, &mut sums);
            }
            let near = |(ours, exact): (&f32, &f64)| (f64::from(*ours) - exact).abs() < 1e-4;
            assert!(scores.iter().zip(&self.scores).all(near), "scores of {} lanes", V::LANES);
            assert!(sums.iter().zip(&self.sums).all(near), "sums of {} lanes", V::LANES);
        }

        fn check_all(&self) {
            // SAFETY: plain registers need no feature.
            unsafe { self.check::<Plain>() };
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256, __m512};

                use crate::kernel::simd::{has_avx2, has_avx512};
                if has_avx2() {
                    // SAFETY: the processor has AVX2.
                    unsafe { self.check::<__m256>() };
                }
                if has_avx512() {
                    // SAFETY: the processor has AVX-512.
                    unsafe { self.check::<__m512>() };
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_version_equals_the_reference(
            count in 1usize..9,
            tokens in 0usize..40,
            head_dim in prop_oneof![Just(64usize), Just(80), Just(96), Just(128), Just(256), 1usize..70],
            seed in 0u64..99,
        ) {
            Case::new(count, tokens, head_dim, seed, |x| x).check_all();
            Case::new(count, tokens, head_dim, seed, f16::from_f32).check_all();
            Case::new(count, tokens, head_dim, seed, bf16::from_f32).check_all();
        }
    }
}
