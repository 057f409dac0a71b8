//! Products of f32 matrices by tiles of bf16.
//!
//! Both operands are split into bf16 numbers (`split.rs`), and the products of their parts, but for the smallest, are summed in f32.
//! The right operand may be stored in 16 bits; then nothing of it is lost.

use std::cell::RefCell;

use super::split::{CHUNK, Split, Tile, pack_columns, pack_right, pack_rows};
use super::{LANES, ROW_BYTES, ROWS, Shape, TILES, Tiles};
use crate::kernel::pool::{self, Columns, Parts};

/// Tiles of the result that are computed at once, in both directions: two of each operand then make four.
const TOGETHER: usize = 2;

/// `y = x wᵀ` on all threads: `x` is `[rows, inner]`, `w` is `[columns, inner]`, `y` is `[rows, columns]`, of which a piece of work
/// computes `per_piece` columns.
///
/// # Safety
///
/// The processor must have the unit, and the system must permit it.
pub(crate) unsafe fn linear<T: Tiles, R: Split>(x: &[f32], w: &[R], inner: usize, per_piece: usize, y: &mut [f32]) {
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
pub(crate) unsafe fn multiply_transposed<T: Tiles, R: Split>(a: &[f32], b: &[R], inner: usize, c: &mut [f32]) {
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
pub(crate) unsafe fn multiply_add<T: Tiles, R: Split>(a: &[f32], b: &[R], columns: usize, c: &mut [f32]) {
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
    fn of<T: Split>(count: usize, inner: usize) -> Self {
        let mut packed = Self::default();
        packed.shape::<T>(count, inner);
        packed
    }

    /// Makes room for so many row or column tiles, to be packed anew.
    fn shape<T: Split>(&mut self, count: usize, inner: usize) {
        self.of_one = inner.div_ceil(CHUNK) * T::PARTS;
        self.tiles.resize(count * self.of_one, Tile::ZERO);
    }

    fn pack_rows(&mut self, numbers: &[f32], inner: usize) {
        let rows = numbers.len() / inner;
        self.shape::<f32>(rows.div_ceil(ROWS), inner);
        let of_tiles = numbers.chunks(ROWS * inner);
        of_tiles.zip(self.tiles.chunks_exact_mut(self.of_one)).for_each(|(rows, tiles)| pack_rows(rows, inner, tiles));
    }

    fn pack_columns<T: Split>(&mut self, numbers: &[T], inner: usize) {
        let columns = numbers.len() / inner;
        self.shape::<T>(columns.div_ceil(LANES), inner);
        let of_tiles = numbers.chunks(LANES * inner);
        of_tiles.zip(self.tiles.chunks_exact_mut(self.of_one)).for_each(|(rows, tiles)| pack_columns(rows, inner, tiles));
    }

    fn pack_right<T: Split>(&mut self, numbers: &[T], columns: usize) {
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
unsafe fn multiply<T: Tiles, R: Split>(left: &Packed, right: &Packed, target: Target) {
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
unsafe fn within<T: Tiles, R: Split, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
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
unsafe fn tiles<T: Tiles, R: Split, const TWO_ROWS: bool, const TWO_COLUMNS: bool>(
    unit: &mut T,
    a: [&[Tile]; TOGETHER],
    b: [&[Tile]; TOGETHER],
    Target { start, stride, accumulate, .. }: Target,
) {
    let orders = f32::PARTS.max(R::PARTS);
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
        for chunk in 0..a[0].len() / f32::PARTS {
            for of_left in 0..f32::PARTS {
                let a = a.map(|tiles| tiles[chunk * f32::PARTS + of_left].as_ptr());
                unit.load::<4>(a[0], ROW_BYTES);
                if TWO_ROWS {
                    unit.load::<5>(a[1], ROW_BYTES);
                }
                // Products of later parts are smaller than what the last parts lack.
                for of_right in 0..R::PARTS.min(orders - of_left) {
                    let b = b.map(|tiles| tiles[chunk * R::PARTS + of_right].as_ptr());
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

    /// `a bᵀ` in f64, and the same of magnitudes, which errors are relative to.
    fn reference<R: Split>(a: &[f32], b: &[R], inner: usize) -> Vec<[f64; 2]> {
        let product = |(&a, &b): (&f32, &R)| f64::from(a) * f64::from(b.widen());
        let dot = |a: &[f32], b: &[R]| {
            a.iter().zip(b).map(product).fold([0.0; 2], |[sum, size], x| [sum + x, size + x.abs()])
        };
        a.chunks_exact(inner).flat_map(|a| b.chunks_exact(inner).map(move |b| dot(a, b))).collect()
    }

    #[test]
    fn scratch_errors() {
        use crate::kernel::matmul;
        let gauss = |count: usize, seed: u64| -> Vec<f32> {
            let u: Vec<f32> = numbers(12 * count, seed);
            // scramble
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = move || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; (state >> 40) as f32 / (1u64 << 24) as f32 };
            let _ = u;
            (0..count).map(|_| (0..12).map(|_| next()).sum::<f32>() - 6.0).collect()
        };
        for (rows, inner, columns) in [(64usize, 64usize, 256usize), (64, 128, 256), (64, 576, 192), (64, 1536, 64), (64, 8192, 32)] {
            let (a, b) = (gauss(rows * inner, 1), gauss(columns * inner, 2));
            let exact = reference(&a, &b, inner);
            let mut y = vec![0.0; rows * columns];
            unsafe { linear::<Emulated, f32>(&a, &b, inner, 128, &mut y) };
            let f = matmul::linear(&a, &b, rows, inner, columns);
            let err = |y: &[f32]| {
                let (mut max, mut sq, mut norm) = (0.0f64, 0.0f64, 0.0f64);
                for (y, [e, size]) in y.iter().zip(&exact) { let d = (f64::from(*y) - e).abs(); max = max.max(d / size); sq += d * d; norm += e * e; }
                (max, (sq / norm).sqrt())
            };
            eprintln!("{rows}x{inner}x{columns}: tiles {:.2e} {:.2e}; f32 {:.2e} {:.2e}", err(&y).0, err(&y).1, err(&f).0, err(&f).1);
            let h: Vec<f16> = b.iter().map(|&x| f16::from_f32(x)).collect();
            let exact16 = reference(&a, &h, inner);
            unsafe { linear::<Emulated, f16>(&a, &h, inner, 128, &mut y) };
            let (mut max, mut sq, mut norm) = (0.0f64, 0.0f64, 0.0f64);
            for (y, [e, size]) in y.iter().zip(&exact16) { let d = (f64::from(*y) - e).abs(); max = max.max(d / size); sq += d * d; norm += e * e; }
            eprintln!("   f16: {max:.2e} {:.2e}", (sq / norm).sqrt());
        }
    }
}
