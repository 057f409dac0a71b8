//! What is known of a model without its weights: enough to make prompts for it, and to say what it would take.

mod kinds;

use std::path::Path;

use serde_json::{Map, Value as Json};

pub use self::kinds::WeightKinds;
use crate::chat::ChatTemplate;
use crate::config::{Generation, ModelConfig};
use crate::error::ModelError;
use crate::sampling::Sampling;
use crate::source::ModelFiles;
use crate::tokenizer::Tokenizer;
use crate::weights::{Gguf, Weights};

/// Configuration, tokenizer and chat template of a model, and how large its weights are.
pub struct Outline {
    config: ModelConfig,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    stop_tokens: Vec<u32>,
    sampling: Sampling,
    weights: WeightKinds,
}

/// Texts of tokens that end an answer in the families that the decoder knows, whatever the configuration lists.
const STOP_TEXTS: [&str; 6] = ["<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "<|endoftext|>", "</s>"];

impl Outline {
    /// Reads the small files of a model and the headers of those that hold its weights. Of a folder without weights these
    /// are taken to be in the numbers that its configuration names, or in 16 bits.
    ///
    /// # Errors
    /// A file is missing, damaged, or of a model that the decoder does not know.
    pub fn open(files: &ModelFiles) -> Result<Self, ModelError> {
        let (config, weights, tokenizer, chat_template, sampling) = match files {
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
                let weights = WeightKinds::of(&config, &Weights::Gguf(gguf));
                (config, weights, tokenizer, chat_template, Sampling::default())
            }
            ModelFiles::Folder(folder) | ModelFiles::Random(folder) => {
                let generation = Generation::read(folder)?;
                let config = ModelConfig::beside(folder, &generation)?;
                let weights = match files.weight_files() {
                    Ok(_) if !matches!(files, ModelFiles::Random(_)) => {
                        WeightKinds::of(&config, &Weights::open(files)?)
                    }
                    _ => WeightKinds::dense(&config, is_single(folder)?),
                };
                let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
                let chat_template = ChatTemplate::from_folder(folder)?;
                (config, weights, tokenizer, chat_template, generation.sampling()?)
            }
        };
        let mut stop_tokens = config.stop_tokens.clone();
        stop_tokens.extend(STOP_TEXTS.iter().filter_map(|text| tokenizer.special_token(text)));
        stop_tokens.sort_unstable();
        stop_tokens.dedup();
        Ok(Self { config, tokenizer, chat_template, stop_tokens, sampling, weights })
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

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How the model marks up conversations; base models do not.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// All tokens that end generation, ascending.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop_tokens
    }

    /// How its answers are drawn where nobody says it: as `generation_config.json` has it, else from the model's own distribution. Whether
    /// that is within the ranges is for [`Sampling::check`] to say.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// How large the weights are.
    pub fn weights(&self) -> &WeightKinds {
        &self.weights
    }
}

/// Whether a folder's configuration says that its numbers have 32 bits.
fn is_single(folder: &Path) -> Result<bool, ModelError> {
    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
    let json: Json = serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))?;
    // Called `torch_dtype` before transformers 5.
    Ok(["dtype", "torch_dtype"].iter().any(|key| json[*key] == "float32"))
}
