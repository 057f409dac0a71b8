//! Numbers as bytes, the least significant first. What is stored in 8 or 4 bits is written in f32: rounded again, it is what it was.

use cokv_core::Format;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::Dtype;

/// What a file calls the numbers of a format.
pub(super) fn dtype(format: Format) -> Dtype {
    match format {
        Format::F32 | Format::Q8 | Format::Q4 => Dtype::F32,
        Format::F16 => Dtype::F16,
        Format::Bf16 => Dtype::BF16,
    }
}

/// Bytes of a number.
pub(super) fn bytes_of(format: Format) -> usize {
    match format {
        Format::F32 | Format::Q8 | Format::Q4 => size_of::<f32>(),
        Format::F16 | Format::Bf16 => size_of::<f16>(),
    }
}

/// Numbers that were stored in a format before, so that nothing is rounded.
pub(super) fn narrowed(numbers: &[f32], format: Format) -> Vec<u8> {
    match format {
        Format::F32 | Format::Q8 | Format::Q4 => words(numbers.iter().map(|number| number.to_bits())),
        Format::F16 => {
            let mut halves = vec![f16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            halves.into_iter().flat_map(f16::to_le_bytes).collect()
        }
        Format::Bf16 => {
            let mut halves = vec![bf16::ZERO; numbers.len()];
            halves.convert_from_f32_slice(numbers);
            halves.into_iter().flat_map(bf16::to_le_bytes).collect()
        }
    }
}

/// The numbers behind [`narrowed`] ones.
pub(super) fn widened(bytes: &[u8], format: Format) -> Vec<f32> {
    let halves = || bytes.as_chunks().0.iter().copied();
    match format {
        Format::F32 | Format::Q8 | Format::Q4 => from_words(bytes).into_iter().map(f32::from_bits).collect(),
        Format::F16 => halves().map(f16::from_le_bytes).collect::<Vec<_>>().to_f32_vec(),
        Format::Bf16 => halves().map(bf16::from_le_bytes).collect::<Vec<_>>().to_f32_vec(),
    }
}

/// Words of 32 bits.
pub(super) fn words(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// The words behind [`words`].
pub(super) fn from_words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}
