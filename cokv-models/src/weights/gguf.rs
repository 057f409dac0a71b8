//! GGUF: one file with metadata, tokenizer and tensors.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::quantized::{GgmlDType, gguf_file};
use gguf_file::Value;

use super::Stored;
use super::buffer::Buffers;
use crate::error::{ModelError, without_backtrace};

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    content: gguf_file::Content,
    file: Mutex<BufReader<File>>,
    buffers: Buffers,
}

impl Gguf {
    /// Reads the header and checks that no tensor lies beyond the end of the file.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io(path))?;
        let length = file.metadata().map_err(ModelError::io(path))?.len();
        let mut reader = BufReader::new(file);
        let content = gguf_file::Content::read(&mut reader).map_err(|error| {
            let error = without_backtrace(error);
            let known = "F32, F16, BF16, Q4_0 to Q8_1, K-quants";
            let hint =
                format!("fetch it again, or check that its quantisation is one of those that are read ({known})");
            ModelError::malformed(path, format!("not a readable GGUF file ({error}); {hint}"))
        })?;
        for (name, info) in &content.tensor_infos {
            let elements = info.shape.elem_count() as u64;
            let blocks = elements / info.ggml_dtype.block_size() as u64;
            let bytes = blocks.saturating_mul(info.ggml_dtype.type_size() as u64);
            let end = content.tensor_data_offset.saturating_add(info.offset).saturating_add(bytes);
            if end > length {
                let message =
                    format!("truncated: tensor `{name}` ends at byte {end}, the file at {length}; fetch it again");
                return Err(ModelError::malformed(path, message));
            }
        }
        let gguf = Self { path: path.to_path_buf(), content, file: Mutex::new(reader), buffers: Buffers::default() };
        gguf.check_kind()?;
        Ok(gguf)
    }

    /// Files of the same format are made for parts of a model, and for what is none.
    fn check_kind(&self) -> Result<(), ModelError> {
        let unsupported = |message: String| Err(ModelError::unsupported(&self.path, message));
        let parts = self.optional_integer("split.count")?.unwrap_or(1);
        if parts > 1 {
            let part = self.optional_integer("split.no")?.map_or("one".into(), |part| (part + 1).to_string());
            return unsupported(format!(
                "this is part {part} of {parts} of a model; put them together with llama.cpp's `llama-gguf-split --merge \
                 FIRST-PART WHOLE.gguf`"
            ));
        }
        if let Some(kind) = self.optional_string("general.type")?.filter(|kind| kind != "model") {
            return unsupported(format!("this file is of the type `{kind}`, and no model"));
        }
        match self.content.tensor_infos.is_empty() {
            true => unsupported("this file has no weights, only metadata (a vocabulary is all that it holds)".into()),
            false => Ok(()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, as GGUF has them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.content.tensor_infos.keys().map(String::as_str)
    }

    /// Whether the file has a tensor of this (GGUF) name.
    pub fn contains(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    /// What a tensor's numbers are.
    pub(super) fn kind(&self, name: &str) -> Option<GgmlDType> {
        self.content.tensor_infos.get(name).map(|info| info.ggml_dtype)
    }

    /// Dimensions of a tensor, outermost first.
    pub fn tensor_shape(&self, name: &str) -> Result<&[usize], ModelError> {
        let missing = || ModelError::missing_tensor(&self.path, name);
        Ok(self.content.tensor_infos.get(name).ok_or_else(missing)?.shape.dims())
    }

    /// A tensor in f32.
    pub fn dense(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        self.stored(name)?.dense()
    }

    pub(super) fn stored(&self, name: &str) -> Result<Stored, ModelError> {
        let missing = || ModelError::missing_tensor(&self.path, name);
        let info = self.content.tensor_infos.get(name).ok_or_else(missing)?;
        let broken =
            |error: &dyn std::fmt::Display| ModelError::malformed(&self.path, format!("tensor `{name}`: {error}"));
        let kind = info.ggml_dtype;
        let elements = info.shape.elem_count();
        if !elements.is_multiple_of(kind.block_size()) {
            return Err(broken(&format!("{elements} numbers are no whole blocks of {}", kind.block_size())));
        }
        let mut file = self.file.lock().map_err(|error| broken(&error))?;
        file.seek(SeekFrom::Start(self.content.tensor_data_offset + info.offset)).map_err(|error| broken(&error))?;
        let bytes = elements / kind.block_size() * kind.type_size();
        let bytes = self.buffers.read(&mut *file, bytes).map_err(|error| broken(&error))?;
        Ok(Stored::new(info.shape.dims(), kind, bytes))
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.content.metadata.get(key)
    }

    /// A metadata text that must be there.
    pub fn string(&self, key: &str) -> Result<String, ModelError> {
        self.optional_string(key)?.ok_or_else(|| self.missing(key))
    }

    /// A metadata text.
    pub fn optional_string(&self, key: &str) -> Result<Option<String>, ModelError> {
        let read = |value: &Value| value.to_string().cloned().map_err(|error| self.wrong(key, &error));
        self.value(key).map(read).transpose()
    }

    /// A metadata count that must be there.
    pub fn integer(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_integer(key)?.ok_or_else(|| self.missing(key))
    }

    /// A metadata count.
    pub fn optional_integer(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let read = |value: &Value| match value {
            Value::I32(number) => usize::try_from(*number).map_err(|error| self.wrong(key, &error)),
            Value::I64(number) => usize::try_from(*number).map_err(|error| self.wrong(key, &error)),
            other => other.to_u64().map(|number| number as usize).map_err(|error| self.wrong(key, &error)),
        };
        self.value(key).map(read).transpose()
    }

    /// A metadata number that must be there.
    pub fn float(&self, key: &str) -> Result<f32, ModelError> {
        self.optional_float(key)?.ok_or_else(|| self.missing(key))
    }

    /// A metadata number.
    pub fn optional_float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let read = |value: &Value| value.to_f32().map_err(|error| self.wrong(key, &error));
        self.value(key).map(read).transpose()
    }

    pub(crate) fn missing(&self, key: &str) -> ModelError {
        ModelError::malformed(&self.path, format!("metadata `{key}` is missing"))
    }

    fn wrong(&self, key: &str, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::malformed(&self.path, format!("metadata `{key}`: {error}"))
    }
}

/// The name that llama.cpp gives to a tensor of Hugging Face's.
pub(super) fn native_name(name: &str) -> String {
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, ""));
    let native = match stem {
        "model.embed_tokens" => "token_embd".into(),
        "model.norm" => "output_norm".into(),
        "lm_head" => "output".into(),
        _ => match stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
            Some((layer, part)) => {
                let part = match part {
                    "input_layernorm" => "attn_norm",
                    "self_attn.q_proj" => "attn_q",
                    "self_attn.k_proj" => "attn_k",
                    "self_attn.v_proj" => "attn_v",
                    "self_attn.o_proj" => "attn_output",
                    "self_attn.q_norm" => "attn_q_norm",
                    "self_attn.k_norm" => "attn_k_norm",
                    "post_attention_layernorm" => "ffn_norm",
                    "mlp.gate_proj" => "ffn_gate",
                    "mlp.up_proj" => "ffn_up",
                    "mlp.down_proj" => "ffn_down",
                    other => other,
                };
                format!("blk.{layer}.{part}")
            }
            None => stem.into(),
        },
    };
    format!("{native}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::native_name;

    #[test]
    fn names_follow_llama_cpp() {
        for (ours, theirs) in [
            ("model.embed_tokens.weight", "token_embd.weight"),
            ("lm_head.weight", "output.weight"),
            ("model.layers.12.self_attn.k_proj.bias", "blk.12.attn_k.bias"),
            ("model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"),
        ] {
            assert_eq!(native_name(ours), theirs);
        }
    }
}
