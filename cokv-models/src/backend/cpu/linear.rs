//! Linear layers, each computed where it is fastest.
//!
//! Weights lie in memory as in their file: floats of 16 and 32 bits (`kernel/dense`), or blocks of fewer bits, which run our own
//! kernels (`kernel/quantised`). Blocks for which there is no kernel are rounded to 8 bits at load.

use half::{bf16, f16};

use crate::backend::Result;
use crate::error::ModelError;
use crate::kernel::{dense, quantised};
use crate::weights::{Numbers, Stored, WeightType};

/// `y = x wᵀ + b`
pub struct Linear {
    weight: Weight,
    /// `[out_features]`
    bias: Option<Vec<f32>>,
}

enum Weight {
    /// Floats.
    Dense(dense::Weight),
    /// Floats of 32 bits that a vendor's library multiplies with.
    #[cfg(any(feature = "mkl", feature = "accelerate"))]
    Vendor(super::vendor::Weight),
    /// Blocks.
    Blocks(quantised::Weight),
}

/// Runs the same expression on whichever weight is inside.
macro_rules! each {
    ($self:expr, $weight:ident => $expression:expr) => {
        match &$self.weight {
            Weight::Dense($weight) => $expression,
            #[cfg(any(feature = "mkl", feature = "accelerate"))]
            Weight::Vendor($weight) => $expression,
            Weight::Blocks($weight) => $expression,
        }
    };
}

impl Linear {
    pub(super) fn new(stored: Stored, bias: Option<Vec<f32>>, held: WeightType) -> Result<Self> {
        let (columns, inner) = stored.matrix()?;
        let halves = || stored.bytes().as_chunks().0.iter();
        let weight = match (stored.numbers(), held) {
            (Numbers::F16, WeightType::Stored) => {
                Weight::Dense(dense::Weight::f16(halves().map(|&bytes| f16::from_le_bytes(bytes)), inner))
            }
            (Numbers::Bf16, WeightType::Stored) => {
                Weight::Dense(dense::Weight::bf16(halves().map(|&bytes| bf16::from_le_bytes(bytes)), inner))
            }
            (Numbers::Blocks(kind), WeightType::Stored) => Weight::Blocks(match quantised::Format::of(kind) {
                Some(format) => quantised::Weight::from_blocks(format, stored.bytes(), columns, inner)
                    .ok_or_else(|| ModelError::Backend("blocks and shape disagree".into()))?,
                None => quantised::Weight::quantise(&stored.dense()?, inner),
            }),
            (Numbers::F32, _) | (_, WeightType::F32) => single(stored.dense()?, inner)?,
        };
        Ok(Self { weight, bias })
    }

    /// Rows of the weight, `[rows, in_features]`.
    pub(super) fn rows(&self, rows: impl ExactSizeIterator<Item = usize>) -> Result<Vec<f32>> {
        let inner = self.in_features();
        let mut out = vec![0.0; rows.len() * inner];
        for (row, out) in rows.zip(out.chunks_exact_mut(inner)) {
            match &self.weight {
                Weight::Dense(weight) => weight.column(row, out),
                #[cfg(any(feature = "mkl", feature = "accelerate"))]
                Weight::Vendor(weight) => weight.column(row, out)?,
                Weight::Blocks(weight) => weight.column(row, out),
            }
        }
        Ok(out)
    }

    pub(super) fn in_features(&self) -> usize {
        each!(self, weight => weight.inner())
    }

    pub(super) fn out_features(&self) -> usize {
        each!(self, weight => weight.columns())
    }

    pub(super) fn bytes(&self) -> usize {
        each!(self, weight => weight.bytes())
    }

    /// `[rows, in_features]` to `[rows, out_features]`. `rounded` is kept for the next layer of the same `x`.
    pub(super) fn forward(&self, x: &[f32], rounded: &mut Option<quantised::Activations>) -> Result<Vec<f32>> {
        let mut y = match &self.weight {
            Weight::Dense(weight) => weight.product(x),
            #[cfg(any(feature = "mkl", feature = "accelerate"))]
            Weight::Vendor(weight) => weight.product(x)?,
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

/// Our own products; a vendor's where its library was asked for.
#[cfg(not(any(feature = "mkl", feature = "accelerate")))]
fn single(numbers: Vec<f32>, inner: usize) -> Result<Weight> {
    Ok(Weight::Dense(dense::Weight::f32(numbers.into_iter(), inner)))
}

#[cfg(any(feature = "mkl", feature = "accelerate"))]
fn single(numbers: Vec<f32>, inner: usize) -> Result<Weight> {
    Ok(Weight::Vendor(super::vendor::Weight::new(numbers, inner)?))
}
