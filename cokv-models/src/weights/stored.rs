//! One tensor as a checkpoint stores it.

use std::sync::OnceLock;

use candle_core::Device;
use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::buffer::Buffer;
use super::draw::Draw;
use crate::error::ModelError;

/// How weights lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// As the file stores them: quantised ones in 8 bits or fewer, floats in 16 or 32. Fast and small.
    #[default]
    Stored,
    /// In f32: four times the memory of 8 bits, twice that of 16. Exact where weights are quantised; floats of 16 bits give the same
    /// results either way.
    F32,
}

/// A tensor as the checkpoint stores it: the backend decides what becomes of its bytes.
pub struct Stored {
    shape: Vec<usize>,
    kind: GgmlDType,
    /// Of drawn tensors, once somebody asks for them.
    bytes: OnceLock<Buffer>,
    draw: Option<Draw>,
}

/// What a tensor's bytes are.
pub enum Numbers {
    /// Floats of 32 bits.
    F32,
    /// Floats of half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// Blocks of small integers with their scales.
    Blocks(GgmlDType),
}

impl Stored {
    pub(super) fn new(shape: &[usize], kind: GgmlDType, bytes: impl Into<Buffer>) -> Self {
        Self { shape: shape.to_vec(), kind, bytes: OnceLock::from(bytes.into()), draw: None }
    }

    pub(super) fn drawn(shape: &[usize], draw: Draw) -> Self {
        Self { shape: shape.to_vec(), kind: Draw::KIND, bytes: OnceLock::new(), draw: Some(draw) }
    }

    /// How it is drawn, for those who would rather draw it themselves than take its bytes.
    pub fn draw(&self) -> Option<Draw> {
        self.draw
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows and columns of a matrix.
    pub fn matrix(&self) -> Result<(usize, usize), ModelError> {
        match self.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(ModelError::Backend(format!("a weight of shape {:?} is no matrix", self.shape))),
        }
    }

    /// What its bytes are.
    pub fn numbers(&self) -> Numbers {
        match self.kind {
            GgmlDType::F32 => Numbers::F32,
            GgmlDType::F16 => Numbers::F16,
            GgmlDType::BF16 => Numbers::Bf16,
            kind => Numbers::Blocks(kind),
        }
    }

    /// As in the file.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get_or_init(|| self.draw.map(|draw| draw.bytes()).unwrap_or_default().into())
    }

    /// candle's form of blocks, on a device.
    pub(crate) fn blocks(&self, device: &Device) -> Result<QTensor, ModelError> {
        let storage = QStorage::from_data(self.bytes().into(), device, self.kind)?;
        Ok(QTensor::new(storage, self.shape.as_slice())?)
    }

    /// The values in f32; those of blocks are what the blocks stand for.
    pub fn dense(&self) -> Result<Vec<f32>, ModelError> {
        let halves = || self.bytes().as_chunks::<2>().0.iter();
        match self.kind {
            GgmlDType::F32 => Ok(self.bytes().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
            GgmlDType::F16 => Ok(halves().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()),
            GgmlDType::BF16 => Ok(halves().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()),
            _ => Ok(self.blocks(&Device::Cpu)?.dequantize(&Device::Cpu)?.flatten_all()?.to_vec1()?),
        }
    }

    /// Whether every byte is zero, as in a file that was made at its full length and never written.
    pub(super) fn is_zero(&self) -> bool {
        self.draw.is_none() && self.bytes().iter().all(|&byte| byte == 0)
    }

    /// Whether no number is NaN or infinite: quantised arithmetic would turn those into plausible ones. Of blocks, the scales
    /// tell.
    pub(super) fn is_finite(&self) -> bool {
        // All bits of the exponent are set.
        let half = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & 0x7c00 != 0x7c00;
        let brain = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) & 0x7f80 != 0x7f80;
        let single = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) & 0x7f80_0000 != 0x7f80_0000;
        match self.kind {
            // A backend that draws by itself never asks for the bytes: of an 8B model they take half a minute.
            _ if self.draw.is_some() => true,
            GgmlDType::F32 => self.bytes().as_chunks().0.iter().all(single),
            GgmlDType::F16 => self.bytes().as_chunks().0.iter().all(half),
            GgmlDType::BF16 => self.bytes().as_chunks().0.iter().all(brain),
            GgmlDType::Q8K => {
                self.bytes().chunks_exact(self.kind.type_size()).all(|block| block.first_chunk().is_some_and(single))
            }
            kind => {
                let (first, count) = scales(kind);
                self.bytes()
                    .chunks_exact(kind.type_size())
                    .all(|block| block[first..first + 2 * count].as_chunks().0.iter().all(half))
            }
        }
    }
}

/// Where the half-precision scales and minima of a block lie: first byte and count (`ggml-common.h` of llama.cpp).
fn scales(kind: GgmlDType) -> (usize, usize) {
    match kind {
        GgmlDType::Q4_1 | GgmlDType::Q5_1 | GgmlDType::Q8_1 | GgmlDType::Q4K | GgmlDType::Q5K => (0, 2),
        GgmlDType::Q2K => (80, 2),
        GgmlDType::Q3K => (108, 1),
        GgmlDType::Q6K => (208, 1),
        _ => (0, 1),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Tensor;

    use super::*;

    const KINDS: [GgmlDType; 11] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
        GgmlDType::Q8K,
    ];

    fn quantised(kind: GgmlDType) -> Stored {
        let numbers: Vec<f32> = (0..1024).map(|i| (i as f32 * 0.37).sin()).collect();
        let tensor = Tensor::from_vec(numbers, (2, 512), &Device::Cpu).unwrap();
        let blocks = QTensor::quantize(&tensor, kind).unwrap();
        Stored::new(&[2, 512], kind, blocks.data().unwrap().into_owned())
    }

    #[test]
    fn blocks_are_finite_as_long_as_their_scales_are() {
        for kind in KINDS {
            let stored = quantised(kind);
            assert!(stored.is_finite(), "{kind:?}");
            let sound = stored.bytes().to_vec();
            // Any one of the bytes that hold a scale's exponent, in the last block.
            let (first, count) = if kind == GgmlDType::Q8K { (2, 1) } else { scales(kind) };
            let last = sound.len() - kind.type_size();
            for scale in 0..count {
                let place = last + first + 2 * scale;
                let mut bytes = sound.clone();
                bytes[place..place + 2].copy_from_slice(&[0xff, 0x7f]);
                let stored = Stored::new(&[2, 512], kind, bytes);
                assert!(!stored.is_finite(), "{kind:?}, scale {scale}");
                assert!(stored.dense().unwrap().iter().any(|number| !number.is_finite()), "{kind:?}, scale {scale}");
            }
        }
    }

    #[test]
    fn what_is_drawn_is_checked_without_being_drawn() {
        let stored = Stored::drawn(&[2, 4], Draw { seed: 1, deviation: 1.0, count: 8 });
        assert!(stored.is_finite() && !stored.is_zero());
        assert!(stored.bytes.get().is_none());
        assert_eq!(stored.bytes().len(), 16);
    }

    #[test]
    fn floats_are_finite_one_by_one() {
        for (kind, nan) in [
            (GgmlDType::F32, f32::NAN.to_le_bytes().to_vec()),
            (GgmlDType::F16, f16::INFINITY.to_le_bytes().to_vec()),
            (GgmlDType::BF16, bf16::NAN.to_le_bytes().to_vec()),
        ] {
            let mut bytes = vec![0; 8 * nan.len()];
            assert!(Stored::new(&[8], kind, bytes.clone()).is_finite());
            bytes[5 * nan.len()..6 * nan.len()].copy_from_slice(&nan);
            let stored = Stored::new(&[8], kind, bytes);
            assert!(!stored.is_finite() && !stored.dense().unwrap()[5].is_finite());
        }
    }
}
