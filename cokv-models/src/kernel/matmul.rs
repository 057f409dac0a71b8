//! Dense matrix products in f32, all operands row-major. Weights may have 16 bits, and are widened as they are read.
//!
//! With many rows the `gemm` crate is near the processor's peak, unless that has tiles of bf16 (`amx/dense.rs`). With 2 to 8 it is
//! several times slower than one row, so a plain loop over dot products takes those: it reads the weights once, which is all that
//! a decode step costs.

use std::cell::RefCell;

#[cfg(target_arch = "x86_64")]
use super::amx::{Amx, dense};
use super::parts::Columns;
use super::pool;
#[cfg(target_arch = "x86_64")]
use super::simd::has_tiles;
use super::simd::{LANES, dispatch, fused, reduce};
use super::vector::Number;

/// Rows up to which a loop over dot products beats `gemm`, measured on Zen 4 with 576 to 2,048 columns.
pub const FEW_ROWS: usize = 12;

/// Columns of the result that one piece of parallel work computes.
const COLUMNS_PER_PIECE: usize = 128;

/// `y = x wᵀ` on all threads: `x` is `[rows, inner]`, `w` is `[columns, inner]`, the result `[rows, columns]`. Weights of 16
/// bits give the bits that they would give in f32.
pub fn linear<T: Number>(x: &[f32], w: &[T], rows: usize, inner: usize, columns: usize) -> Vec<f32> {
    assert_eq!((x.len(), w.len()), (rows * inner, columns * inner), "operands of linear");
    let mut y = vec![0.0; rows * columns];
    #[cfg(target_arch = "x86_64")]
    if rows > FEW_ROWS && has_tiles() {
        // SAFETY: there are tiles.
        unsafe { dense::linear::<Amx, T>(x, w, inner, COLUMNS_PER_PIECE, &mut y) };
        return y;
    }
    if rows <= FEW_ROWS {
        // Pieces write [columns, rows], so that each owns a contiguous slice.
        let mut transposed = vec![0.0; rows * columns];
        pool::for_each_chunk(&mut transposed, COLUMNS_PER_PIECE * rows, |piece, out| {
            let start = piece * COLUMNS_PER_PIECE * inner;
            let count = out.len() / rows;
            dots(&w[start..start + count * inner], x, inner, out);
        });
        for (column, values) in transposed.chunks_exact(rows).enumerate() {
            for (row, &value) in values.iter().enumerate() {
                y[row * columns + column] = value;
            }
        }
    } else {
        let out = Columns::of(&mut y, columns);
        pool::for_each(columns.div_ceil(COLUMNS_PER_PIECE), |piece| {
            let start = piece * COLUMNS_PER_PIECE;
            let count = COLUMNS_PER_PIECE.min(columns - start);
            let w = &w[start * inner..(start + count) * inner];
            with_scratch(if T::IS_F32 { 0 } else { w.len() }, |scratch| {
                let right = Right::transposed(T::widen_all(w, scratch), inner);
                // SAFETY: columns start..start + count of `y` lie within it and are written by this piece alone.
                unsafe { gemm_into(x, right, rows, count, out.start(start), columns, false) };
            });
        });
    }
    y
}

/// The right operand of a product, `[inner, columns]` however it lies in memory.
#[derive(Clone, Copy)]
struct Right<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
    inner: usize,
}

impl<'a> Right<'a> {
    /// Stored as `[columns, inner]`.
    fn transposed(data: &'a [f32], inner: usize) -> Self {
        Self { data, row_stride: 1, column_stride: inner, inner }
    }
}

/// `c = a b`, or `c += a b`, on this thread. `a` is `[rows, inner]`; `c` has rows of `c_stride` elements, of which the
/// first `columns` are written.
///
/// # Safety
///
/// `c` must address `rows` such rows that nothing else reads or writes meanwhile.
unsafe fn gemm_into(
    a: &[f32],
    b: Right<'_>,
    rows: usize,
    columns: usize,
    c: *mut f32,
    c_stride: usize,
    accumulate: bool,
) {
    assert_eq!((a.len(), b.data.len()), (rows * b.inner, b.inner * columns), "operands of a product");
    // SAFETY: `a` and `b` have the lengths asserted above; the caller vouches for `c`.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            b.inner,
            c,
            1,
            c_stride as isize,
            accumulate,
            a.as_ptr(),
            1,
            b.inner as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// `c = a bᵀ` on this thread: `a` is `[rows, inner]`, `b` is `[columns, inner]`, `c` is `[rows, columns]`.
pub fn multiply_transposed(a: &[f32], b: &[f32], inner: usize, c: &mut [f32]) {
    let (rows, columns) = (a.len() / inner, b.len() / inner);
    assert_eq!((rows * inner, columns * inner, rows * columns), (a.len(), b.len(), c.len()), "operands of a product");
    #[cfg(target_arch = "x86_64")]
    if rows > FEW_ROWS && has_tiles() {
        // SAFETY: there are tiles.
        return unsafe { dense::multiply_transposed::<Amx, f32>(a, b, inner, c) };
    }
    if rows <= FEW_ROWS {
        with_scratch(rows * columns, |transposed| {
            dots(b, a, inner, transposed);
            for (column, values) in transposed.chunks_exact(rows).enumerate() {
                for (row, &value) in values.iter().enumerate() {
                    c[row * columns + column] = value;
                }
            }
        });
    } else {
        // SAFETY: `c` has rows × columns elements and is borrowed exclusively.
        unsafe { gemm_into(a, Right::transposed(b, inner), rows, columns, c.as_mut_ptr(), columns, false) };
    }
}

/// `c += a b` on this thread: `a` is `[rows, inner]`, `b` is `[inner, columns]`, `c` is `[rows, columns]`.
pub fn multiply_add(a: &[f32], b: &[f32], inner: usize, columns: usize, c: &mut [f32]) {
    let rows = c.len() / columns;
    assert_eq!((rows * inner, inner * columns, rows * columns), (a.len(), b.len(), c.len()), "operands of a product");
    #[cfg(target_arch = "x86_64")]
    if rows > FEW_ROWS && has_tiles() {
        // SAFETY: there are tiles.
        return unsafe { dense::multiply_add::<Amx, f32>(a, b, columns, c) };
    }
    let right = Right { data: b, row_stride: columns, column_stride: 1, inner };
    // SAFETY: as in `multiply_transposed`.
    unsafe { gemm_into(a, right, rows, columns, c.as_mut_ptr(), columns, true) };
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn with_scratch(length: usize, work: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(length.max(scratch.len()), 0.0);
        work(&mut scratch[..length]);
    });
}

dispatch! {
    /// Every row of `long` times every row of `few`, `inner` elements each: `out` is `[long rows, few rows]`.
    pub fn dots<T: Number>(long: &[T], few: &[f32], inner: usize, out: &mut [f32]) = dots_body
}

#[inline(always)]
fn dots_body<const FMA: bool, T: Number>(long: &[T], few: &[f32], inner: usize, out: &mut [f32]) {
    let rows = few.len() / inner;
    let few = |row: usize| &few[row * inner..(row + 1) * inner];
    for (vector, out) in long.chunks_exact(inner).zip(out.chunks_exact_mut(rows)) {
        let mut row = 0;
        while row < rows {
            match rows - row {
                1 => out[row..].copy_from_slice(&dot_block::<FMA, T, 1>(vector, [few(row)])),
                2 => out[row..].copy_from_slice(&dot_block::<FMA, T, 2>(vector, [few(row), few(row + 1)])),
                3 => {
                    out[row..].copy_from_slice(&dot_block::<FMA, T, 3>(vector, [few(row), few(row + 1), few(row + 2)]))
                }
                _ => {
                    let block = [few(row), few(row + 1), few(row + 2), few(row + 3)];
                    out[row..row + 4].copy_from_slice(&dot_block::<FMA, T, 4>(vector, block));
                }
            }
            row += 4;
        }
    }
}

#[inline(always)]
fn dot_block<const FMA: bool, T: Number, const N: usize>(vector: &[T], rows: [&[f32]; N]) -> [f32; N] {
    let (blocks, rest) = vector.as_chunks::<LANES>();
    let row_blocks = rows.map(|row| &row.as_chunks::<LANES>().0[..blocks.len()]);
    let mut sums = [[0.0f32; LANES]; N];
    for (at, block) in blocks.iter().enumerate() {
        for i in 0..N {
            for lane in 0..LANES {
                sums[i][lane] = fused::<FMA>(block[lane].widen(), row_blocks[i][at][lane], sums[i][lane]);
            }
        }
    }
    // Through memory: the compiler otherwise shapes the loop after the reduction, two lanes at a time.
    let sums = std::hint::black_box(sums);
    let done = vector.len() - rest.len();
    let mut out = [0.0; N];
    for i in 0..N {
        out[i] = reduce(&sums[i]);
        for (a, b) in rest.iter().zip(&rows[i][done..]) {
            out[i] = fused::<FMA>(a.widen(), *b, out[i]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::simd::Registers;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5) - 1.0).collect()
    }

    /// `a bᵀ` in f64.
    fn reference(a: &[f32], b: &[f32], inner: usize) -> Vec<f64> {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        a.chunks_exact(inner).flat_map(|x| b.chunks_exact(inner).map(move |y| dot(x, y))).collect()
    }

    fn close(ours: &[f32], exact: &[f64], inner: usize) -> bool {
        // Of products of numbers up to 1: what tiles lose of each.
        let of_one = if Registers::widest() == Registers::Amx { 2f64.powi(-15) + 1e-6 } else { 1e-6 };
        ours.len() == exact.len()
            && ours.iter().zip(exact).all(|(a, b)| (f64::from(*a) - b).abs() < of_one * inner as f64)
    }

    proptest! {
        #[test]
        fn products_equal_the_reference(rows in 1usize..40, inner in 1usize..140, columns in 1usize..300, seed in 0u64..99) {
            let (a, b) = (numbers(rows * inner, seed), numbers(columns * inner, seed + 1));
            let exact = reference(&a, &b, inner);
            prop_assert!(close(&linear(&a, &b, rows, inner, columns), &exact, inner));
            let mut c = vec![0.0; rows * columns];
            multiply_transposed(&a, &b, inner, &mut c);
            prop_assert!(close(&c, &exact, inner));

            // b as [columns, inner] transposed is the right operand of a plain product.
            let mut right = vec![0.0; inner * columns];
            for column in 0..columns {
                for i in 0..inner {
                    right[i * columns + column] = b[column * inner + i];
                }
            }
            let mut sums = vec![1.0; rows * columns];
            multiply_add(&a, &right, inner, columns, &mut sums);
            let exact: Vec<f64> = exact.iter().map(|x| x + 1.0).collect();
            prop_assert!(close(&sums, &exact, inner));
        }
    }

    /// Widening is exact, so that how a weight is held changes no bit of what it gives.
    #[test]
    fn weights_of_16_bits_give_the_bits_of_the_same_weights_in_f32() {
        let (inner, columns) = (70, 150);
        let numbers = numbers(columns * inner, 3);
        let halves: Vec<f16> = numbers.iter().map(|&x| f16::from_f32(x)).collect();
        let brains: Vec<bf16> = numbers.iter().map(|&x| bf16::from_f32(x)).collect();
        let (of_halves, of_brains): (Vec<f32>, Vec<f32>) =
            (halves.iter().map(|x| x.to_f32()).collect(), brains.iter().map(|x| x.to_f32()).collect());
        for rows in [1, 2, 3, 4, 7, FEW_ROWS, FEW_ROWS + 1, 40] {
            let x = super::tests::numbers(rows * inner, 4);
            assert_eq!(linear(&x, &halves, rows, inner, columns), linear(&x, &of_halves, rows, inner, columns));
            assert_eq!(linear(&x, &brains, rows, inner, columns), linear(&x, &of_brains, rows, inner, columns));
        }
    }

    #[test]
    fn the_plain_version_agrees_too() {
        let (long, few) = (numbers(7 * 70, 1), numbers(5 * 70, 2));
        let mut out = vec![0.0; 35];
        dots_body::<false, f32>(&long, &few, 70, &mut out);
        assert!(close(&out, &reference(&long, &few, 70), 70));
    }
}
