//! A model ready to run: decoder, tokenizer and chat template, from one place.

use std::sync::Arc;

use cokv_core::{Format, ObservationRequest};
use serde_json::{Map, Value as Json};

use crate::backend::{Backend, Candle, Cpu, Reference};
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::engine::Engine;
use crate::error::ModelError;
use crate::kernel::memory;
use crate::prefill::Prefill;
use crate::source::ModelFiles;
use crate::tokenizer::Tokenizer;
use crate::weights::{Gguf, Safetensors, WeightType, Weights};

/// Where a model computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, with our own kernels.
    #[default]
    Cpu,
    /// Linear layers on a CUDA device, by candle.
    Cuda(usize),
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
            Self::Cuda(_) => "candle-cuda",
            Self::Metal(_) => "candle-metal",
            Self::Candle => "candle-cpu",
            Self::Reference => Reference.name(),
        }
    }

    /// The accelerator that this build knows, else the processor.
    pub fn of_this_build() -> Self {
        match (cfg!(feature = "cuda"), cfg!(feature = "metal")) {
            (true, _) => Self::Cuda(0),
            (_, true) => Self::Metal(0),
            _ => Self::Cpu,
        }
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
    engine: Arc<dyn Engine>,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    format: Format,
    stop_tokens: Vec<u32>,
}

/// Texts of tokens that end an answer in the families that the decoder knows, whatever the configuration lists.
const STOP_TEXTS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|endoftext|>", "</s>"];

impl LanguageModel {
    /// Loads a model from fetched files. `progress` hears (layers loaded, layers).
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<Self, ModelError> {
        let (config, weights, tokenizer, chat_template) = match files {
            ModelFiles::Gguf(path) => {
                let gguf = Gguf::open(path)?;
                let config = ModelConfig::from_gguf(&gguf)?;
                let beside = path.with_file_name("tokenizer.json");
                let tokenizer = match Tokenizer::from_gguf(&gguf) {
                    // SentencePiece vocabularies, and files that do not say how words are split, need the tokenizer file that the
                    // model came with.
                    Err(ModelError::Unsupported { .. }) if beside.is_file() => Tokenizer::from_file(&beside)?,
                    built => built?,
                };
                let chat_template = ChatTemplate::from_gguf(&gguf, &tokenizer)?;
                (config, Weights::Gguf(gguf), tokenizer, chat_template)
            }
            ModelFiles::Folder(folder) => {
                let config = ModelConfig::from_folder(folder)?;
                let weights = Weights::Safetensors(Safetensors::open(files.weight_files()?)?);
                let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
                (config, weights, tokenizer, ChatTemplate::from_folder(folder)?)
            }
        };
        let mut stop_tokens = config.stop_tokens.clone();
        stop_tokens.extend(STOP_TEXTS.iter().filter_map(|text| tokenizer.special_token(text)));
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        let engine = load_engine(&weights, config, options, progress)?;
        // Every tensor was there twice for a moment.
        drop(weights);
        memory::give_back();
        Ok(Self { engine, tokenizer, chat_template, format: options.format, stop_tokens })
    }

    /// Tells the chat template more than transformers does by default: [`ChatTemplate::with_kwargs`].
    ///
    /// # Errors
    ///
    /// There is no template, or it has nothing of a given name to set.
    pub fn with_chat_template_kwargs(mut self, kwargs: Map<String, Json>) -> Result<Self, ModelError> {
        self.chat_template = match self.chat_template {
            Some(template) => Some(template.with_kwargs(kwargs)?),
            None if kwargs.is_empty() => None,
            None => return Err(ModelError::ChatTemplate("the model has none, and so there is nothing to set".into())),
        };
        Ok(self)
    }

    /// What the user should know of the model, a sentence each.
    pub fn notices(&self) -> Vec<String> {
        let dated = self.chat_template.as_ref().is_some_and(ChatTemplate::asks_for_the_date);
        let date = "the chat template writes today's date into prompts, so that those of another day differ; Llama 3's takes \
                    a date to keep: chat_template_kwargs = { date_string = \"26 Jul 2024\" }";
        dated.then(|| date.to_owned()).into_iter().collect()
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
        &self.tokenizer
    }

    /// How the model marks up conversations; base models do not.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// How rows of the KV cache are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All tokens that end generation, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
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
    fn on<B: Backend>(
        backend: B,
        weights: &Weights,
        config: ModelConfig,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<Arc<dyn Engine>, ModelError> {
        Ok(Arc::new(Decoder::load(backend, weights, config, options.weight_type, progress)?))
    }
    match options.device {
        Device::Cpu => on(Cpu, weights, config, options, progress),
        Device::Cuda(index) => on(Candle::cuda(index)?, weights, config, options, progress),
        Device::Metal(index) => on(Candle::metal(index)?, weights, config, options, progress),
        Device::Candle => on(Candle::cpu(), weights, config, options, progress),
        Device::Reference => on(Reference, weights, config, options, progress),
    }
}
