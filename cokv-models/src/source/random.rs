//! Models of a known shape whose weights are drawn: how fast a machine runs an 8B model can be measured, and the library be tried,
//! without fetching one.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{FetchOptions, ModelFiles, SourceError};

/// A shape that weights are drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomSource {
    /// As users write it.
    pub name: &'static str,
    family: &'static str,
    layers: usize,
    query_heads: usize,
    kv_heads: usize,
    hidden_size: usize,
    intermediate_size: usize,
    vocabulary: usize,
    rope_theta: u32,
    tied: bool,
}

/// Shapes of Llama 3 8B, Mistral 7B v0.3, Qwen2.5 7B and SmolLM2 135M, all with contexts of 131,072 tokens, and one that is loaded
/// in a moment, to try things with.
const SHAPES: [RandomSource; 5] = [
    RandomSource {
        name: "llama3-8b",
        family: "llama",
        layers: 32,
        query_heads: 32,
        kv_heads: 8,
        hidden_size: 4096,
        intermediate_size: 14336,
        vocabulary: 128_256,
        rope_theta: 500_000,
        tied: false,
    },
    RandomSource {
        name: "mistral-7b",
        family: "mistral",
        layers: 32,
        query_heads: 32,
        kv_heads: 8,
        hidden_size: 4096,
        intermediate_size: 14336,
        vocabulary: 32_768,
        rope_theta: 1_000_000,
        tied: false,
    },
    RandomSource {
        name: "qwen2.5-7b",
        family: "qwen2",
        layers: 28,
        query_heads: 28,
        kv_heads: 4,
        hidden_size: 3584,
        intermediate_size: 18944,
        vocabulary: 152_064,
        rope_theta: 1_000_000,
        tied: false,
    },
    RandomSource {
        name: "smollm2",
        family: "llama",
        layers: 30,
        query_heads: 9,
        kv_heads: 3,
        hidden_size: 576,
        intermediate_size: 1536,
        vocabulary: 49_152,
        rope_theta: 100_000,
        tied: true,
    },
    RandomSource {
        name: "tiny",
        family: "llama",
        layers: 4,
        query_heads: 4,
        kv_heads: 2,
        hidden_size: 64,
        intermediate_size: 128,
        vocabulary: 256,
        rope_theta: 10_000,
        tied: true,
    },
];

impl RandomSource {
    /// The shape of a name.
    ///
    /// # Errors
    /// The names that there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        let shape = SHAPES.into_iter().find(|shape| shape.name == name);
        shape.ok_or_else(|| format!("weights can be drawn for {}", names.join(", ")))
    }

    /// Writes configuration and tokenizer to cokv's cache.
    pub(super) fn fetch(self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        let folder = options.cache.join("random").join(self.name);
        write(&folder, "config.json", &self.config())?;
        write(&folder, "tokenizer.json", &tokenizer())?;
        Ok(ModelFiles::Random(folder))
    }

    fn config(self) -> Value {
        json!({
            "model_type": self.family,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.query_heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 131_072,
            "rope_theta": self.rope_theta,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": self.tied,
            "sliding_window": null,
            "torch_dtype": "bfloat16",
        })
    }
}

/// Every byte is a token, as GPT-2 writes bytes.
fn tokenizer() -> Value {
    let mut spare = 256u32..;
    let printed = |byte: u32| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let letter = |byte: u32| if printed(byte) { byte } else { spare.next().unwrap_or(0) };
    let letters = (0..256u32).map(letter).filter_map(char::from_u32);
    let vocabulary: Map<String, Value> =
        letters.enumerate().map(|(id, letter)| (letter.to_string(), json!(id))).collect();
    json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    })
}

/// Writes a file that is not there as it should be.
fn write(folder: &Path, name: &str, content: &Value) -> Result<(), SourceError> {
    let (path, text) = (folder.join(name), content.to_string());
    if fs::read_to_string(&path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&path, text));
    written.map_err(SourceError::io("write", &path))
}
