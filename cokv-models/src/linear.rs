//! Linear layers, each computed where it is fastest.
//!
//! Candle's tuned quantised kernels take Q8_0, Q4_K and Q6_K when the inner dimension is a multiple of 256. Other
//! quantisations run scalar code (20 times slower than f32), so their weights are requantised to Q8_0, whose rounding is
//! finer than theirs, and inner dimensions are padded with zeros to the next multiple.

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{D, DType, Device, Module, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::kernel::matmul;
use crate::weights::{Stored, Weights};

/// How weights lie in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// As the file stores them: quantised ones in 8 bits or fewer, dense ones in f32. Fast and small.
    #[default]
    Stored,
    /// Dequantised to f32: exact, four times the memory of 8 bits.
    F32,
}

/// Multiple that candle's tuned kernels ask of the inner dimension.
const INNER_MULTIPLE: usize = 256;

/// `y = x wᵀ + b`
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

enum Weight {
    /// `[out_features, in_features]` in f32.
    Dense(Tensor),
    /// Blocks; rows padded with zeros to `in_features`.
    Quantised { weight: QMatMul, in_features: usize },
}

impl Linear {
    /// Loads `name.weight`, `[out_features, in_features]`, and `name.bias` where the checkpoint has one.
    pub fn load(
        weights: &Weights,
        name: &str,
        (out_features, in_features): (usize, usize),
        weight_type: WeightType,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let stored = weights.stored(&format!("{name}.weight"), &[out_features, in_features])?;
        let bias_name = format!("{name}.bias");
        let bias = match weights.contains(&bias_name) {
            true => Some(weights.dense(&bias_name, &[out_features])?.to_device(device)?),
            false => None,
        };
        let weight = match (stored, weight_type) {
            (Stored::Quantised { blocks, dense }, WeightType::Stored) => quantised(blocks, &dense, device)?,
            (stored, _) => Weight::Dense(stored.into_dense().to_device(device)?),
        };
        Ok(Self { weight, bias })
    }

    /// Rows of the weight at the given indices, `[indices, in_features]`: an embedding table that is not held twice.
    pub fn rows(&self, indices: &Tensor) -> Result<Tensor, ModelError> {
        match &self.weight {
            Weight::Dense(weight) => Ok(weight.index_select(indices, 0)?),
            Weight::Quantised { weight, in_features } => {
                let padded = weight.embedding(indices)?.to_dtype(DType::F32)?;
                Ok(padded.narrow(D::Minus1, 0, *in_features)?.contiguous()?)
            }
        }
    }

    /// `[rows, in_features]` to `[rows, out_features]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let y = match &self.weight {
            Weight::Dense(weight) => dense(x, weight)?,
            Weight::Quantised { weight, in_features } => {
                let padding = in_features.next_multiple_of(INNER_MULTIPLE) - in_features;
                match padding {
                    0 => weight.forward(x)?,
                    _ => weight.forward(&x.pad_with_zeros(D::Minus1, 0, padding)?)?,
                }
            }
        };
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}

/// Keeps the blocks where they have a tuned kernel, and requantises the dense values elsewhere.
fn quantised(blocks: QTensor, dense: &Tensor, device: &Device) -> Result<Weight, ModelError> {
    let in_features = dense.dim(D::Minus1)?;
    let tuned = matches!(blocks.dtype(), GgmlDType::Q8_0 | GgmlDType::Q4K | GgmlDType::Q6K);
    let padding = in_features.next_multiple_of(INNER_MULTIPLE) - in_features;
    let tensor = match (tuned && padding == 0, device) {
        (true, Device::Cpu) => blocks,
        (true, _) => QTensor::new(QStorage::from_data(blocks.data()?, device, blocks.dtype())?, blocks.shape())?,
        (false, _) => QTensor::quantize_onto(&dense.pad_with_zeros(1, 0, padding)?, GgmlDType::Q8_0, device)?,
    };
    Ok(Weight::Quantised { weight: QMatMul::from_qtensor(tensor)?, in_features })
}

/// On the CPU our own products; elsewhere, and where a vendor's library was asked for, candle's.
fn dense(x: &Tensor, weight: &Tensor) -> Result<Tensor, ModelError> {
    let vendor_library = cfg!(any(feature = "mkl", feature = "accelerate"));
    let (rows, inner) = x.dims2()?;
    if !x.device().is_cpu() || (vendor_library && rows > matmul::FEW_ROWS) {
        return Ok(x.matmul(&weight.t()?)?);
    }
    let columns = weight.dim(0)?;
    let x = x.contiguous()?;
    let product = with_slice(&x, |x| with_slice(weight, |weight| matmul::linear(x, weight, rows, inner, columns)))??;
    Ok(Tensor::from_vec(product, (rows, columns), &Device::Cpu)?)
}

/// Lends the elements of a contiguous f32 tensor on the CPU.
pub(crate) fn with_slice<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T, ModelError> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(storage), Some((start, end))) => Ok(work(&storage.as_slice::<f32>()?[start..end])),
        _ => Err(candle_core::Error::Msg("expected a contiguous tensor on the CPU".into()).into()),
    }
}
