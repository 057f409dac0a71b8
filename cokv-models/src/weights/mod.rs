//! Tensors of a checkpoint under their Hugging Face names, whatever file they come from.

mod gguf;
mod safetensors;

use candle_core::Tensor;
use candle_core::quantized::QTensor;
pub use gguf::Gguf;
pub use safetensors::Safetensors;

use crate::error::ModelError;
use crate::linear::with_slice;

/// A checkpoint on disk. Tensors are read when asked for, so that only what is used ever lies in memory.
pub enum Weights {
    /// llama.cpp's format.
    Gguf(Gguf),
    /// One or several safetensors files.
    Safetensors(Safetensors),
}

/// A weight as the checkpoint stores it.
pub enum Stored {
    /// f32 on the CPU.
    Dense(Tensor),
    /// Blocks of small integers, and what they stand for, in f32 on the CPU.
    Quantised {
        /// As stored.
        blocks: QTensor,
        /// Dequantised, once for all who look.
        dense: Tensor,
    },
}

impl Stored {
    fn dense(&self) -> &Tensor {
        match self {
            Stored::Dense(dense) | Stored::Quantised { dense, .. } => dense,
        }
    }

    /// The values in f32 on the CPU.
    pub fn into_dense(self) -> Tensor {
        match self {
            Stored::Dense(dense) | Stored::Quantised { dense, .. } => dense,
        }
    }
}

impl Weights {
    /// Whether the checkpoint has a tensor.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Weights::Gguf(gguf) => gguf.contains(&gguf::native_name(name)),
            Weights::Safetensors(safetensors) => safetensors.contains(name),
        }
    }

    /// A tensor as it is stored; 16-bit floats are widened.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored, ModelError> {
        let stored = match self {
            Weights::Gguf(gguf) => gguf.stored(&gguf::native_name(name))?,
            Weights::Safetensors(safetensors) => Stored::Dense(safetensors.dense(name)?),
        };
        let found = stored.dense().dims();
        if found != shape {
            let message = format!("tensor `{name}` is {found:?} where the configuration asks for {shape:?}");
            return Err(ModelError::malformed(self.path_of(name), message));
        }
        // Quantised arithmetic would turn NaN into plausible numbers.
        if !sum(stored.dense())?.is_finite() {
            let message = format!("tensor `{name}` holds NaN or infinities: the file is damaged; fetch it again");
            return Err(ModelError::malformed(self.path_of(name), message));
        }
        Ok(stored)
    }

    /// A tensor in f32 on the CPU.
    pub fn dense(&self, name: &str, shape: &[usize]) -> Result<Tensor, ModelError> {
        Ok(self.stored(name, shape)?.into_dense())
    }

    pub(crate) fn missing(&self, name: &str) -> ModelError {
        ModelError::missing_tensor(self.path_of(name), name)
    }

    fn path_of(&self, name: &str) -> &std::path::Path {
        match self {
            Weights::Gguf(gguf) => gguf.path(),
            Weights::Safetensors(safetensors) => safetensors.path_of(name),
        }
    }
}

fn sum(tensor: &Tensor) -> Result<f32, ModelError> {
    with_slice(&tensor.flatten_all()?, |numbers| {
        // Partial sums of a kilobyte keep f32 far from overflow unless a number is itself out of range.
        numbers.chunks(256).map(|numbers| numbers.iter().sum::<f32>() * 1e-9).sum()
    })
}
