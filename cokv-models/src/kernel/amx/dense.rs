//! Products of f32 matrices by tiles of bf16.
//!
//! Both operands are split into two bf16 numbers each (`split.rs`), high and low, and three products of these summed in f32: all but
//! low by low. A right operand in f16 is exact in two, one in bf16 in one, which leaves two products. What is lost is 2^-15 of a
//! product of two numbers at most (f16: 2^-16 + 2^-17, bf16: 2^-17).
//!
//! Measured with the emulated unit: products of normally distributed numbers differ from f64 by 4.5e-6 of their norm, whatever
//! the inner dimension, where those in f32 differ by 1.4e-7 (64 numbers) to 4e-7 (1,536). Through SmolLM2-135M, in f32 with a cache in
//! f32, 40 tokens, logits of up to 20 differ from f64 by at most 1.5e-4 (f32: 4.6e-5; f32 with a cache in f16: 8.8e-3). Three
//! parts and six products would be as exact as f32 (1.8e-5) for twice the work.

use std::cell::RefCell;

use super::split::{CHUNK, Tile, pack_columns, pack_right, pack_rows};
use super::{LANES, ROW_BYTES, ROWS, Shape, TILES, Tiles};
use crate::kernel::parts::{Columns, Parts};
use crate::kernel::pool;
use crate::kernel::vector::Number;

/// Tiles of the result that are computed at once, in both directions: two of each operand then make four.
const TOGETHER: usize = 2;

/// `y = x wᵀ` on all threads: `x` is `[rows, inner]`, `w` is `[columns, inner]`, `y` is `[rows, columns]`, of which a piece of work
/// computes `per_piece` columns.
///
/// # Safety
///
/// The processor must have the unit, and the system must permit it.
pub(crate) unsafe fn linear<T: Tiles, R: Number>(x: &[f32], w: &[R], inner: usize, per_piece: usize, y: &mut [f32]) {
    let (rows, columns) = (x.len() / inner, w.len() / inner);
    let mut left = Packed::of::<f32>(rows.div_ceil(ROWS), inner);
    let tiles = Parts::of(&mut left.tiles);
    pool::for_each(rows.div_ceil(ROWS), |at| {
        // SAFETY: every row tile is packed once, and they do not overlap.
        let tiles = unsafe { tiles.part(at * left.of_one..(at + 1) * left.of_one) };
        pack_rows(&x[at * ROWS * inner..rows.min((at + 1) * ROWS) * inner], inner, tiles);
    });
    let out = Columns::of(y, columns);
    pool::for_each(columns.div_ceil(per_piece), |piece| {
        let first = piece * per_piece;
        let count = per_piece.min(columns - first);
        SCRATCH.with_borrow_mut(|[_, right]| {
            right.pack_columns(&w[first * inner..(first + count) * inner], inner);
            let target = Target { start: out.start(first), rows, columns: count, stride: columns, accumulate: false };
            // SAFETY: columns first..first + count of `y` lie within it and are written by this piece alone; the rest is the
            // caller's promise.
            unsafe { multiply::<T, R>(&left, right, target) };
        });
    });
}

/// `c = a bᵀ` on this thread: `a` is `[rows, inner]`, `b` is `[columns, inner]`, `c` is `[rows, columns]`.
///
/// # Safety
///
/// As of [`linear`].
pub(crate) unsafe fn multiply_transposed<T: Tiles, R: Number>(a: &[f32], b: &[R], inner: usize, c: &mut [f32]) {
    let (rows, columns) = (a.len() / inner, b.len() / inner);
    assert_eq!(c.len(), rows * columns, "the result of a product");
    SCRATCH.with_borrow_mut(|[left, right]| {
        left.pack_rows(a, inner);
        right.pack_columns(b, inner);
        let target = Target { start: c.as_mut_ptr(), rows, columns, stride: columns, accumulate: false };
        // SAFETY: `c` is borrowed exclusively and has as many numbers; the rest is the caller's promise.
        unsafe { multiply::<T, R>(left, right, target) };
    });
}

/// `c += a b` on this thread: `a` is `[rows, inner]`, `b` is `[inner, columns]`, `c` is `[rows, columns]`.
///
/// # Safety
///
/// As of [`linear`].
pub(crate) unsafe fn multiply_add<T: Tiles, R: Number>(a: &[f32], b: &[R], columns: usize, c: &mut [f32]) {
    let (rows, inner) = (c.len() / columns, b.len() / columns);
    assert_eq!(a.len(), rows * inner, "operands of a product");
    SCRATCH.with_borrow_mut(|[left, right]| {
        left.pack_rows(a, inner);
        right.pack_right(b, columns);
        let target = Target { start: c.as_mut_ptr(), rows, columns, stride: columns, accumulate: true };
        // SAFETY: as above.
        unsafe { multiply::<T, R>(left, right, target) };
    });
}

thread_local! {
    /// Operands of this thread, left and right.
    static SCRATCH: RefCell<[Packed; 2]> = RefCell::default();
}

/// An operand, packed: of each row tile (of a left one) or column tile (of a right one), `[chunks, parts]` tiles.
#[derive(Default)]
struct Packed {
    tiles: Vec<Tile>,
    /// Tiles of one row or column tile.
    of_one: usize,
}

impl Packed {
    fn of<T: Number>(count: usize, inner: usize) -> Self {
        let mut packed = Self::default();
        packed.shape::<T>(count, inner);
        packed
    }

    /// Makes room for so many row or column tiles, to be packed anew.
    fn shape<T: Number>(&mut self, count: usize, inner: usize) {
        self.of_one = inner.div_ceil(CHUNK) * T::BF16_PARTS;
        self.tiles.resize(count * self.of_one, Tile::ZERO);
    }

    fn pack_rows(&mut self, numbers: &[f32], inner: usize) {
        let rows = numbers.len() / inner;
        self.shape::<f32>(rows.div_ceil(ROWS), inner);
        let of_tiles = numbers.chunks(ROWS * inner);
        of_tiles.zip(self.tiles.chunks_exact_mut(self.of_one)).for_each(|(rows, tiles)| pack_rows(rows, inner, tiles));
    }

    fn pack_columns<T: Number>(&mut self, numbers: &[T], inner: usize) {
        let columns = numbers.len() / inner;
        self.shape::<T>(columns.div_ceil(LANES), inner);
        let of_tiles = numbers.chunks(LANES * inner);
        of_tiles
            .zip(self.tiles.chunks_exact_mut(self.of_one))
            .for_each(|(rows, tiles)| pack_columns(rows, inner, tiles));
    }

    fn pack_right<T: Number>(&mut self, numbers: &[T], columns: usize) {
        self.shape::<T>(columns.div_ceil(LANES), numbers.len() / columns);
        for (at, tiles) in self.tiles.chunks_exact_mut(self.of_one).enumerate() {
            pack_right(numbers, columns, at * LANES, tiles);
        }
    }

    /// One row or column tile.
    fn tile(&self, at: usize) -> &[Tile] {
        &self.tiles[at * self.of_one..(at + 1) * self.of_one]
    }
}

/// Where a product goes: rows that lie `stride` numbers apart.
#[derive(Clone, Copy)]
struct Target {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    /// Whether it is added to what is there.
    accumulate: bool,
}

/// # Safety
///
/// As of [`linear`]; nothing else may look at the target's numbers, which must be there.
unsafe fn multiply<T: Tiles, R: Number>(left: &Packed, right: &Packed, target: Target) {
    // SAFETY: the caller's promise.
    let mut unit = unsafe { T::configured([Shape::WHOLE; TILES]) };
    for row in (0..target.rows).step_by(TOGETHER * ROWS) {
        for column in (0..target.columns).step_by(TOGETHER * LANES) {
            let part = Target {
                // SAFETY: the number lies within the target.
                start: unsafe { target.start.add(row * target.stride + column) },
                rows: (target.rows - row).min(TOGETHER * ROWS),
                columns: (target.columns - column).min(TOGETHER * LANES),
                ..target
            };
            // Where there is no second tile, the first stands for it and is not multiplied.
            let a = [row, if part.rows > ROWS { row + ROWS } else { row }].map(|row| left.tile(row / ROWS));
            let b = [column, if part.columns > LANES { column + LANES } else { column }]
                .map(|column| right.tile(column / LANES));
            // SAFETY: the part lies within the target; the unit is configured with whole tiles.
            unsafe {
                match (part.rows > ROWS, part.columns > LANES) {
                    (true, true) => within::<T, R, true, true>(&mut unit, a, b, part),
                    (true, false) => within::<T, R, true, false>(&mut unit, a, b, part),
                    (false, true) => within::<T, R, false, true>(&mut unit, a, b, part),
                    (false, false) => within::<T, R, false, false>(&mut unit, a, b, part),
                }
            }
        }
    }
}

/// Computes one or two by one or two tiles, of which the target may have a part only.
///
/// # Safety
///
/// As of [`multiply`]; all tiles of the unit must be whole.
unsafe fn within<T: Tiles, R: Number, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: &mut T,
    a: [&[Tile]; TOGETHER],
    b: [&[Tile]; TOGETHER],
    target: Target,
) {
    let whole = (ROWS * (1 + usize::from(TWO_ROWS)), LANES * (1 + usize::from(TWO_COLUMNS)));
    if (target.rows, target.columns) == whole {
        // SAFETY: the caller's promise.
        return unsafe { tiles::<T, R, TWO_ROWS, TWO_COLUMNS>(unit, a, b, target) };
    }
    let mut beside = [[0.0f32; TOGETHER * LANES]; TOGETHER * ROWS];
    let row = |row: usize| {
        // SAFETY: the row lies within the target, which is the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(target.start.add(row * target.stride), target.columns) }
    };
    if target.accumulate {
        for (at, beside) in beside.iter_mut().enumerate().take(target.rows) {
            beside[..target.columns].copy_from_slice(row(at));
        }
    }
    let start = beside.as_mut_ptr().cast();
    // SAFETY: there is room for all tiles; the rest is the caller's promise.
    unsafe { tiles::<T, R, TWO_ROWS, TWO_COLUMNS>(unit, a, b, Target { start, stride: TOGETHER * LANES, ..target }) };
    for (at, beside) in beside.iter().enumerate().take(target.rows) {
        row(at).copy_from_slice(&beside[..target.columns]);
    }
}

/// Computes whole tiles. Those of the result are 0 to 3, of the left operand 4 and 5, of the right one 6 and 7.
///
/// # Safety
///
/// As of [`within`], and the target must have room for whole tiles.
#[inline(always)]
unsafe fn tiles<T: Tiles, R: Number, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: &mut T,
    a: [&[Tile]; TOGETHER],
    b: [&[Tile]; TOGETHER],
    Target { start, stride, accumulate, .. }: Target,
) {
    let orders = f32::BF16_PARTS.max(R::BF16_PARTS);
    let stride_bytes = stride * size_of::<f32>();
    // SAFETY: rows of whole tiles lie in packed tiles and, by the caller's promise, in the target.
    unsafe {
        let c = |row: usize, column: usize| start.add(row * ROWS * stride + column * LANES).cast::<u8>();
        if accumulate {
            unit.load::<0>(c(0, 0), stride_bytes);
            if TWO_COLUMNS {
                unit.load::<1>(c(0, 1), stride_bytes);
            }
            if TWO_ROWS {
                unit.load::<2>(c(1, 0), stride_bytes);
            }
            if TWO_ROWS && TWO_COLUMNS {
                unit.load::<3>(c(1, 1), stride_bytes);
            }
        } else {
            unit.zero::<0>();
            unit.zero::<1>();
            unit.zero::<2>();
            unit.zero::<3>();
        }
        for chunk in 0..a[0].len() / f32::BF16_PARTS {
            for of_left in 0..f32::BF16_PARTS {
                let a = a.map(|tiles| tiles[chunk * f32::BF16_PARTS + of_left].as_ptr());
                unit.load::<4>(a[0], ROW_BYTES);
                if TWO_ROWS {
                    unit.load::<5>(a[1], ROW_BYTES);
                }
                // Products of later parts are smaller than what the last parts lack.
                for of_right in 0..R::BF16_PARTS.min(orders - of_left) {
                    let b = b.map(|tiles| tiles[chunk * R::BF16_PARTS + of_right].as_ptr());
                    unit.load::<6>(b[0], ROW_BYTES);
                    unit.multiply_bf16::<0, 4, 6>();
                    if TWO_ROWS {
                        unit.multiply_bf16::<2, 5, 6>();
                    }
                    if TWO_COLUMNS {
                        unit.load::<7>(b[1], ROW_BYTES);
                        unit.multiply_bf16::<1, 4, 7>();
                    }
                    if TWO_ROWS && TWO_COLUMNS {
                        unit.multiply_bf16::<3, 5, 7>();
                    }
                }
            }
        }
        unit.store::<0>(c(0, 0), stride_bytes);
        if TWO_COLUMNS {
            unit.store::<1>(c(0, 1), stride_bytes);
        }
        if TWO_ROWS {
            unit.store::<2>(c(1, 0), stride_bytes);
        }
        if TWO_ROWS && TWO_COLUMNS {
            unit.store::<3>(c(1, 1), stride_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::super::emulated::Emulated;
    use super::*;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|i| (((i * 7919 + seed * 104_729) % 20_011) as f32 / 10_005.5) - 1.0).collect()
    }

    /// Sums of twelve numbers between -1/2 and 1/2.
    fn normal(count: usize, seed: u64) -> Vec<f32> {
        let uniform = |at: u64| (cokv_core::random::mix(at) >> 40) as f32 / 2f32.powi(24) - 0.5;
        (0..count as u64).map(|at| (0..12).map(|i| uniform((at * 2 + seed) * 12 + i)).sum()).collect()
    }

    /// What a product of two numbers loses at most, and what sums in f32 lose.
    fn tolerance<R: Number>(inner: usize) -> f64 {
        let low = 2f64.powi(-17);
        let low_by_low = 2f64.powi(-16);
        let (left, both) = (low, if R::BF16_PARTS > 1 { low_by_low } else { 0.0 });
        let right = if R::IS_F32 { low } else { 0.0 };
        left + both + right + inner as f64 * 2f64.powi(-24)
    }

    /// `a bᵀ` in f64, and the same of magnitudes, which errors are relative to.
    fn reference<R: Number>(a: &[f32], b: &[R], inner: usize) -> Vec<[f64; 2]> {
        let product = |(&a, &b): (&f32, &R)| f64::from(a) * f64::from(b.widen());
        let dot = |a: &[f32], b: &[R]| {
            a.iter().zip(b).map(product).fold([0.0; 2], |[sum, size], x| [sum + x, size + x.abs()])
        };
        a.chunks_exact(inner).flat_map(|a| b.chunks_exact(inner).map(move |b| dot(a, b))).collect()
    }

    /// Largest error, relative to the sum of magnitudes.
    fn error(ours: &[f32], exact: &[[f64; 2]]) -> f64 {
        assert_eq!(ours.len(), exact.len());
        ours.iter().zip(exact).map(|(&y, [sum, size])| (f64::from(y) - sum).abs() / size).fold(0.0, f64::max)
    }

    /// Whether all three products of a right operand that is stored so, `[columns, inner]`, are as near as they should.
    fn near<R: Number>(a: &[f32], b: &[R], inner: usize) -> bool {
        let (rows, columns) = (a.len() / inner, b.len() / inner);
        let exact = reference(a, b, inner);
        let right: Vec<R> = (0..inner).flat_map(|i| (0..columns).map(move |column| b[column * inner + i])).collect();
        let mut results = [vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns], vec![1.0; rows * columns]];
        let [pieces, transposed, sums] = &mut results;
        // SAFETY: every processor has the emulated unit.
        unsafe {
            linear::<Emulated, R>(a, b, inner, 48, pieces);
            multiply_transposed::<Emulated, R>(a, b, inner, transposed);
            multiply_add::<Emulated, R>(a, &right, columns, sums);
        }
        let with_one: Vec<[f64; 2]> = exact.iter().map(|[sum, size]| [sum + 1.0, size + 1.0]).collect();
        let errors = [error(pieces, &exact), error(transposed, &exact), error(sums, &with_one)];
        errors.into_iter().all(|error| error <= tolerance::<R>(inner + 2))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn products_equal_the_reference(rows in 1usize..70, inner in 1usize..140, columns in 1usize..110, seed in 0u64..99) {
            let (a, b) = (numbers(rows * inner, seed), numbers(columns * inner, seed + 1));
            let halves: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
            let brains: Vec<bf16> = b.iter().map(|&x| bf16::from_f32(x)).collect();
            prop_assert!(near(&a, &b, inner) && near(&a, &halves, inner) && near(&a, &brains, inner));
        }
    }

    /// Parts that a narrower number does not have are zeros of the same number in f32.
    #[test]
    fn weights_of_16_bits_give_the_bits_of_the_same_weights_in_f32() {
        fn same<R: Number>(b: &[R]) -> bool {
            let (rows, inner) = (40, 70);
            let (a, columns) = (numbers(rows * inner, 4), b.len() / inner);
            let wide: Vec<f32> = b.iter().map(|x| x.widen()).collect();
            let [mut narrow_y, mut wide_y] = [vec![f32::NAN; rows * columns], vec![f32::NAN; rows * columns]];
            // SAFETY: every processor has the emulated unit.
            unsafe {
                linear::<Emulated, R>(&a, b, inner, 48, &mut narrow_y);
                linear::<Emulated, f32>(&a, &wide, inner, 48, &mut wide_y);
            }
            let bits = |y: Vec<f32>| y.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            bits(narrow_y) == bits(wide_y)
        }
        let b = numbers(150 * 70, 3);
        assert!(same(&b.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()));
        assert!(same(&b.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()));
    }

    #[test]
    fn errors_are_what_the_documentation_says() {
        for (inner, columns) in [(64, 256), (576, 64)] {
            let (a, b) = (normal(64 * inner, 1), normal(columns * inner, 2));
            let exact = reference(&a, &b, inner);
            let mut y = vec![0.0; 64 * columns];
            // SAFETY: every processor has the emulated unit.
            unsafe { linear::<Emulated, f32>(&a, &b, inner, 128, &mut y) };
            let squares = |of: &dyn Fn(usize) -> f64| (0..y.len()).map(|at| of(at).powi(2)).sum::<f64>().sqrt();
            let error = squares(&|at| f64::from(y[at]) - exact[at][0]) / squares(&|at| exact[at][0]);
            assert!((4e-6..5e-6).contains(&error), "{inner} numbers: {error}");
        }
    }

    #[test]
    fn rows_that_are_not_finite_concern_no_other() {
        let (rows, inner, columns) = (40, 50, 36);
        let (mut a, b) = (numbers(rows * inner, 1), numbers(columns * inner, 2));
        a[17 * inner + 3] = f32::NAN;
        a[20 * inner + 49] = f32::INFINITY;
        let mut c = vec![0.0; rows * columns];
        // SAFETY: as above.
        unsafe { multiply_transposed::<Emulated, f32>(&a, &b, inner, &mut c) };
        for (row, c) in c.chunks_exact(columns).enumerate() {
            assert!(c.iter().all(|c| c.is_finite() != [17, 20].contains(&row)), "row {row}");
        }
    }

    /// Rows, columns and pieces that surround a number do not change it: shared prompts and copies of them agree to the bit.
    #[test]
    fn a_number_has_the_same_bits_wherever_it_lies() {
        let (rows, inner, columns) = (70, 70, 90);
        let (a, b) = (numbers(rows * inner, 1), numbers(columns * inner, 2));
        let [mut all, mut part] = [vec![0.0; rows * columns], vec![0.0; 33 * 41]];
        // SAFETY: as above.
        unsafe {
            linear::<Emulated, f32>(&a, &b, inner, 48, &mut all);
            multiply_transposed::<Emulated, f32>(
                &a[5 * inner..38 * inner],
                &b[7 * inner..48 * inner],
                inner,
                &mut part,
            );
        }
        for (row, part) in part.chunks_exact(41).enumerate() {
            assert_eq!(part, &all[(row + 5) * columns + 7..][..41]);
        }
    }
}
