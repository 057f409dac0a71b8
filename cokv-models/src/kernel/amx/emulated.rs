//! The unit in plain Rust, as Intel's manual (Software Developer's Manual, volume 2, `TDPBSSD` and `TDPBF16PS`) writes its
//! instructions down.

use super::{LANES, ROW_BYTES, ROWS, Shape, TILES, Tiles};

/// Eight tiles.
pub(crate) struct Emulated {
    shapes: [Shape; TILES],
    tiles: [[[u8; ROW_BYTES]; ROWS]; TILES],
}

impl Emulated {
    fn row(&self, tile: usize, row: usize) -> [[u8; 4]; LANES] {
        std::array::from_fn(|lane| std::array::from_fn(|byte| self.tiles[tile][row][4 * lane + byte]))
    }

    fn set_row(&mut self, tile: usize, row: usize, numbers: [[u8; 4]; LANES]) {
        let bytes = usize::from(self.shapes[tile].row_bytes);
        self.tiles[tile][row][..bytes].copy_from_slice(&numbers.as_flattened()[..bytes]);
    }

    /// Rows of the result and numbers of 32 bits to sum over, of tiles that the processor would multiply.
    fn fitting(&self, c: usize, a: usize, b: usize) -> (usize, usize) {
        assert!(c != a && a != b && b != c, "three tiles");
        let [c, a, b] = [c, a, b].map(|tile| self.shapes[tile]);
        assert_eq!((c.rows, c.row_bytes), (a.rows, b.row_bytes), "the shape of a product");
        assert_eq!(usize::from(a.row_bytes), 4 * usize::from(b.rows), "the inner dimension of a product");
        (usize::from(c.rows), usize::from(b.rows))
    }
}

/// Denormal numbers are zero of their sign.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

impl Tiles for Emulated {
    unsafe fn configured(shapes: [Shape; TILES]) -> Self {
        let valid = |shape: &Shape| {
            (1..=ROWS).contains(&usize::from(shape.rows)) && (1..=ROW_BYTES).contains(&usize::from(shape.row_bytes))
        };
        assert!(shapes.iter().all(valid), "shapes of tiles");
        Self { shapes, tiles: [[[0; ROW_BYTES]; ROWS]; TILES] }
    }

    fn zero<const TILE: usize>(&mut self) {
        self.tiles[TILE] = [[0; ROW_BYTES]; ROWS];
    }

    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize) {
        let shape = self.shapes[TILE];
        for row in 0..usize::from(shape.rows) {
            let to = self.tiles[TILE][row].as_mut_ptr();
            // SAFETY: the caller has the row there, and a tile's row is at least as long.
            unsafe { std::ptr::copy_nonoverlapping(from.add(row * stride), to, usize::from(shape.row_bytes)) };
        }
    }

    unsafe fn store<const TILE: usize>(&self, to: *mut u8, stride: usize) {
        let shape = self.shapes[TILE];
        for row in 0..usize::from(shape.rows) {
            let from = self.tiles[TILE][row].as_ptr();
            // SAFETY: the caller has room for the row there, and a tile's row is at least as long.
            unsafe { std::ptr::copy_nonoverlapping(from, to.add(row * stride), usize::from(shape.row_bytes)) };
        }
    }

    fn multiply_bytes<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (rows, inner) = self.fitting(C, A, B);
        for m in 0..rows {
            let a = self.row(A, m);
            let mut sums = self.row(C, m).map(i32::from_le_bytes);
            for (k, a) in a.iter().enumerate().take(inner) {
                for (sum, b) in sums.iter_mut().zip(self.row(B, k)) {
                    let products = a.iter().zip(b).map(|(&a, b)| i32::from(a as i8) * i32::from(b as i8));
                    *sum = sum.wrapping_add(products.sum());
                }
            }
            self.set_row(C, m, sums.map(i32::to_le_bytes));
        }
    }

    fn multiply_bf16<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (rows, inner) = self.fitting(C, A, B);
        let pair =
            |[a, b, c, d]: [u8; 4]| [[a, b], [c, d]].map(|[low, high]| flushed(f32::from_le_bytes([0, 0, low, high])));
        for m in 0..rows {
            let a = self.row(A, m).map(pair);
            let mut sums = [[0.0f32; 2]; LANES];
            for (k, a) in a.iter().enumerate().take(inner) {
                for (sums, b) in sums.iter_mut().zip(self.row(B, k).map(pair)) {
                    for parity in 0..2 {
                        sums[parity] = flushed(a[parity].mul_add(b[parity], sums[parity]));
                    }
                }
            }
            let mut c = self.row(C, m).map(f32::from_le_bytes);
            for (c, [even, odd]) in c.iter_mut().zip(sums) {
                *c = flushed(flushed(*c) + flushed(even + odd));
            }
            self.set_row(C, m, c.map(f32::to_le_bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows by two numbers of 32 bits, times two by five.
    const SHAPES: [Shape; TILES] = {
        let mut shapes = [Shape::WHOLE; TILES];
        shapes[0] = Shape { rows: 3, row_bytes: 20 };
        shapes[1] = Shape { rows: 3, row_bytes: 8 };
        shapes[2] = Shape { rows: 2, row_bytes: 20 };
        shapes
    };

    #[test]
    fn bytes_are_signed_and_sums_exact() {
        let a: [i8; 24] = std::array::from_fn(|i| if i % 3 == 0 { -128 } else { ((i * 11) as i8).wrapping_sub(100) });
        let b: [i8; 40] = std::array::from_fn(|i| if i % 7 == 0 { 127 } else { ((i * 5) as i8).wrapping_sub(90) });
        let mut c = [[3i32; 6]; 3];
        // SAFETY: rows of 8, 20 and 24 bytes lie in the arrays.
        unsafe {
            let mut unit = Emulated::configured(SHAPES);
            unit.load::<1>(a.as_ptr().cast(), 8);
            unit.load::<2>(b.as_ptr().cast(), 20);
            unit.load::<0>(c.as_ptr().cast(), 24);
            unit.multiply_bytes::<0, 1, 2>();
            unit.store::<0>(c.as_mut_ptr().cast(), 24);
        }
        for (m, c) in c.iter().enumerate() {
            for (n, &c) in c.iter().take(5).enumerate() {
                // `b` has rows of five columns, of which each has four numbers.
                let product = |k: usize| i32::from(a[m * 8 + k]) * i32::from(b[k / 4 * 20 + n * 4 + k % 4]);
                assert_eq!(c, 3 + (0..8).map(product).sum::<i32>());
            }
            assert_eq!(c[5], 3, "what lies beside the tile");
        }
    }

    /// A row of one pair times one column, added to `c`.
    fn pair(a: [f32; 2], b: [f32; 2], mut c: f32) -> f32 {
        let bf16 = |pair: [f32; 2]| pair.map(half::bf16::from_f32);
        let (a, b) = (bf16(a), bf16(b));
        let shapes = [Shape { rows: 1, row_bytes: 4 }; TILES];
        // SAFETY: four bytes lie at each address.
        unsafe {
            let mut unit = Emulated::configured(shapes);
            unit.load::<3>(a.as_ptr().cast(), 64);
            unit.load::<4>(b.as_ptr().cast(), 64);
            unit.load::<5>((&raw const c).cast(), 64);
            unit.multiply_bf16::<5, 3, 4>();
            unit.store::<5>((&raw mut c).cast(), 64);
        }
        c
    }

    #[test]
    fn pairs_are_summed_before_the_rest_and_denormal_numbers_are_zero() {
        // Half a unit in the last place of 2^25 is 2.
        let large = (1u32 << 25) as f32;
        assert_eq!(pair([1.0, 1.0], [1.5, 1.5], large), large + 4.0);
        assert_eq!(pair([1.0, 1.0], [1.0, 1.0], large), large, "half a unit goes to the even number");
        let small = f32::MIN_POSITIVE;
        assert_eq!(pair([small, 0.0], [0.5, 0.0], 1e-30), 1e-30);
        assert_eq!(pair([small / 2.0, 0.0], [4.0, 0.0], 0.0), 0.0);
        assert_eq!(pair([small, 0.0], [1.0, 0.0], small / 2.0), small);
        assert!(pair([f32::NAN, 0.0], [1.0, 0.0], 0.0).is_nan());
    }
}
