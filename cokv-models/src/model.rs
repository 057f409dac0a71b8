//! A model ready to run: decoder, tokenizer and chat template, from one place.

use std::sync::Arc;

use cokv_core::{Format, ObservationRequest};

use crate::backend::{Backend, Candle, Cpu, Reference};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::engine::Engine;
use crate::error::ModelError;
use crate::kernel::memory;
use crate::outline::Outline;
use crate::prefill::Prefill;
use crate::source::ModelFiles;
use crate::tokenizer::Tokenizer;
use crate::weights::{Drawn, WeightType, Weights};

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, with our own kernels.
    #[default]
    Cpu,
    /// Linear layers on a Metal device, by candle.
    Metal(usize),
    /// Candle's arithmetic on the processor: to compare with.
    Candle,
    /// Plain f64: to compare with.
    Reference,
}

impl Device {
    /// The name of the backend that computes there.
    pub fn backend(self) -> &'static str {
        match self {
            Self::Cpu => Cpu.name(),
            Self::Metal(_) => "candle-metal",
            Self::Candle => "candle-cpu",
            Self::Reference => Reference.name(),
        }
    }

    /// Whether the host computes, in whose memory weights then lie.
    pub fn is_host(self) -> bool {
        !matches!(self, Self::Metal(_))
    }

    /// The accelerator that this build knows, else the processor.
    pub fn of_this_build() -> Self {
        if cfg!(feature = "metal") { Self::Metal(0) } else { Self::Cpu }
    }
}

/// How a model is held in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Weights as stored, or in f32.
    pub weight_type: WeightType,
    /// How rows of the KV cache are stored.
    pub format: Format,
    /// Where it computes.
    pub device: Device,
}

/// A language model with all that belongs to it.
pub struct LanguageModel {
    outline: Arc<Outline>,
    engine: Arc<dyn Engine>,
    format: Format,
}

impl LanguageModel {
    /// Loads a model from fetched files. `progress` hears (layers loaded, layers).
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        Self::load_outlined(Outline::open(files)?.into(), files, options, progress)
    }

    /// Loads the weights of a model whose outline is known. `progress` hears (layers loaded, layers).
    pub fn load_outlined(
        outline: Arc<Outline>,
        files: &ModelFiles,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let load = |weights: &Weights, config| load_engine(weights, config, options, progress);
        Self::load_by(outline, files, options.format, load)
    }

    /// The same on a backend of another crate.
    pub fn load_on(
        backend: impl Backend,
        outline: Arc<Outline>,
        files: &ModelFiles,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let load = |weights: &Weights, config| load_on(backend, weights, config, options, progress);
        Self::load_by(outline, files, options.format, load)
    }

    fn load_by(
        outline: Arc<Outline>,
        files: &ModelFiles,
        format: Format,
        load: impl FnOnce(&Weights, ModelConfig) -> Result<Arc<dyn Engine>, ModelError>,
    ) -> Result<Self, ModelError> {
        let weights = match files {
            ModelFiles::Random(_) => Weights::Drawn(Drawn::new(outline.config().tensors(), 1)),
            files => Weights::open(files)?,
        };
        let engine = load(&weights, outline.config().clone())?;
        // Every tensor was there twice for a moment.
        drop(weights);
        memory::give_back();
        Ok(Self { outline, engine, format })
    }

    /// What is known of the model without its weights.
    pub fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// What runs rows of tokens through the model.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.engine.config()
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.outline.tokenizer()
    }

    /// How the model marks up conversations; base models do not.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.outline.chat_template()
    }

    /// How rows of the KV cache are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All tokens that end generation, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        self.outline.stop_tokens()
    }

    /// Prefills a prompt; `progress` hears the number of tokens done.
    pub fn prefill(
        &self,
        prompt: &[u32],
        request: ObservationRequest,
        progress: impl FnMut(usize),
    ) -> Result<Prefill, ModelError> {
        Prefill::run(&self.engine, prompt, self.format, request, progress)
    }
}

/// Loads the weights where they will compute. `progress` hears (layers loaded, layers).
pub fn load_engine(
    weights: &Weights,
    config: ModelConfig,
    options: &LoadOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Arc<dyn Engine>, ModelError> {
    match options.device {
        Device::Cpu => load_on(Cpu, weights, config, options, progress),
        Device::Metal(index) => load_on(Candle::metal(index)?, weights, config, options, progress),
        Device::Candle => load_on(Candle::cpu(), weights, config, options, progress),
        Device::Reference => load_on(Reference, weights, config, options, progress),
    }
}

/// Loads the weights on a backend. `progress` hears (layers loaded, layers).
pub fn load_on(
    backend: impl Backend,
    weights: &Weights,
    config: ModelConfig,
    options: &LoadOptions,
    progress: impl FnMut(usize, usize),
) -> Result<Arc<dyn Engine>, ModelError> {
    Ok(Arc::new(Decoder::load(backend, weights, config, options.weight_type, progress)?))
}
