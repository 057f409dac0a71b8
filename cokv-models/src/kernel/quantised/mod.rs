//! Products with weights of 2 to 6 and of 8 bits: integers in blocks of 32 with a scale or two each, as GGUF's files have them.
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

/// Numbers of the other operand that share a scale.
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
    /// `[panels, blocks, lines of a block]`: as many lines as bits, see [`set_quants`].
    quants: Huge<Line>,
    /// `[panels, blocks, spans, PANEL]`
    scales: Huge<[f16; PANEL]>,
    /// `[panels, blocks, spans, PANEL]`, empty where the format has none.
    minima: Huge<[f16; PANEL]>,
}

/// As much as the widest register holds, where it can be loaded from in one go: `[PANEL, QUAD]` bytes.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; PANEL * QUAD]);

// SAFETY: bytes, of which zeros are one, on lines of as many bytes as a line of memory has.
unsafe impl Plain for Line {}

/// The lines of a block that hold nibbles, if it has them: these, and those that follow.
const NIBBLE_LINES: usize = 4;

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
            format::Block { scales: [f16::from_f32(scale), f16::ZERO], quants, ..format::Block::default() }
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
        let (lines, spans) = (format.bits(), format.spans());
        let all = panels * blocks * spans;
        let mut weight = Self {
            format,
            columns,
            inner,
            quants: Huge::zeros(panels * blocks * lines),
            scales: Huge::zeros(all),
            minima: Huge::zeros(if format.has_minima() { all } else { 0 }),
        };
        let (quants, scales) = (Parts::of(&mut weight.quants), Parts::of(&mut weight.scales));
        let minima = Parts::of(&mut weight.minima);
        pool::for_each(panels, |panel| {
            let of_panel = |each: usize| panel * blocks * each..(panel + 1) * blocks * each;
            // SAFETY: every panel is filled once, and panels do not overlap.
            let (quants, scales, minima) = unsafe {
                (
                    quants.part(of_panel(lines)),
                    scales.part(of_panel(spans)),
                    minima.part(if format.has_minima() { of_panel(spans) } else { 0..0 }),
                )
            };
            for (lane, column) in (panel * PANEL..columns.min((panel + 1) * PANEL)).enumerate() {
                for (block, quants) in quants.chunks_exact_mut(lines).enumerate() {
                    let values = block_of(column, block);
                    for span in 0..spans {
                        scales[block * spans + span][lane] = values.scales[span];
                        if let Some(minima) = minima.get_mut(block * spans + span) {
                            minima[lane] = values.minima[span];
                        }
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
        let mut lines = &self.quants[at * bits..][..bits];
        if bits == 8 {
            return lines[quad];
        }
        let (pair, upper) = (quad / 2, quad % 2 * 4);
        let mut line = Line([0; PANEL * QUAD]);
        let mut done = 0;
        if bits & 4 != 0 {
            line.add(lines[pair], upper, 15, done);
            lines = &lines[NIBBLE_LINES..];
            done += 4;
        }
        if bits & 2 != 0 {
            line.add(lines[pair / 2], pair % 2 * 2 + upper, 3, done);
            lines = &lines[2..];
            done += 2;
        }
        if bits & 1 != 0 {
            line.add(lines[0], pair + upper, 1, done);
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
            let spans = self.format.spans();
            let span = at * spans + index % QUADS * spans / QUADS;
            let scale = self.scales[span][lane].to_f32();
            let minimum = self.minima.get(span).map_or(0.0, |minima| minima[lane].to_f32());
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

impl Line {
    /// Sets bits of every byte, from `to` on, to those of another line's bytes from `from` on.
    fn add(&mut self, other: Self, from: usize, mask: u8, to: usize) {
        self.0.iter_mut().zip(other.0).for_each(|(byte, other)| *byte |= (other >> from & mask) << to);
    }
}

/// Writes one column's quants into the lines of a block.
///
/// Of 8 bits there is a line for each quad. Fewer bits are fours, twos and ones, each in lines of their own, the lowest bits in the
/// first. Quads come in pairs, the second of a pair four bits above the first: a line of fours has a pair, one of twos two of
/// them, two bits apart, and one of ones all four, a bit apart.
fn set_quants(lines: &mut [Line], bits: usize, lane: usize, quants: &[u8; BLOCK]) {
    let quads: [u32; QUADS] = std::array::from_fn(|quad| u32::from_le_bytes(quants.as_chunks::<QUAD>().0[quad]));
    let mut set = |line: usize, word: u32| {
        lines[line].0[lane * QUAD..][..QUAD].copy_from_slice(&word.to_le_bytes());
    };
    if bits == 8 {
        (0..QUADS).for_each(|quad| set(quad, quads[quad]));
        return;
    }
    // The lowest bits of each byte of a pair, from the `skipped`th on.
    let of_pair = |pair: usize, skipped: usize, mask: u8| {
        let every = u32::from_le_bytes([mask; QUAD]);
        quads[2 * pair] >> skipped & every | (quads[2 * pair + 1] >> skipped & every) << 4
    };
    let (mut first, mut done) = (0, 0);
    if bits & 4 != 0 {
        (0..NIBBLE_LINES).for_each(|pair| set(pair, of_pair(pair, 0, 15)));
        (first, done) = (NIBBLE_LINES, 4);
    }
    if bits & 2 != 0 {
        for line in 0..2 {
            set(first + line, of_pair(2 * line, done, 3) | of_pair(2 * line + 1, done, 3) << 2);
        }
        (first, done) = (first + 2, done + 2);
    }
    if bits & 1 != 0 {
        set(first, (0..QUADS / 2).fold(0, |word, pair| word | of_pair(pair, done, 1) << pair));
    }
}

#[cfg(test)]
mod tests;
