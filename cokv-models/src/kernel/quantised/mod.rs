//! Products with weights of 4, 5 and 8 bits: integers in blocks of 32 with a scale each, as GGUF's files have them.
//!
//! The other operand is rounded to 8 bits first, so that a block's dot product is one of integers, exact however it is
//! computed. Sums over blocks are made in the same order for any number of rows and threads: a row's result does not depend
//! on what it is computed beside.

mod activations;
mod format;
mod tile;

use half::f16;

pub use self::activations::Activations;
pub use self::format::Format;
use super::huge::{Huge, Plain};
use super::parts::{Columns, Parts};
use super::pool;

/// Numbers that share a scale.
pub const BLOCK: usize = 32;
/// Columns of the result that lie side by side in memory, one for each lane of the widest register.
const PANEL: usize = 16;
/// Numbers of one column that lie together: what one instruction multiplies and sums.
const QUAD: usize = 4;
/// Quads of a block.
const QUADS: usize = BLOCK / QUAD;
/// Panels of the result that one piece of parallel work computes.
const PANELS_PER_PIECE: usize = 4;

/// `w` of `y = x wᵀ`, `[columns, inner]`.
pub struct Weight {
    format: Format,
    columns: usize,
    inner: usize,
    /// `[panels, blocks, lines of a block]`, see [`block_lines`].
    quants: Huge<Line>,
    /// `[panels, blocks, PANEL]`
    scales: Huge<[f16; PANEL]>,
    /// `[panels, blocks, PANEL]`, empty where the format has none.
    minima: Huge<[f16; PANEL]>,
}

/// As much as the widest register holds, where it can be loaded from in one go: `[PANEL, QUAD]` bytes.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; PANEL * QUAD]);

// SAFETY: bytes, of which zeros are one, on lines of as many bytes as a line of memory has.
unsafe impl Plain for Line {}

/// Lines of a block. Of 8 bits, one for each quad. Of fewer, one for two quads, the second in the upper halves of its bytes;
/// then, of 5 bits, one with all fifth bits: of pair `p`, in bits `p` and `p + 4` of each byte.
const fn block_lines(bits: usize) -> usize {
    match bits {
        8 => QUADS,
        5 => QUADS / 2 + 1,
        _ => QUADS / 2,
    }
}

impl Weight {
    /// Rounds `[columns, inner]` numbers to 8 bits; rows are padded to whole blocks.
    pub fn quantise(numbers: &[f32], inner: usize) -> Self {
        Self::fill(Format::Q8_0, numbers.len() / inner, inner, |column, block| {
            let row = &numbers[column * inner..(column + 1) * inner];
            let numbers = &row[block * BLOCK..inner.min((block + 1) * BLOCK)];
            let largest = numbers.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
            let scale = largest / 127.0;
            let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
            let mut quants = [0x80; BLOCK];
            for (quant, x) in quants.iter_mut().zip(numbers) {
                *quant = ((x * inverse).round() as i8 as u8) ^ 0x80;
            }
            format::Block { scale: f16::from_f32(scale), minimum: f16::ZERO, quants }
        })
    }

    /// Takes a GGUF file's blocks. None where there are not as many as `[columns, inner]` numbers have.
    pub fn from_blocks(format: Format, bytes: &[u8], columns: usize, inner: usize) -> Option<Self> {
        let together = format.together();
        if !inner.is_multiple_of(BLOCK * together)
            || bytes.len() != columns * inner / (BLOCK * together) * format.file_bytes()
        {
            return None;
        }
        let blocks = inner / BLOCK;
        Some(Self::fill(format, columns, inner, |column, block| {
            let at = column * blocks + block;
            let start = at / together * format.file_bytes();
            format.unpack(&bytes[start..start + format.file_bytes()], at % together)
        }))
    }

    /// Lays the blocks of all columns out, on all threads. Columns beyond the last have scales of zero.
    fn fill(
        format: Format,
        columns: usize,
        inner: usize,
        block_of: impl Fn(usize, usize) -> format::Block + Sync,
    ) -> Self {
        let (panels, blocks) = (columns.div_ceil(PANEL), inner.div_ceil(BLOCK));
        let all = panels * blocks;
        let mut weight = Self {
            format,
            columns,
            inner,
            quants: Huge::zeros(all * block_lines(format.bits())),
            scales: Huge::zeros(all),
            minima: Huge::zeros(if format.has_minima() { all } else { 0 }),
        };
        let lines = block_lines(format.bits());
        let (quants, scales) = (Parts::of(&mut weight.quants), Parts::of(&mut weight.scales));
        let minima = Parts::of(&mut weight.minima);
        pool::for_each(panels, |panel| {
            let of_panel = panel * blocks..(panel + 1) * blocks;
            // SAFETY: every panel is filled once, and panels do not overlap.
            let (quants, scales, minima) = unsafe {
                (
                    quants.part(of_panel.start * lines..of_panel.end * lines),
                    scales.part(of_panel.clone()),
                    minima.part(if format.has_minima() { of_panel } else { 0..0 }),
                )
            };
            for (lane, column) in (panel * PANEL..columns.min((panel + 1) * PANEL)).enumerate() {
                for (block, quants) in quants.chunks_exact_mut(lines).enumerate() {
                    let values = block_of(column, block);
                    scales[block][lane] = values.scale;
                    if let Some(minima) = minima.get_mut(block) {
                        minima[lane] = values.minimum;
                    }
                    set_quants(quants, format.bits(), lane, &values.quants);
                }
            }
        });
        weight
    }

    /// The quants of one quad of all columns of a panel; `at` is the block's place among those of all panels.
    fn quad(&self, at: usize, quad: usize) -> Line {
        let bits = self.format.bits();
        let lines = &self.quants[at * block_lines(bits)..][..block_lines(bits)];
        if bits == 8 {
            return lines[quad];
        }
        let mut line = lines[quad / 2];
        for byte in &mut line.0 {
            *byte = *byte >> (quad % 2 * 4) & 15;
        }
        if let Some(fifth_bits) = lines.get(QUADS / 2) {
            for (byte, bits) in line.0.iter_mut().zip(fifth_bits.0) {
                *byte |= (bits >> (quad / 2 + quad % 2 * 4) & 1) << 4;
            }
        }
        line
    }

    fn blocks(&self) -> usize {
        self.inner.div_ceil(BLOCK)
    }

    fn panels(&self) -> usize {
        self.columns.div_ceil(PANEL)
    }

    /// Columns of the result.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Numbers of a row of the other operand.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.quants[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.minima[..])
    }

    /// Writes the numbers of one column, `[inner]`.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        let lane = column % PANEL;
        for (index, out) in out.chunks_mut(QUAD).enumerate() {
            let at = column / PANEL * self.blocks() + index / QUADS;
            let scale = self.scales[at][lane].to_f32();
            let minimum = self.minima.get(at).map_or(0.0, |minima| minima[lane].to_f32());
            let quants = &self.quad(at, index % QUADS).0[lane * QUAD..][..QUAD];
            for (out, &quant) in out.iter_mut().zip(quants) {
                *out = scale * (i32::from(quant) - self.format.offset()) as f32 + minimum;
            }
        }
    }

    /// `x wᵀ` on all threads, `[rows, columns]`.
    pub fn product(&self, x: &Activations) -> Vec<f32> {
        assert_eq!(x.inner(), self.inner, "operands of a product");
        let mut y = vec![0.0f32; x.rows() * self.columns];
        let out = Columns::of(&mut y, self.columns);
        pool::for_each(self.panels().div_ceil(PANELS_PER_PIECE), |piece| {
            let start = piece * PANELS_PER_PIECE;
            // SAFETY: the result has a row for each of `x`, and these panels are this piece's alone.
            unsafe { tile::panels(self, start..self.panels().min(start + PANELS_PER_PIECE), x, &out) };
        });
        y
    }
}

/// Writes one column's quants into the lines of a block, whose bits for it are zero.
fn set_quants(lines: &mut [Line], bits: usize, lane: usize, quants: &[u8; BLOCK]) {
    for (quad, quants) in quants.as_chunks::<QUAD>().0.iter().enumerate() {
        for (byte, &quant) in (lane * QUAD..).zip(quants) {
            match bits {
                8 => lines[quad].0[byte] = quant,
                _ => lines[quad / 2].0[byte] |= (quant & 15) << (quad % 2 * 4),
            }
            if bits == 5 {
                lines[QUADS / 2].0[byte] |= (quant >> 4) << (quad / 2 + quad % 2 * 4);
            }
        }
    }
}

#[cfg(test)]
mod tests;
