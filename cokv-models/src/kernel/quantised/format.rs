//! How GGUF's files write numbers of 4, 5 and 8 bits.
//!
//! A number is `scale (quant - offset) + minimum`, with a quant of no sign, and a scale and perhaps a minimum for each block
//! of 32. Files have blocks as they are, or (K-quants) eight together, whose scales and minima are products of two numbers:
//! those are rounded to 16 bits, by about a hundredth of a step of the quants.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::BLOCK;

/// GGUF's kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names that GGUF gives them")]
pub enum Format {
    /// 4 bits.
    Q4_0,
    /// 4 bits and a minimum.
    Q4_1,
    /// 4 bits and a minimum, eight blocks together.
    Q4_K,
    /// 5 bits.
    Q5_0,
    /// 5 bits and a minimum.
    Q5_1,
    /// 5 bits and a minimum, eight blocks together.
    Q5_K,
    /// 8 bits.
    Q8_0,
}

/// A block, unpacked.
pub(super) struct Block {
    pub scale: f16,
    /// Zero where the format has none.
    pub minimum: f16,
    pub quants: [u8; BLOCK],
}

impl Format {
    /// By candle's name; none for what is not written so.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        match dtype {
            GgmlDType::Q4_0 => Some(Self::Q4_0),
            GgmlDType::Q4_1 => Some(Self::Q4_1),
            GgmlDType::Q4K => Some(Self::Q4_K),
            GgmlDType::Q5_0 => Some(Self::Q5_0),
            GgmlDType::Q5_1 => Some(Self::Q5_1),
            GgmlDType::Q5K => Some(Self::Q5_K),
            GgmlDType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Bits of a quant.
    pub(super) const fn bits(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q8_0 => 8,
        }
    }

    /// Whether blocks have a minimum.
    pub(super) const fn has_minima(self) -> bool {
        !matches!(self, Self::Q4_0 | Self::Q5_0 | Self::Q8_0)
    }

    /// What is taken from a quant: half of what its bits can count, unless there are minima.
    pub(super) const fn offset(self) -> i32 {
        if self.has_minima() { 0 } else { 1 << (self.bits() - 1) }
    }

    /// Blocks that lie together in a file.
    pub(super) const fn together(self) -> usize {
        match self {
            Self::Q4_K | Self::Q5_K => TOGETHER,
            _ => 1,
        }
    }

    /// Bytes of as many blocks in a file: a scale and a minimum (K-quants: one of each for all, then those of each block
    /// in 6 bits), the fifth bits, the other bits.
    pub(super) const fn file_bytes(self) -> usize {
        let halves = if self.has_minima() { 4 } else { 2 };
        let of_blocks = if self.together() > 1 { SCALE_BYTES } else { 0 };
        halves + of_blocks + self.together() * self.bits() * BLOCK / 8
    }

    /// Bytes of a block in memory: the quants, a scale and perhaps a minimum.
    pub const fn block_bytes(self) -> usize {
        let halves = if self.has_minima() { 4 } else { 2 };
        halves + self.bits() * BLOCK / 8
    }

    /// Unpacks one of the blocks of [`Format::file_bytes`] of a file.
    pub(super) fn unpack(self, bytes: &[u8], block: usize) -> Block {
        let (scale, mut rest) = half(bytes);
        let mut minimum = f16::ZERO;
        if self.has_minima() {
            (minimum, rest) = half(rest);
        }
        let mut quants = [0; BLOCK];
        match self {
            Self::Q8_0 => {
                for (quant, byte) in quants.iter_mut().zip(rest) {
                    *quant = byte ^ 0x80;
                }
                Block { scale, minimum, quants }
            }
            Self::Q4_K | Self::Q5_K => {
                let (of_blocks, rest) = rest.split_at(SCALE_BYTES);
                let (fifth_bits, nibbles) = rest.split_at(rest.len() - TOGETHER * BLOCK / 2);
                // A byte has two numbers of blocks that follow each other.
                for (at, quant) in quants.iter_mut().enumerate() {
                    let fifth = fifth_bits.get(at).map_or(0, |bits| bits >> block & 1);
                    *quant = nibbles[block / 2 * BLOCK + at] >> (block % 2 * 4) & 15 | fifth << 4;
                }
                let product = |a: f16, b: u8| f16::from_f32(a.to_f32() * f32::from(b));
                let (of_scale, of_minimum) = six_bits(of_blocks, block);
                Block { scale: product(scale, of_scale), minimum: -product(minimum, of_minimum), quants }
            }
            _ => {
                let (fifth_bits, nibbles) = rest.split_at(rest.len() - BLOCK / 2);
                // A byte has two numbers of the block's halves.
                for (at, quant) in quants.iter_mut().enumerate() {
                    let fifth = fifth_bits.get(at / 8).map_or(0, |bits| bits >> (at % 8) & 1);
                    *quant = nibbles[at % (BLOCK / 2)] >> (at / (BLOCK / 2) * 4) & 15 | fifth << 4;
                }
                Block { scale, minimum, quants }
            }
        }
    }
}

/// Blocks of a K-quant that lie together.
const TOGETHER: usize = 8;
/// Bytes of their scales and minima.
const SCALE_BYTES: usize = 12;

/// Scale and minimum of one of eight blocks: the first four lie in the lower bits of the first eight bytes, the last four in
/// the halves of the last four bytes and the upper bits of the others.
fn six_bits(bytes: &[u8], block: usize) -> (u8, u8) {
    match block {
        0..4 => (bytes[block] & 63, bytes[block + 4] & 63),
        _ => {
            let low = bytes[block + 4];
            (low & 15 | bytes[block - 4] >> 6 << 4, low >> 4 | bytes[block] >> 6 << 4)
        }
    }
}

fn half(bytes: &[u8]) -> (f16, &[u8]) {
    let (half, rest) = bytes.split_at(2);
    (f16::from_le_bytes([half[0], half[1]]), rest)
}
