//! Linear layers, each computed where it is fastest.
//!
//! Weights of 4, 5 and 8 bits run our own kernels (`kernel/quantised`) in the blocks that a file has. Those of other sizes
//! are rounded to 8 bits at load, which is finer than what they come from.

use candle_core::{Device, Tensor};

use crate::backend::Result;
use crate::error::ModelError;
use crate::kernel::{matmul, quantised};
use crate::weights::{Numbers, Stored, WeightType};

/// `y = x wᵀ + b`
pub struct Linear {
    weight: Weight,
    /// `[out_features]`
    bias: Option<Vec<f32>>,
}

enum Weight {
    /// `[out_features, in_features]` in f32.
    Dense(Tensor),
    /// Blocks.
    Blocks(quantised::Weight),
}

impl Linear {
    pub(super) fn new(stored: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Self> {
        let (columns, inner) = stored.matrix()?;
        let blocks = match stored.numbers() {
            Numbers::Dense => None,
            Numbers::Blocks(kind) => (held == WeightType::Stored).then(|| quantised::Format::of(kind)),
        };
        let weight = match blocks {
            None => Weight::Dense(Tensor::from_vec(stored.dense()?, (columns, inner), &Device::Cpu)?),
            Some(Some(format)) => {
                let blocks = quantised::Weight::from_blocks(format, stored.bytes(), columns, inner);
                Weight::Blocks(blocks.ok_or_else(|| ModelError::Backend("blocks and shape disagree".into()))?)
            }
            Some(None) => Weight::Blocks(quantised::Weight::quantise(&stored.dense()?, inner)),
        };
        Ok(Self { weight, bias })
    }

    /// Rows of the weight, `[rows, in_features]`.
    pub(super) fn rows(&self, rows: impl ExactSizeIterator<Item = usize>) -> Result<Vec<f32>> {
        match &self.weight {
            Weight::Dense(weight) => {
                let inner = weight.dim(1)?;
                with_slice(weight, |weight| {
                    let mut out = Vec::with_capacity(rows.len() * inner);
                    rows.for_each(|row| out.extend_from_slice(&weight[row * inner..(row + 1) * inner]));
                    out
                })
            }
            Weight::Blocks(weight) => {
                let mut out = vec![0.0; rows.len() * weight.inner()];
                rows.zip(out.chunks_exact_mut(weight.inner())).for_each(|(row, out)| weight.column(row, out));
                Ok(out)
            }
        }
    }

    pub(super) fn in_features(&self) -> Result<usize> {
        match &self.weight {
            Weight::Dense(weight) => Ok(weight.dim(1)?),
            Weight::Blocks(weight) => Ok(weight.inner()),
        }
    }

    pub(super) fn out_features(&self) -> Result<usize> {
        match &self.weight {
            Weight::Dense(weight) => Ok(weight.dim(0)?),
            Weight::Blocks(weight) => Ok(weight.columns()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &self.weight {
            Weight::Dense(weight) => weight.elem_count() * size_of::<f32>(),
            Weight::Blocks(weight) => weight.bytes(),
        }
    }

    /// `[rows, in_features]` to `[rows, out_features]`. `rounded` is kept for the next layer of the same `x`.
    pub(super) fn forward(&self, x: &[f32], rounded: &mut Option<quantised::Activations>) -> Result<Vec<f32>> {
        let mut y = match &self.weight {
            Weight::Dense(weight) => dense(x, weight)?,
            Weight::Blocks(weight) => {
                weight.product(rounded.get_or_insert_with(|| quantised::Activations::quantise(x, weight.inner())))
            }
        };
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        Ok(y)
    }
}

/// Our own products; candle's where a vendor's library was asked for.
fn dense(x: &[f32], weight: &Tensor) -> Result<Vec<f32>> {
    let (columns, inner) = weight.dims2()?;
    let rows = x.len() / inner;
    if cfg!(any(feature = "mkl", feature = "accelerate")) && rows > matmul::FEW_ROWS {
        let x = Tensor::from_slice(x, (rows, inner), &Device::Cpu)?;
        return Ok(x.matmul(&weight.t()?)?.flatten_all()?.to_vec1()?);
    }
    with_slice(weight, |weight| matmul::linear(x, weight, rows, inner, columns))
}

/// Lends the elements of a weight.
fn with_slice<T>(tensor: &Tensor, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (candle_core::Storage::Cpu(storage), Some((start, end))) => Ok(work(&storage.as_slice::<f32>()?[start..end])),
        _ => Err(ModelError::Backend("a weight does not lie in the host's memory in one piece".into())),
    }
}
