//! Products of a vendor's library (MKL, Accelerate), which candle calls. Weights are f32.

use candle_core::{Device, Storage, Tensor};

use crate::backend::Result;
use crate::error::ModelError;
use crate::kernel::matmul;

/// `w` of `y = x wᵀ`, `[columns, inner]`.
pub struct Weight {
    weight: Tensor,
    columns: usize,
    inner: usize,
}

impl Weight {
    pub fn new(numbers: Vec<f32>, inner: usize) -> Result<Self> {
        let columns = numbers.len() / inner;
        Ok(Self { weight: Tensor::from_vec(numbers, (columns, inner), &Device::Cpu)?, columns, inner })
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn inner(&self) -> usize {
        self.inner
    }

    pub fn bytes(&self) -> usize {
        self.columns * self.inner * size_of::<f32>()
    }

    /// Writes the numbers of one column, `[inner]`.
    pub fn column(&self, column: usize, out: &mut [f32]) -> Result<()> {
        self.with_numbers(|numbers| out.copy_from_slice(&numbers[column * self.inner..(column + 1) * self.inner]))
    }

    /// `x wᵀ`, `[rows, columns]`. With few rows our own products are faster.
    pub fn product(&self, x: &[f32]) -> Result<Vec<f32>> {
        let rows = x.len() / self.inner;
        if rows <= matmul::FEW_ROWS {
            return self.with_numbers(|numbers| matmul::linear(x, numbers, rows, self.inner, self.columns));
        }
        let x = Tensor::from_slice(x, (rows, self.inner), &Device::Cpu)?;
        Ok(x.matmul(&self.weight.t()?)?.flatten_all()?.to_vec1()?)
    }

    fn with_numbers<T>(&self, work: impl FnOnce(&[f32]) -> T) -> Result<T> {
        let (storage, layout) = self.weight.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(storage), Some((start, end))) => Ok(work(&storage.as_slice::<f32>()?[start..end])),
            _ => Err(ModelError::Backend("a weight does not lie in the host's memory in one piece".into())),
        }
    }
}
