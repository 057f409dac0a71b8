//! Checkpoints of two layers with random weights, written as users' files are.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{Device, Tensor};
use gguf_file::Value;
use serde_json::{Value as Json, json};

const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 48;
const VOCABULARY: usize = 50;
const QUERY_HEADS: usize = 4;
const LAYERS: usize = 2;

pub struct Tiny {
    folder: tempfile::TempDir,
    pub config: Json,
    pub tensors: HashMap<String, Tensor>,
}

impl Tiny {
    pub fn new(family: &str, settings: Json, tied: bool, head_dim: usize) -> Self {
        Self::with_weights(family, settings, tied, head_dim, |_, _| {})
    }

    pub fn with_weights(
        family: &str,
        settings: Json,
        tied: bool,
        head_dim: usize,
        change: impl Fn(&str, &mut [f32]),
    ) -> Self {
        Self::of_size([HIDDEN, INTERMEDIATE], family, settings, tied, head_dim, change)
    }

    /// With `[hidden_size, intermediate_size]` of one's own: blocks of K-quants hold 256 numbers.
    pub fn of_size(
        [hidden, intermediate]: [usize; 2],
        family: &str,
        settings: Json,
        tied: bool,
        head_dim: usize,
        change: impl Fn(&str, &mut [f32]),
    ) -> Self {
        let mut config = json!({
            "model_type": family, "hidden_act": "silu", "hidden_size": hidden, "intermediate_size": intermediate,
            "num_hidden_layers": LAYERS, "num_attention_heads": QUERY_HEADS, "num_key_value_heads": 2,
            "vocab_size": VOCABULARY, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": tied, "max_window_layers": 2,
        });
        // The tensors follow the family's own defaults; settings may then lie about them.
        let kv_heads = settings["num_key_value_heads"].as_u64().filter(|heads| 4 % heads == 0).unwrap_or(2) as usize;
        for (key, value) in settings.as_object().unwrap() {
            config[key] = value.clone();
        }
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("model.embed_tokens.weight".into(), vec![VOCABULARY, hidden]),
            ("model.norm.weight".into(), vec![hidden]),
        ];
        if !tied {
            shapes.push(("lm_head.weight".into(), vec![VOCABULARY, hidden]));
        }
        for layer in 0..LAYERS {
            let mut add =
                |name: &str, shape: &[usize]| shapes.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
            let (queries, keys) = (QUERY_HEADS * head_dim, kv_heads * head_dim);
            add("input_layernorm.weight", &[hidden]);
            add("post_attention_layernorm.weight", &[hidden]);
            for (name, rows) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
                add(&format!("self_attn.{name}.weight"), &[rows, hidden]);
                if family == "qwen2" {
                    add(&format!("self_attn.{name}.bias"), &[rows]);
                }
            }
            add("self_attn.o_proj.weight", &[hidden, queries]);
            if family == "qwen3" {
                add("self_attn.q_norm.weight", &[head_dim]);
                add("self_attn.k_norm.weight", &[head_dim]);
            }
            add("mlp.gate_proj.weight", &[intermediate, hidden]);
            add("mlp.up_proj.weight", &[intermediate, hidden]);
            add("mlp.down_proj.weight", &[hidden, intermediate]);
        }
        let tensors: HashMap<String, Tensor> = shapes
            .into_iter()
            .enumerate()
            .map(|(seed, (name, shape))| {
                let mut numbers = random(shape.iter().product(), seed as u64);
                if name.contains("norm") {
                    numbers.iter_mut().for_each(|x| *x = 1.0 + 0.3 * *x);
                }
                change(&name, &mut numbers);
                let tensor = Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap();
                (name, tensor)
            })
            .collect();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        let vocabulary: serde_json::Map<_, _> = (0..VOCABULARY).map(|id| (format!("t{id}"), json!(id))).collect();
        let tokenizer = json!({
            "version": "1.0", "added_tokens": [],
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "t0" },
        });
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Self { folder, config, tensors }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn weights(&self) -> PathBuf {
        self.folder().join("model.safetensors")
    }

    /// The same weights under llama.cpp's names.
    pub fn write_gguf(&self, architecture: &str) -> PathBuf {
        self.write_gguf_of(architecture, GgmlDType::F32)
    }

    /// The same with matrices quantised. The tokenizer is the one beside the file.
    pub fn write_gguf_of(&self, architecture: &str, kind: GgmlDType) -> PathBuf {
        self.write_gguf_with(architecture, kind, &[], &[])
    }

    /// The same with metadata and tensors of one's own, in place of those of the same names.
    pub fn write_gguf_with(
        &self,
        architecture: &str,
        kind: GgmlDType,
        metadata: &[(&str, Value)],
        tensors: &[(&str, Tensor)],
    ) -> PathBuf {
        let path = self.folder().join("tiny.gguf");
        let number = |key: &str| Value::U32(self.config[key].as_u64().unwrap() as u32);
        let float = |key: &str| Value::F32(self.config[key].as_f64().unwrap() as f32);
        let mut all = HashMap::from([
            ("general.architecture".to_owned(), Value::String(architecture.into())),
            (format!("{architecture}.block_count"), number("num_hidden_layers")),
            (format!("{architecture}.context_length"), number("max_position_embeddings")),
            (format!("{architecture}.embedding_length"), number("hidden_size")),
            (format!("{architecture}.feed_forward_length"), number("intermediate_size")),
            (format!("{architecture}.attention.head_count"), number("num_attention_heads")),
            (format!("{architecture}.attention.head_count_kv"), number("num_key_value_heads")),
            (format!("{architecture}.attention.layer_norm_rms_epsilon"), float("rms_norm_eps")),
            (format!("{architecture}.rope.freq_base"), float("rope_theta")),
            ("tokenizer.ggml.model".to_owned(), Value::String("llama".into())),
        ]);
        all.extend(metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let metadata: Vec<(&str, &Value)> = all.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let own = tensors.iter().map(|(name, tensor)| (llama_cpp_name(name), tensor));
        let mut all: HashMap<String, QTensor> = HashMap::new();
        for (name, tensor) in self.tensors.iter().map(|(name, tensor)| (llama_cpp_name(name), tensor)).chain(own) {
            let kind = if tensor.rank() == 2 { kind } else { GgmlDType::F32 };
            all.insert(name, QTensor::quantize(tensor, kind).unwrap());
        }
        let tensors: Vec<(&str, &QTensor)> = all.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        gguf_file::write(&mut File::create(&path).unwrap(), &metadata, &tensors).unwrap();
        path
    }
}

fn llama_cpp_name(name: &str) -> String {
    [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (theirs, ours)| name.replace(theirs, ours))
}

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}
