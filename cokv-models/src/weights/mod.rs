//! Tensors of a checkpoint under their Hugging Face names, whatever file they come from.

mod buffer;
mod draw;
mod drawn;
mod gguf;
mod safetensors;
mod stored;

pub use draw::Draw;
pub use drawn::Drawn;
pub use gguf::Gguf;
pub use safetensors::Safetensors;
pub use stored::{Numbers, Stored, WeightType};

use candle_core::quantized::GgmlDType;

use crate::error::ModelError;
use crate::source::ModelFiles;

/// A checkpoint on disk. Tensors are read when asked for, so that only what is used ever lies in memory.
pub enum Weights {
    /// llama.cpp's format.
    Gguf(Gguf),
    /// One or several safetensors files.
    Safetensors(Safetensors),
    /// Nowhere: they are drawn.
    Drawn(Drawn),
}

impl Weights {
    /// Reads the headers of a model's files.
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        match files {
            ModelFiles::Gguf(path) => Gguf::open(path).map(Weights::Gguf),
            ModelFiles::Random(folder) => {
                Err(ModelError::unsupported(folder, "its weights are drawn and lie in no file"))
            }
            ModelFiles::Folder(_) => Safetensors::open(files.weight_files()?).map(Weights::Safetensors),
        }
    }

    /// What a tensor's numbers are; none where there is no such tensor, or one that is not read.
    pub(crate) fn kind(&self, name: &str) -> Option<GgmlDType> {
        match self {
            Weights::Gguf(gguf) => gguf.kind(&gguf::native_name(name)),
            Weights::Safetensors(safetensors) => safetensors.kind(name),
            Weights::Drawn(drawn) => drawn.kind(name),
        }
    }

    /// Whether the checkpoint has a tensor.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Weights::Gguf(gguf) => gguf.contains(&gguf::native_name(name)),
            Weights::Safetensors(safetensors) => safetensors.contains(name),
            Weights::Drawn(drawn) => drawn.contains(name),
        }
    }

    /// Layers that the checkpoint has tensors of.
    pub fn layers(&self) -> usize {
        let layer = |name: &str, prefix: &str| name.strip_prefix(prefix)?.split_once('.')?.0.parse::<usize>().ok();
        let last = match self {
            Weights::Gguf(gguf) => gguf.names().filter_map(|name| layer(name, "blk.")).max(),
            Weights::Drawn(drawn) => drawn.names().filter_map(|name| layer(name, "model.layers.")).max(),
            Weights::Safetensors(files) => files.names().filter_map(|name| layer(name, "model.layers.")).max(),
        };
        last.map_or(0, |last| last.saturating_add(1))
    }

    /// A tensor as it is stored. NaN, infinities and zeros alone are refused.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored, ModelError> {
        let stored = match self {
            Weights::Drawn(drawn) => drawn.stored(name).ok_or_else(|| self.missing(name))?,
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
        if stored.is_zero() && !may_be_zero(name) {
            let message = format!(
                "tensor `{name}` holds nothing but zeros, as files do whose download was broken off; fetch it again"
            );
            return Err(ModelError::malformed(self.path_of(name), message));
        }
        Ok(stored)
    }

    /// A tensor in f32.
    pub fn dense(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.stored(name, shape)?.dense()
    }

    pub(crate) fn missing(&self, name: &str) -> ModelError {
        match self {
            Weights::Gguf(gguf) => ModelError::missing_tensor(gguf.path(), name),
            Weights::Safetensors(safetensors) => safetensors.missing(name),
            Weights::Drawn(drawn) => ModelError::missing_tensor(drawn.path(), name),
        }
    }

    /// The file that holds a tensor, or the first one.
    pub(crate) fn path_of(&self, name: &str) -> &std::path::Path {
        match self {
            Weights::Gguf(gguf) => gguf.path(),
            Weights::Safetensors(safetensors) => safetensors.path_of(name),
            Weights::Drawn(drawn) => drawn.path(),
        }
    }
}

/// Biases begin as zeros, and a block that was added to a model without changing it writes zeros.
fn may_be_zero(name: &str) -> bool {
    name.ends_with(".bias") || name.ends_with(".o_proj.weight") || name.ends_with(".down_proj.weight")
}
