//! Tensors of a checkpoint under their Hugging Face names, whatever file they come from.

mod gguf;
mod safetensors;
mod stored;

pub use gguf::Gguf;
pub use safetensors::Safetensors;
pub(crate) use stored::Numbers;
pub use stored::{Stored, WeightType};

use crate::error::ModelError;

/// A checkpoint on disk. Tensors are read when asked for, so that only what is used ever lies in memory.
pub enum Weights {
    /// llama.cpp's format.
    Gguf(Gguf),
    /// One or several safetensors files.
    Safetensors(Safetensors),
}

impl Weights {
    /// Whether the checkpoint has a tensor.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Weights::Gguf(gguf) => gguf.contains(&gguf::native_name(name)),
            Weights::Safetensors(safetensors) => safetensors.contains(name),
        }
    }

    /// A tensor as it is stored. NaN and infinities are refused.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored, ModelError> {
        let stored = match self {
            Weights::Gguf(gguf) => gguf.stored(&gguf::native_name(name))?,
            Weights::Safetensors(safetensors) => safetensors.stored(name)?,
        };
        let found = stored.shape();
        if found != shape {
            let message = format!("tensor `{name}` is {found:?} where the configuration asks for {shape:?}");
            return Err(ModelError::malformed(self.path_of(name), message));
        }
        if !stored.is_finite() {
            let message = format!("tensor `{name}` holds NaN or infinities: the file is damaged; fetch it again");
            return Err(ModelError::malformed(self.path_of(name), message));
        }
        Ok(stored)
    }

    /// A tensor in f32.
    pub fn dense(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.stored(name, shape)?.dense()
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
