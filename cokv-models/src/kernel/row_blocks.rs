//! Rows of numbers in 8 or 4 bits, 32 of them with one scale.

use std::ops::Range;

use half::f16;

use super::simd::dispatch;

/// Numbers with one scale.
pub const BLOCK: usize = 32;

/// Bits of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bits {
    /// `q · scale`, q from −127 to 127: the block's largest number is ±127.
    Eight,
    /// `minimum + q · step`, q from 0 to 15.
    Four,
}

/// Rows of `width` numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct RowBlocks {
    bits: Bits,
    width: usize,
    /// Of each block of each row: its scale or step, and where numbers have four bits its minimum.
    scales: Vec<f16>,
    /// Row after row; two numbers of four bits in a byte, the first in the lower half.
    quants: Vec<u8>,
}

impl RowBlocks {
    /// No rows, with room for some.
    pub fn with_capacity(bits: Bits, width: usize, rows: usize) -> Self {
        let mut empty = Self { bits, width, scales: Vec::new(), quants: Vec::new() };
        empty.reserve_exact(rows * width);
        empty
    }

    fn row_scales(&self) -> usize {
        self.width.div_ceil(BLOCK) * if self.bits == Bits::Four { 2 } else { 1 }
    }

    fn row_quants(&self) -> usize {
        match self.bits {
            Bits::Eight => self.width,
            Bits::Four => self.width / BLOCK * (BLOCK / 2) + (self.width % BLOCK).div_ceil(2),
        }
    }

    /// Numbers stored.
    pub fn len(&self) -> usize {
        self.quants.len() / self.row_quants() * self.width
    }

    /// Numbers that there is room for.
    pub fn capacity(&self) -> usize {
        let rows = (self.quants.capacity() / self.row_quants()).min(self.scales.capacity() / self.row_scales());
        rows * self.width
    }

    /// Bytes of the buffers, room included.
    pub fn allocated_bytes(&self) -> usize {
        self.quants.capacity() + size_of::<f16>() * self.scales.capacity()
    }

    /// Makes room for this many more numbers, whole rows, and no more.
    pub fn reserve_exact(&mut self, numbers: usize) {
        let rows = numbers / self.width;
        self.quants.reserve_exact(rows * self.row_quants());
        self.scales.reserve_exact(rows * self.row_scales());
    }

    /// Drops all but the first numbers, whole rows.
    pub fn truncate(&mut self, numbers: usize) {
        let rows = numbers / self.width;
        self.quants.truncate(rows * self.row_quants());
        self.scales.truncate(rows * self.row_scales());
    }

    /// Rounds whole rows.
    pub fn extend(&mut self, numbers: &[f32]) {
        for block in numbers.chunks_exact(self.width).flat_map(|row| row.chunks(BLOCK)) {
            match self.bits {
                Bits::Eight => {
                    let most = block.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let scale = f16::from_f32(most / 127.0);
                    let inverse = reciprocal(scale);
                    self.scales.push(scale);
                    self.quants.extend(block.iter().map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8));
                }
                Bits::Four => {
                    let ends = block
                        .iter()
                        .fold([f32::INFINITY, f32::NEG_INFINITY], |[low, high], &x| [low.min(x), high.max(x)]);
                    let minimum = f16::from_f32(ends[0]);
                    let step = f16::from_f32((ends[1] - minimum.to_f32()) / 15.0);
                    let (low, inverse) = (minimum.to_f32(), reciprocal(step));
                    let quant = |x: &f32| ((x - low) * inverse).round().clamp(0.0, 15.0) as u8;
                    self.scales.extend([step, minimum]);
                    let pair = |pair: &[f32]| quant(&pair[0]) | pair.get(1).map_or(0, quant) << 4;
                    self.quants.extend(block.chunks(2).map(pair));
                }
            }
        }
    }

    /// Copies a range of another's numbers, whole rows, behind one's own.
    pub fn append(&mut self, from: &Self, numbers: Range<usize>) {
        let rows = numbers.start / self.width..numbers.end / self.width;
        let part = |of_row: usize| rows.start * of_row..rows.end * of_row;
        self.scales.extend_from_slice(&from.scales[part(self.row_scales())]);
        self.quants.extend_from_slice(&from.quants[part(self.row_quants())]);
    }

    /// A copy of some rows that takes exactly their memory.
    pub fn gather(&self, rows: &[u32]) -> Self {
        let mut gathered = Self::with_capacity(self.bits, self.width, rows.len());
        for &row in rows {
            let row = row as usize;
            gathered.append(self, row * self.width..(row + 1) * self.width);
        }
        gathered
    }

    /// A range of numbers, whole rows, as f32.
    pub fn widen(&self, numbers: Range<usize>, out: &mut [f32]) {
        let rows = numbers.start / self.width..numbers.end / self.width;
        let (of_scales, of_quants) = (self.row_scales(), self.row_quants());
        for (row, out) in rows.zip(out.chunks_exact_mut(self.width)) {
            let scales = &self.scales[row * of_scales..(row + 1) * of_scales];
            let quants = &self.quants[row * of_quants..(row + 1) * of_quants];
            match self.bits {
                Bits::Eight => {
                    for ((scale, quants), out) in scales.iter().zip(quants.chunks(BLOCK)).zip(out.chunks_mut(BLOCK)) {
                        widen_eight(quants, scale.to_f32(), out);
                    }
                }
                Bits::Four => {
                    let blocks = scales.chunks_exact(2).zip(quants.chunks(BLOCK / 2));
                    for ((scales, quants), out) in blocks.zip(out.chunks_mut(BLOCK)) {
                        widen_four(quants, scales[0].to_f32(), scales[1].to_f32(), out);
                    }
                }
            }
        }
    }
}

/// 0 where there is nothing to divide by: all numbers of the block are alike then.
fn reciprocal(scale: f16) -> f32 {
    let scale = scale.to_f32();
    if scale > 0.0 { scale.recip() } else { 0.0 }
}

dispatch! {
    /// A block of 8 bits.
    pub fn widen_eight(quants: &[u8], scale: f32, out: &mut [f32]) = widen_eight_body
}

dispatch! {
    /// A block of 4 bits.
    pub fn widen_four(quants: &[u8], step: f32, minimum: f32, out: &mut [f32]) = widen_four_body
}

#[inline(always)]
fn widen_eight_body<const FMA: bool>(quants: &[u8], scale: f32, out: &mut [f32]) {
    out.iter_mut().zip(quants).for_each(|(out, &quant)| *out = f32::from(quant as i8) * scale);
}

#[inline(always)]
fn widen_four_body<const FMA: bool>(quants: &[u8], step: f32, minimum: f32, out: &mut [f32]) {
    for (pair, &quants) in out.chunks_mut(2).zip(quants) {
        pair[0] = f32::from(quants & 15) * step + minimum;
        if let Some(second) = pair.get_mut(1) {
            *second = f32::from(quants >> 4) * step + minimum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize, width: usize) -> Vec<f32> {
        (0..count * width).map(|at| (at as f32 * 0.77).sin() * (1.0 + (at % 7) as f32)).collect()
    }

    /// Largest difference of a row's numbers from what is stored of it, in parts of what its blocks span.
    fn worst(bits: Bits, width: usize) -> f32 {
        let numbers = rows(9, width);
        let mut blocks = RowBlocks::with_capacity(bits, width, 9);
        blocks.extend(&numbers);
        let mut widened = vec![f32::NAN; numbers.len()];
        blocks.widen(0..numbers.len(), &mut widened);
        let spans = numbers.chunks_exact(width).flat_map(|row| row.chunks(BLOCK)).flat_map(|block| {
            let ends = block.iter().fold([0f32, 0f32], |[low, high], &x| [low.min(x), high.max(x)]);
            std::iter::repeat_n(ends[1] - ends[0], block.len())
        });
        let differences = numbers.iter().zip(&widened).map(|(a, b)| (a - b).abs());
        differences.zip(spans).map(|(difference, span)| difference / span).fold(0.0, f32::max)
    }

    #[test]
    fn numbers_come_back_to_half_a_step() {
        for width in [1, 2, 31, 32, 64, 80, 128] {
            assert!(worst(Bits::Eight, width) < 0.5 / 127.0 * 1.1, "{width} in 8 bits: {}", worst(Bits::Eight, width));
            assert!(worst(Bits::Four, width) < 0.5 / 15.0 * 1.1, "{width} in 4 bits: {}", worst(Bits::Four, width));
        }
    }

    #[test]
    fn rows_that_are_rounded_again_stay_as_they_are() {
        for bits in [Bits::Eight, Bits::Four] {
            let mut once = RowBlocks::with_capacity(bits, 64, 5);
            once.extend(&rows(5, 64));
            let mut widened = vec![0.0; 5 * 64];
            once.widen(0..5 * 64, &mut widened);
            let mut twice = RowBlocks::with_capacity(bits, 64, 5);
            twice.extend(&widened);
            assert_eq!(once, twice);
        }
    }

    #[test]
    fn rows_are_copied_as_they_are_stored() {
        for (bits, width) in [(Bits::Eight, 64), (Bits::Four, 64), (Bits::Four, 33)] {
            let mut all = RowBlocks::with_capacity(bits, width, 4);
            all.extend(&rows(4, width));
            let picked = all.gather(&[1, 3]);
            let mut other = RowBlocks::with_capacity(bits, width, 2);
            other.append(&all, width..2 * width);
            other.append(&all, 3 * width..4 * width);
            assert_eq!((&picked, picked.len()), (&other, 2 * width));
            other.truncate(width);
            assert_eq!(other, all.gather(&[1]));
        }
    }

    #[test]
    fn what_is_all_alike_is_exact() {
        for bits in [Bits::Eight, Bits::Four] {
            let mut blocks = RowBlocks::with_capacity(bits, 32, 2);
            blocks.extend(&[0.0; 32]);
            blocks.extend(&[0.5; 32]);
            let mut widened = [f32::NAN; 64];
            blocks.widen(0..64, &mut widened);
            assert_eq!(widened[..32], [0.0; 32]);
            assert!(widened[32..].iter().all(|x| (x - 0.5).abs() < 1e-3), "{widened:?}");
        }
    }
}
