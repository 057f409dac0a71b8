//! How GGUF's files write numbers of 2 to 6 and of 8 bits.
//!
//! A number is `scale (quant - offset) + minimum`, with a quant of no sign, and a scale and perhaps a minimum for each span: a
//! block of 32, or half of one. Files have blocks as they are, or (K-quants) eight together, whose scales and minima are
//! products of two numbers: those are rounded to 16 bits, by about a hundredth of a step of the quants.

use candle_core::quantized::GgmlDType;
use half::f16;

use super::BLOCK;

/// GGUF's kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names that GGUF gives them")]
pub enum Format {
    /// 2 bits and a minimum, eight blocks together, of two spans each.
    Q2_K,
    /// 3 bits, eight blocks together, of two spans each.
    Q3_K,
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
    /// 6 bits, eight blocks together, of two spans each.
    Q6_K,
    /// 8 bits.
    Q8_0,
}

/// Spans of a block, at most.
pub(super) const MOST_SPANS: usize = 2;

/// A block, unpacked. What a format has no use for is zero.
#[derive(Default)]
pub(super) struct Block {
    pub scales: [f16; MOST_SPANS],
    pub minima: [f16; MOST_SPANS],
    pub quants: [u8; BLOCK],
}

impl Format {
    /// By candle's name; none for what is not written so.
    pub fn of(dtype: GgmlDType) -> Option<Self> {
        match dtype {
            GgmlDType::Q2K => Some(Self::Q2_K),
            GgmlDType::Q3K => Some(Self::Q3_K),
            GgmlDType::Q4_0 => Some(Self::Q4_0),
            GgmlDType::Q4_1 => Some(Self::Q4_1),
            GgmlDType::Q4K => Some(Self::Q4_K),
            GgmlDType::Q5_0 => Some(Self::Q5_0),
            GgmlDType::Q5_1 => Some(Self::Q5_1),
            GgmlDType::Q5K => Some(Self::Q5_K),
            GgmlDType::Q6K => Some(Self::Q6_K),
            GgmlDType::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Bits of a quant.
    pub(super) const fn bits(self) -> usize {
        match self {
            Self::Q2_K => 2,
            Self::Q3_K => 3,
            Self::Q4_0 | Self::Q4_1 | Self::Q4_K => 4,
            Self::Q5_0 | Self::Q5_1 | Self::Q5_K => 5,
            Self::Q6_K => 6,
            Self::Q8_0 => 8,
        }
    }

    /// Whether spans have a minimum.
    pub(super) const fn has_minima(self) -> bool {
        matches!(self, Self::Q2_K | Self::Q4_1 | Self::Q4_K | Self::Q5_1 | Self::Q5_K)
    }

    /// Parts of a block that have a scale each.
    pub(super) const fn spans(self) -> usize {
        spans(self.bits())
    }

    /// What is taken from a quant: half of what its bits can count, unless there are minima.
    pub(super) const fn offset(self) -> i32 {
        if self.has_minima() { 0 } else { 1 << (self.bits() - 1) }
    }

    /// Blocks that lie together in a file.
    pub(super) const fn together(self) -> usize {
        match self {
            Self::Q2_K | Self::Q3_K | Self::Q4_K | Self::Q5_K | Self::Q6_K => TOGETHER,
            _ => 1,
        }
    }

    /// Bytes of as many blocks in a file (`ggml-common.h` of llama.cpp).
    pub(super) const fn file_bytes(self) -> usize {
        let halves = if self.has_minima() { 4 } else { 2 };
        halves + self.scale_bytes() + self.together() * self.bits() * BLOCK / 8
    }

    /// Bytes that say what scales and minima of blocks that lie together are multiplied with.
    const fn scale_bytes(self) -> usize {
        match self {
            Self::Q2_K | Self::Q6_K => 16,
            Self::Q3_K | Self::Q4_K | Self::Q5_K => 12,
            _ => 0,
        }
    }

    /// Bytes of a block in memory: the quants, and of each span a scale and perhaps a minimum.
    pub const fn block_bytes(self) -> usize {
        let halves = if self.has_minima() { 4 } else { 2 };
        halves * self.spans() + self.bits() * BLOCK / 8
    }

    /// Unpacks one of the blocks of [`Format::file_bytes`] of a file.
    pub(super) fn unpack(self, bytes: &[u8], block: usize) -> Block {
        match self {
            Self::Q8_0 => {
                let (scale, quants) = half(bytes);
                Block::of([scale, f16::ZERO], |at| quants[at] ^ 0x80)
            }
            Self::Q4_0 | Self::Q5_0 => {
                let (scale, quants) = half(bytes);
                Block { scales: [scale, f16::ZERO], quants: nibbles_of_halves(quants), ..Block::default() }
            }
            Self::Q4_1 | Self::Q5_1 => {
                let (scale, rest) = half(bytes);
                let (minimum, quants) = half(rest);
                let quants = nibbles_of_halves(quants);
                Block { scales: [scale, f16::ZERO], minima: [minimum, f16::ZERO], quants }
            }
            Self::Q4_K | Self::Q5_K => {
                let (scale, rest) = half(bytes);
                let (minimum, rest) = half(rest);
                let (of_blocks, rest) = rest.split_at(self.scale_bytes());
                let (fifth_bits, nibbles) = rest.split_at(rest.len() - TOGETHER * BLOCK / 2);
                let (of_scale, of_minimum) = six_bits(of_blocks, block);
                // A byte has two numbers of blocks that follow each other.
                let quants = |at: usize| {
                    let fifth = fifth_bits.get(at).map_or(0, |bits| bits >> block & 1);
                    nibbles[block / 2 * BLOCK + at] >> (block % 2 * 4) & 15 | fifth << 4
                };
                let minima = [-product(minimum, of_minimum.into()), f16::ZERO];
                Block { minima, ..Block::of([product(scale, of_scale.into()), f16::ZERO], quants) }
            }
            Self::Q6_K => {
                let (nibbles, rest) = bytes.split_at(128);
                let (twos, rest) = rest.split_at(64);
                let (of_spans, rest) = rest.split_at(self.scale_bytes());
                let (scale, _) = half(rest);
                // Half of the blocks share bytes: two of them the nibbles of a byte, all four its pairs of bits.
                let (of_half, in_half) = (block / 4, block % 4);
                let quants = |at: usize| {
                    let nibble = nibbles[of_half * 64 + in_half % 2 * BLOCK + at] >> (in_half / 2 * 4) & 15;
                    nibble | (twos[of_half * BLOCK + at] >> (in_half * 2) & 3) << 4
                };
                let scales = [0, 1].map(|span| product(scale, f32::from(of_spans[2 * block + span] as i8)));
                Block::of(scales, quants)
            }
            Self::Q3_K => {
                let (third_bits, rest) = bytes.split_at(32);
                let (twos, rest) = rest.split_at(64);
                let (of_spans, rest) = rest.split_at(self.scale_bytes());
                let (scale, _) = half(rest);
                let quants = |at: usize| two_bits(twos, block, at) | (third_bits[at] >> block & 1) << 2;
                let of_span = |span: usize| f32::from(six_bits_of_sixteen(of_spans, 2 * block + span)) - 32.0;
                Block::of([0, 1].map(|span| product(scale, of_span(span))), quants)
            }
            Self::Q2_K => {
                let (of_spans, rest) = bytes.split_at(self.scale_bytes());
                let (twos, rest) = rest.split_at(64);
                let (scale, rest) = half(rest);
                let (minimum, _) = half(rest);
                let of_spans = [of_spans[2 * block], of_spans[2 * block + 1]];
                let minima = of_spans.map(|both| -product(minimum, (both >> 4).into()));
                let scales = of_spans.map(|both| product(scale, (both & 15).into()));
                Block { minima, ..Block::of(scales, |at| two_bits(twos, block, at)) }
            }
        }
    }
}

impl Block {
    fn of(scales: [f16; MOST_SPANS], quant: impl Fn(usize) -> u8) -> Self {
        Self { scales, quants: std::array::from_fn(quant), ..Self::default() }
    }
}

/// Parts of a block that have a scale each: blocks of 2, 3 and 6 bits have one for each half.
pub(super) const fn spans(bits: usize) -> usize {
    match bits {
        2 | 3 | 6 => 2,
        _ => 1,
    }
}

/// A byte has two numbers of the block's halves; fifth bits lie before them, if there are any.
fn nibbles_of_halves(bytes: &[u8]) -> [u8; BLOCK] {
    let (fifth_bits, nibbles) = bytes.split_at(bytes.len() - BLOCK / 2);
    let mut quants = [0; BLOCK];
    let (low, high) = quants.split_at_mut(BLOCK / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(nibbles) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
    if let Some(&bits) = fifth_bits.first_chunk() {
        let bits = u32::from_le_bytes(bits);
        quants.iter_mut().enumerate().for_each(|(at, quant)| *quant |= ((bits >> at & 1) as u8) << 4);
    }
    quants
}

/// A byte has numbers of four blocks that follow each other.
fn two_bits(bytes: &[u8], block: usize, at: usize) -> u8 {
    bytes[block / 4 * BLOCK + at] >> (block % 4 * 2) & 3
}

fn product(a: f16, b: f32) -> f16 {
    f16::from_f32(a.to_f32() * b)
}

/// Blocks of a K-quant that lie together.
const TOGETHER: usize = 8;

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

/// One of sixteen numbers: four bits in the halves of the first eight bytes, two in the last four bytes.
fn six_bits_of_sixteen(bytes: &[u8], at: usize) -> u8 {
    bytes[at % 8] >> (at / 8 * 4) & 15 | (bytes[8 + at % 4] >> (at / 4 * 2) & 3) << 4
}

fn half(bytes: &[u8]) -> (f16, &[u8]) {
    let (half, rest) = bytes.split_at(2);
    (f16::from_le_bytes([half[0], half[1]]), rest)
}
