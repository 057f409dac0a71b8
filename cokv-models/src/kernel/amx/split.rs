//! Numbers as sums of bf16 numbers, packed to tiles.
//!
//! Each part is the bf16 number nearest to what the parts before leave, so that two have 16 or 17 bits of a number and three all of an
//! f32. An f16 is exact in two, a bf16 in one. Denormal parts count as zero: below 2^-110 or so a number loses its later parts.
//! Numbers that bf16 rounds to infinity (from 3.396e38 on) become NaN, as those do that are not finite: they show.

use std::arch::x86_64::*;

use super::{LANES, ROWS};
use crate::kernel::simd::{dispatch, has_avx512};
use crate::kernel::vector::Number;

/// Numbers that one product of tiles sums over.
pub(super) const CHUNK: usize = 2 * LANES;

/// A packed tile: of a left operand, `ROWS` rows of a chunk; of a right one, `LANES` pairs of rows, the pair's numbers of each
/// column together.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile([[u32; LANES]; ROWS]);

impl Tile {
    pub const ZERO: Self = Self([[0; LANES]; ROWS]);

    pub fn as_ptr(&self) -> *const u8 {
        (&raw const self.0).cast()
    }

    /// Swaps rows and columns of the numbers of 32 bits.
    fn transpose(&mut self) {
        if has_avx512() {
            // SAFETY: the processor has the features that the function is compiled for.
            return unsafe { self.transpose_avx512() };
        }
        self.transpose_plain();
    }

    fn transpose_plain(&mut self) {
        let Self(rows) = *self;
        self.0 = std::array::from_fn(|row| std::array::from_fn(|lane| rows[lane][row]));
    }

    #[target_feature(enable = "avx512f")]
    fn transpose_avx512(&mut self) {
        // SAFETY: a row is a register, and aligned like one, here and below.
        let mut rows = self.0.each_ref().map(|row| unsafe { _mm512_load_si512(row.as_ptr().cast()) });
        exchange::<8>(&mut rows);
        exchange::<4>(&mut rows);
        exchange::<2>(&mut rows);
        exchange::<1>(&mut rows);
        for (to, row) in self.0.iter_mut().zip(rows) {
            // SAFETY: as above.
            unsafe { _mm512_store_si512(to.as_mut_ptr().cast(), row) };
        }
    }
}

/// Swaps the bit of that value between the numbers of rows and lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn exchange<const BIT: usize>(rows: &mut [__m512i; ROWS]) {
    let of_second = |lane: usize| LANES + lane;
    let first: [_; LANES] =
        std::array::from_fn(|lane| if lane & BIT == 0 { lane } else { of_second(lane ^ BIT) } as i32);
    let second: [_; LANES] =
        std::array::from_fn(|lane| if lane & BIT == 0 { lane ^ BIT } else { of_second(lane) } as i32);
    // SAFETY: sixteen numbers are 512 bits.
    let [first, second] = [first, second].map(|lanes| unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) });
    for row in (0..ROWS).filter(|row| row & BIT == 0) {
        let (a, b) = (rows[row], rows[row + BIT]);
        rows[row] = _mm512_permutex2var_epi32(a, first, b);
        rows[row + BIT] = _mm512_permutex2var_epi32(a, second, b);
    }
}

#[inline(always)]
fn widened<T: Number, const N: usize>(numbers: &[T; N]) -> [f32; N] {
    let mut wide = [0.0; N];
    for (wide, number) in wide.iter_mut().zip(numbers) {
        *wide = number.widen();
    }
    wide
}

/// The nearest bf16 number, the even one of two, as the upper half of a number.
#[inline(always)]
fn nearest(x: f32) -> u32 {
    const HALF: u32 = 0x7fff;
    const UPPER: u32 = 0xffff_0000;
    const NAN: u32 = 0x7fc0_0000;
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(HALF + (bits >> 16 & 1)) & UPPER;
    if x.is_nan() { NAN } else { rounded }
}

/// Takes the next part of each number, and leaves what it lacks.
#[inline(always)]
fn next_part<const N: usize>(numbers: &mut [f32; N]) -> [u32; N] {
    let mut parts = [0; N];
    for (number, part) in numbers.iter_mut().zip(&mut parts) {
        *part = nearest(*number);
        *number -= f32::from_bits(*part);
    }
    parts
}

/// Their upper halves, two together, the first below.
#[inline(always)]
fn pairs(parts: [u32; CHUNK]) -> [u32; LANES] {
    let mut halves = [0u16; CHUNK];
    for (half, part) in halves.iter_mut().zip(parts) {
        *half = (part >> 16) as u16;
    }
    // SAFETY: as many bytes, any of which are numbers.
    unsafe { std::mem::transmute(halves) }
}

dispatch! {
    /// Packs up to `ROWS` rows of `inner` numbers as tiles of a left operand: `[chunks, parts]`, padded by zeros.
    pub fn pack_rows<T: Number>(rows: &[T], inner: usize, tiles: &mut [Tile]) = pack_rows_body
}

#[inline(always)]
fn pack_rows_body<const FMA: bool, T: Number>(rows: &[T], inner: usize, tiles: &mut [Tile]) {
    for (chunk, tiles) in tiles.chunks_exact_mut(T::BF16_PARTS).enumerate() {
        let start = chunk * CHUNK;
        let count = CHUNK.min(inner - start);
        for row in 0..ROWS {
            let mut chunk = [T::default(); CHUNK];
            if let Some(numbers) = rows.get(row * inner + start..row * inner + start + count) {
                match numbers.first_chunk() {
                    Some(whole) => chunk = *whole,
                    None => chunk[..count].copy_from_slice(numbers),
                }
            }
            let mut left = widened(&chunk);
            for tile in tiles.iter_mut() {
                tile.0[row] = pairs(next_part(&mut left));
            }
        }
    }
}

dispatch! {
    /// Packs up to `LANES` rows of `inner` numbers as columns of a right operand: `[chunks, parts]` tiles, padded by zeros.
    pub fn pack_columns<T: Number>(rows: &[T], inner: usize, tiles: &mut [Tile]) = pack_columns_body
}

#[inline(always)]
fn pack_columns_body<const FMA: bool, T: Number>(rows: &[T], inner: usize, tiles: &mut [Tile]) {
    pack_rows_body::<FMA, T>(rows, inner, tiles);
    tiles.iter_mut().for_each(Tile::transpose);
}

dispatch! {
    /// Packs up to `LANES` columns, from `column` on, of `[inner, columns]` numbers as tiles of a right operand:
    /// `[chunks, parts]`, padded by zeros.
    pub fn pack_right<T: Number>(numbers: &[T], columns: usize, column: usize, tiles: &mut [Tile]) = pack_right_body
}

#[inline(always)]
fn pack_right_body<const FMA: bool, T: Number>(numbers: &[T], columns: usize, column: usize, tiles: &mut [Tile]) {
    let count = LANES.min(columns - column);
    for (chunk, tiles) in tiles.chunks_exact_mut(T::BF16_PARTS).enumerate() {
        for pair in 0..LANES {
            let mut left = [0, 1].map(|of_pair| {
                let mut lanes = [T::default(); LANES];
                let start = (chunk * CHUNK + 2 * pair + of_pair) * columns + column;
                if let Some(numbers) = numbers.get(start..start + count) {
                    match numbers.first_chunk() {
                        Some(whole) => lanes = *whole,
                        None => lanes[..count].copy_from_slice(numbers),
                    }
                }
                widened(&lanes)
            });
            for tile in tiles.iter_mut() {
                let [even, odd] = left.each_mut().map(next_part);
                for (lane, (even, odd)) in tile.0[pair].iter_mut().zip(even.into_iter().zip(odd)) {
                    *lane = even >> 16 | odd;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use proptest::prelude::*;

    use super::*;

    fn parts(x: f32) -> [f32; 3] {
        let mut left = [x];
        std::array::from_fn(|_| f32::from_bits(next_part(&mut left)[0]))
    }

    proptest! {
        #[test]
        fn three_parts_are_a_number(x in prop::num::f32::NORMAL.prop_filter("not near the ends", |x| (1e-30..1e38).contains(&x.abs()))) {
            let [high, middle, low] = parts(x);
            prop_assert_eq!(high, bf16::from_f32(x).to_f32());
            prop_assert!(f64::from((x - high - middle).abs()) <= f64::from(x.abs()) * 2f64.powi(-17));
            prop_assert_eq!(f64::from(high) + f64::from(middle) + f64::from(low), f64::from(x));
        }
    }

    #[test]
    fn halves_are_exact_in_their_parts() {
        for half in (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()) {
            let [high, low, rest] = parts(half.to_f32());
            assert_eq!((high + low, rest), (half.to_f32(), 0.0));
        }
        for brain in (0..=u16::MAX).map(bf16::from_bits).filter(|brain| brain.is_finite()) {
            assert_eq!(parts(brain.to_f32()), [brain.to_f32(), 0.0, 0.0]);
        }
    }

    #[test]
    fn what_is_not_finite_shows() {
        for x in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xffff_ffff), f32::INFINITY, f32::MAX] {
            let [high, low, _] = parts(x);
            assert!((high + low).is_nan(), "{x}");
        }
    }

    #[test]
    fn transposing_swaps_rows_and_columns() {
        let mut tile = Tile(std::array::from_fn(|row| std::array::from_fn(|lane| (100 * row + lane) as u32)));
        for transpose in [Tile::transpose, Tile::transpose_plain] {
            let before = tile;
            transpose(&mut tile);
            for (row, lanes) in tile.0.iter().enumerate() {
                assert!(lanes.iter().enumerate().all(|(lane, &number)| number == before.0[lane][row]));
            }
        }
    }
}
