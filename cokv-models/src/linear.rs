//! Linear layers, each computed where it is fastest.
//!
//! On the CPU weights of 4, 5 and 8 bits run our own kernels (`kernel/quantised`) in the blocks that a file has. Those of other
//! sizes are rounded to 8 bits at load, which is finer than what they come from: candle computes most of them in scalar code,
//! 20 times slower than f32, and holds a second copy of the others.

use candle_core::quantized::{QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::kernel::{matmul, quantised};
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

/// `y = x wᵀ + b`
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

enum Weight {
    /// `[out_features, in_features]` in f32.
    Dense(Tensor),
    /// Blocks on the CPU.
    Blocks(quantised::Weight),
    /// Blocks elsewhere.
    Candle(QMatMul),
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
            Weight::Blocks(weight) => {
                let indices: Vec<u32> = indices.to_vec1()?;
                let mut rows = vec![0.0; indices.len() * weight.inner()];
                for (&index, row) in indices.iter().zip(rows.chunks_exact_mut(weight.inner())) {
                    weight.column(index as usize, row);
                }
                Ok(Tensor::from_vec(rows, (indices.len(), weight.inner()), &Device::Cpu)?)
            }
            Weight::Candle(weight) => Ok(weight.embedding(indices)?.to_dtype(DType::F32)?),
        }
    }

    /// Bytes of the weight.
    pub fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Dense(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
            Weight::Blocks(weight) => weight.bytes(),
            Weight::Candle(QMatMul::QTensor(weight)) => weight.storage_size_in_bytes(),
            Weight::Candle(QMatMul::Tensor(weight) | QMatMul::TensorF16(weight)) => {
                weight.elem_count() * weight.dtype().size_in_bytes()
            }
        }
    }

    /// `[rows, in_features]` to `[rows, out_features]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let [y] = Self::forward_all([self], x)?;
        Ok(y)
    }

    /// What several layers make of the same `x`, `[rows, in_features]`, which is rounded once where they have blocks.
    pub fn forward_all<const N: usize>(layers: [&Self; N], x: &Tensor) -> Result<[Tensor; N], ModelError> {
        let mut rounded = None;
        let mut forward = |layer: &Self| -> Result<Tensor, ModelError> {
            let y = match &layer.weight {
                Weight::Dense(weight) => dense(x, weight)?,
                Weight::Blocks(weight) => {
                    let x = match &rounded {
                        Some(x) => x,
                        None => {
                            let round = |x: &[f32]| quantised::Activations::quantise(x, weight.inner());
                            rounded.insert(with_slice(&x.contiguous()?, round)?)
                        }
                    };
                    Tensor::from_vec(weight.product(x), (x.rows(), weight.columns()), &Device::Cpu)?
                }
                Weight::Candle(weight) => weight.forward(x)?,
            };
            match &layer.bias {
                Some(bias) => Ok(y.broadcast_add(bias)?),
                None => Ok(y),
            }
        };
        let outputs = layers.into_iter().map(&mut forward).collect::<Result<Vec<_>, _>>()?;
        Ok(outputs.try_into().expect("one output for each layer"))
    }
}

/// On the CPU, keeps blocks of a format that has kernels and rounds the dense values to 8 bits otherwise; elsewhere, leaves
/// blocks to candle.
fn quantised(blocks: QTensor, dense: &Tensor, device: &Device) -> Result<Weight, ModelError> {
    if !device.is_cpu() {
        let storage = QStorage::from_data(blocks.data()?, device, blocks.dtype())?;
        return Ok(Weight::Candle(QMatMul::from_qtensor(QTensor::new(storage, blocks.shape())?)?));
    }
    let (out_features, in_features) = dense.dims2()?;
    let weight = match quantised::Format::of(blocks.dtype()) {
        Some(format) => quantised::Weight::from_blocks(format, &blocks.data()?, out_features, in_features)
            .ok_or_else(|| candle_core::Error::Msg("blocks and shape disagree".into()))?,
        None => with_slice(&dense.contiguous()?, |dense| quantised::Weight::quantise(dense, in_features))?,
    };
    Ok(Weight::Blocks(weight))
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
