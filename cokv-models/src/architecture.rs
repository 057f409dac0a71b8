//! The model families that the decoder knows, by the names that files give them.

/// Model families that the decoder computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2, 3, 3.1+ and those made like it (SmolLM2).
    Llama,
    /// Mistral; layers of 0.1 slide.
    Mistral,
    /// Qwen2 and 2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: queries and keys are normalised.
    Qwen3,
}

/// For messages.
pub(crate) const KNOWN: &str = "known: llama, mistral, qwen2, qwen3";

impl Architecture {
    /// By `model_type` of a config.json.
    pub(crate) fn of_model_type(name: &str) -> Option<Self> {
        match name {
            "llama" => Some(Self::Llama),
            "mistral" => Some(Self::Mistral),
            "qwen2" => Some(Self::Qwen2),
            "qwen3" => Some(Self::Qwen3),
            _ => None,
        }
    }

    /// By `general.architecture` of a GGUF file, where Mistral's call themselves llama too.
    pub(crate) fn of_gguf(name: &str) -> Option<Self> {
        Self::of_model_type(name).filter(|architecture| *architecture != Self::Mistral)
    }
}
