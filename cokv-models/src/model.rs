//! A model ready to run: decoder, tokenizer and chat template, from one place.

use std::fs::File;
use std::io::Read;

use candle_core::Device;
use cokv_core::ObservationRequest;
use sha2::{Digest, Sha256};

use crate::cache::CacheType;
use crate::chat::ChatTemplate;
use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::{ModelError, without_backtrace};
use crate::kernel::memory;
use crate::linear::WeightType;
use crate::prefill::Prefill;
use crate::source::ModelFiles;
use crate::tokenizer::Tokenizer;
use crate::weights::{Gguf, Safetensors, Weights};

/// How a model is held in memory.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Weights as stored, or in f32.
    pub weight_type: WeightType,
    /// Elements of the KV cache.
    pub cache_type: CacheType,
    /// Where linear layers run.
    pub device: Device,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { weight_type: WeightType::default(), cache_type: CacheType::default(), device: Device::Cpu }
    }
}

impl LoadOptions {
    /// Held so, on the accelerator that this build knows, else on the CPU.
    pub fn on_best_device(weight_type: WeightType, cache_type: CacheType) -> Result<Self, ModelError> {
        let no_device =
            |accelerator| move |error| ModelError::NoDevice { accelerator, error: without_backtrace(error) };
        let device = if cfg!(feature = "cuda") {
            Device::new_cuda(0).map_err(no_device("cuda"))?
        } else if cfg!(feature = "metal") {
            Device::new_metal(0).map_err(no_device("metal"))?
        } else {
            Device::Cpu
        };
        Ok(Self { weight_type, cache_type, device })
    }
}

/// A language model with all that belongs to it.
pub struct LanguageModel {
    decoder: Decoder,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    cache_type: CacheType,
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
                let beside = path.with_file_name("tokenizer.json");
                let tokenizer = match Tokenizer::from_gguf(&gguf) {
                    // SentencePiece vocabularies need the tokenizer file that the model came with.
                    Err(ModelError::Unsupported { .. }) if beside.is_file() => Tokenizer::from_file(&beside)?,
                    built => built?,
                };
                let chat_template = ChatTemplate::from_gguf(&gguf, &tokenizer)?;
                (ModelConfig::from_gguf(&gguf)?, Weights::Gguf(gguf), tokenizer, chat_template)
            }
            ModelFiles::Folder(folder) => {
                let weights = Weights::Safetensors(Safetensors::open(files.weight_files()?)?);
                let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
                (ModelConfig::from_folder(folder)?, weights, tokenizer, ChatTemplate::from_folder(folder)?)
            }
        };
        let mut stop_tokens = config.stop_tokens.clone();
        stop_tokens.extend(STOP_TEXTS.iter().filter_map(|text| tokenizer.special_token(text)));
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        let decoder = Decoder::load(&weights, config, options.weight_type, &options.device, progress)?;
        // Every tensor was dense for a moment.
        drop(weights);
        memory::give_back();
        Ok(Self { decoder, tokenizer, chat_template, cache_type: options.cache_type, stop_tokens })
    }

    /// The transformer.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.decoder.config()
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How the model marks up conversations; base models do not.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// How the KV cache stores its elements.
    pub fn cache_type(&self) -> CacheType {
        self.cache_type
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
        Prefill::run(&self.decoder, prompt, self.cache_type, request, progress)
    }
}

/// Identifies everything that a model is made of: a hash of all bytes of its weights and of the
/// configuration and tokenizer files beside them.
pub fn fingerprint(files: &ModelFiles) -> Result<String, ModelError> {
    let mut paths = files.weight_files()?;
    let folder = match files {
        ModelFiles::Gguf(path) => path.parent(),
        ModelFiles::Folder(folder) => Some(folder.as_path()),
    };
    if let Some(folder) = folder {
        let beside =
            ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
        paths.extend(beside.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    for path in paths {
        let mut file = File::open(&path).map_err(ModelError::io(&path))?;
        hash.update(file.metadata().map_err(ModelError::io(&path))?.len().to_le_bytes());
        loop {
            match file.read(&mut block).map_err(ModelError::io(&path))? {
                0 => break,
                read => hash.update(&block[..read]),
            }
        }
    }
    Ok(hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}
