//! Products with weights of 8 bits: integers in blocks of 32 with a scale each, as GGUF's Q8_0 has them.
//!
//! The other operand is rounded to the same form first, so that a block's dot product is one of integers, exact however
//! it is computed. Sums over blocks are made in the same order for any number of rows and threads: a row's result does not
//! depend on what it is computed beside.

mod activations;
mod tile;

use half::f16;

pub use self::activations::Activations;
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
    columns: usize,
    inner: usize,
    /// `[panels, blocks, QUADS]`, and in each line `[PANEL, QUAD]`; 128 more than the number that is meant.
    quants: Vec<Line>,
    /// `[panels, blocks, PANEL]`
    scales: Vec<[f16; PANEL]>,
}

/// As much as the widest register holds, where it can be loaded from in one go.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u8; PANEL * QUAD]);

impl Weight {
    /// Rounds `[columns, inner]` numbers; rows are padded to whole blocks.
    pub fn quantise(numbers: &[f32], inner: usize) -> Self {
        let mut weight = Self::zeros(numbers.len() / inner, inner);
        for (column, row) in numbers.chunks_exact(inner).enumerate() {
            for (block, numbers) in row.chunks(BLOCK).enumerate() {
                let largest = numbers.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let scale = largest / 127.0;
                let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
                let quants = numbers.iter().map(|x| (x * inverse).round() as i8);
                weight.set_block(column, block, f16::from_f32(scale), quants);
            }
        }
        weight
    }

    /// Takes GGUF's blocks as they are: of each its scale, then 32 signed bytes. None where there are not as many as
    /// `[columns, inner]` numbers have.
    pub fn from_blocks(bytes: &[u8], columns: usize, inner: usize) -> Option<Self> {
        const BYTES: usize = 2 + BLOCK;
        if !inner.is_multiple_of(BLOCK) || bytes.len() != columns * inner / BLOCK * BYTES {
            return None;
        }
        let mut weight = Self::zeros(columns, inner);
        for (index, block) in bytes.chunks_exact(BYTES).enumerate() {
            let scale = f16::from_le_bytes([block[0], block[1]]);
            let quants = block[2..].iter().map(|&byte| byte as i8);
            weight.set_block(index / weight.blocks(), index % weight.blocks(), scale, quants);
        }
        Some(weight)
    }

    fn zeros(columns: usize, inner: usize) -> Self {
        let blocks = columns.div_ceil(PANEL) * inner.div_ceil(BLOCK);
        Self {
            columns,
            inner,
            quants: vec![Line([128; PANEL * QUAD]); blocks * QUADS],
            scales: vec![[f16::ZERO; PANEL]; blocks],
        }
    }

    fn set_block(&mut self, column: usize, block: usize, scale: f16, quants: impl Iterator<Item = i8>) {
        let at = column / PANEL * self.blocks() + block;
        let lane = column % PANEL;
        self.scales[at][lane] = scale;
        for (index, quant) in quants.enumerate() {
            self.quants[at * QUADS + index / QUAD].0[lane * QUAD + index % QUAD] = (quant as u8) ^ 0x80;
        }
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
        size_of_val(&self.quants[..]) + size_of_val(&self.scales[..])
    }

    /// Writes the numbers of one column, `[inner]`.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        let lane = column % PANEL;
        for (block, out) in out.chunks_mut(BLOCK).enumerate() {
            let at = column / PANEL * self.blocks() + block;
            let scale = self.scales[at][lane].to_f32();
            for (index, out) in out.iter_mut().enumerate() {
                let byte = self.quants[at * QUADS + index / QUAD].0[lane * QUAD + index % QUAD];
                *out = scale * f32::from((byte ^ 0x80) as i8);
            }
        }
    }

    /// `x wᵀ` on all threads, `[rows, columns]`.
    pub fn product(&self, x: &Activations) -> Vec<f32> {
        assert_eq!(x.inner(), self.inner, "operands of a product");
        let mut y = vec![0.0f32; x.rows() * self.columns];
        let out = Columns { data: y.as_mut_ptr(), stride: self.columns };
        pool::for_each(self.panels().div_ceil(PANELS_PER_PIECE), |piece| {
            let start = piece * PANELS_PER_PIECE;
            // SAFETY: `y` has all rows and columns, and these panels are this piece's alone.
            unsafe { tile::panels(self, start..self.panels().min(start + PANELS_PER_PIECE), x, &out) };
        });
        y
    }
}

/// Where the pieces of one product write, each its own columns.
struct Columns {
    data: *mut f32,
    /// Elements of a row.
    stride: usize,
}
// SAFETY: every piece writes its own columns only.
unsafe impl Sync for Columns {}

impl Columns {
    /// Writes the part of `values` that lies within the row.
    ///
    /// # Safety
    ///
    /// The row must exist, and nothing else may look at these columns meanwhile.
    unsafe fn write(&self, row: usize, column: usize, values: &[f32; PANEL]) {
        let count = PANEL.min(self.stride - column);
        // SAFETY: `count` elements from `column` on lie within the row, which the caller vouches for.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.data.add(row * self.stride + column), count) };
    }
}

#[cfg(test)]
mod tests;
