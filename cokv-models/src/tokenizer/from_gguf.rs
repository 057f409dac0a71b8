//! Byte-level BPE from GGUF metadata.

use candle_core::quantized::gguf_file::Value;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::error::ModelError;
use crate::weights::Gguf;

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What to do where the metadata is not enough.
const BESIDE: &str = "put the tokenizer.json of the model's original repository into the folder of this file";

/// Numbers that llama.cpp gives to kinds of tokens.
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

pub(super) fn build(gguf: &Gguf) -> Result<Tokenizer, ModelError> {
    let unsupported = |message: String| ModelError::unsupported(gguf.path(), message);
    let failed = |error: &dyn std::fmt::Display| ModelError::Tokenizer(format!("{}: {error}", gguf.path().display()));

    let model = gguf.string("tokenizer.ggml.model")?;
    if model != "gpt2" {
        return Err(unsupported(format!(
            "its tokenizer is of kind `{model}`, and only byte-level BPE (`gpt2`) can be built from GGUF metadata; {BESIDE}"
        )));
    }
    let tokens = texts(gguf, "tokenizer.ggml.tokens")?;
    let merges = texts(gguf, "tokenizer.ggml.merges")?
        .into_iter()
        .map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => Err(ModelError::malformed(gguf.path(), format!("`{merge}` is no merge of two tokens"))),
        })
        .collect::<Result<Vec<_>, _>>()?;

    let split = |pattern: &str| -> Result<PreTokenizerWrapper, ModelError> {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(|error| failed(&error))?.into())
    };
    let bytes = |split_words: bool| PreTokenizerWrapper::from(ByteLevel::new(false, true, split_words));
    let pre = gguf.optional_string("tokenizer.ggml.pre")?.filter(|pre| pre != "default").ok_or_else(|| {
        unsupported(format!(
            "it does not say how its tokenizer splits words (`tokenizer.ggml.pre` is missing or `default`), and a guess would \
             cut prompts otherwise than in training; {BESIDE}, or convert the model again"
        ))
    })?;
    let mut composed = false;
    let (steps, ignore_merges) = match pre.as_str() {
        "smollm" | "starcoder" | "refact" | "command-r" => (vec![Digits::new(true).into(), bytes(true)], false),
        "qwen2" | "deepseek-r1-qwen" => {
            composed = true;
            (vec![split(QWEN2)?, bytes(false)], false)
        }
        "llama-bpe" | "llama3" | "llama-v3" => (vec![split(LLAMA3)?, bytes(false)], true),
        "gpt-2" => (vec![bytes(true)], false),
        other => {
            return Err(unsupported(format!(
                "pre-tokenizer `{other}` is not known (known: smollm, qwen2, llama-bpe, gpt-2); {BESIDE}"
            )));
        }
    };

    let vocabulary = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id)).collect::<Vec<(String, u32)>>();
    let bpe = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .ignore_merges(ignore_merges)
        .build()
        .map_err(|error| failed(&error))?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(Sequence::new(steps)));
    inner.with_decoder(Some(ByteLevel::default()));
    if composed {
        inner.with_normalizer(Some(NFC)).map_err(|error| failed(&error))?;
    }

    let kinds = integers(gguf, "tokenizer.ggml.token_type")?;
    let added = tokens.iter().zip(kinds).filter_map(|(token, kind)| match kind {
        CONTROL => Some(AddedToken::from(token.clone(), true)),
        USER_DEFINED => Some(AddedToken::from(token.clone(), false).normalized(false)),
        _ => None,
    });
    inner.add_tokens(added.collect::<Vec<_>>()).map_err(|error| failed(&error))?;

    let flag = |key: &str| match gguf.value(key) {
        Some(Value::Bool(flag)) => Some(*flag),
        _ => None,
    };
    let end = |asked: bool, key: &str| -> Result<Vec<u32>, ModelError> {
        let id = if asked { gguf.optional_integer(key)? } else { None };
        Ok(id.map(|id| id as u32).into_iter().collect())
    };
    let opens = flag("tokenizer.ggml.add_bos_token").unwrap_or(ignore_merges);
    let closes = flag("tokenizer.ggml.add_eos_token").unwrap_or(false);
    let opening = end(opens, "tokenizer.ggml.bos_token_id")?;
    let closing = end(closes, "tokenizer.ggml.eos_token_id")?;
    Ok(Tokenizer { inner, opening, closing })
}

fn array<'a>(gguf: &'a Gguf, key: &str) -> Result<&'a [Value], ModelError> {
    match gguf.value(key) {
        Some(Value::Array(values)) => Ok(values),
        _ => Err(ModelError::malformed(
            gguf.path(),
            format!("metadata `{key}` is missing, so that no tokenizer can be built"),
        )),
    }
}

fn texts(gguf: &Gguf, key: &str) -> Result<Vec<String>, ModelError> {
    let wrong = || ModelError::malformed(gguf.path(), format!("metadata `{key}` is no list of texts"));
    array(gguf, key)?.iter().map(|value| value.to_string().cloned().map_err(|_| wrong())).collect()
}

fn integers(gguf: &Gguf, key: &str) -> Result<Vec<usize>, ModelError> {
    let wrong = || ModelError::malformed(gguf.path(), format!("metadata `{key}` is no list of numbers"));
    array(gguf, key)?
        .iter()
        .map(|value| match value {
            Value::I32(number) => usize::try_from(*number).map_err(|_| wrong()),
            other => other.to_u64().map(|number| number as usize).map_err(|_| wrong()),
        })
        .collect()
}
