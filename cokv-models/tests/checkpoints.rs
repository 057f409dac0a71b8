//! Files of models that are written otherwise than most, and files that are none.

mod tiny;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::{Device, Tensor};
use cokv_core::{Format, ObservationRequest};
use cokv_models::config::{ModelConfig, RopeScaling};
use cokv_models::source::ModelFiles;
use cokv_models::tokenizer::Tokenizer;
use cokv_models::weights::Gguf;
use cokv_models::{LanguageModel, LoadOptions, ModelError, Outline, WeightType};
use serde_json::json;
use tiny::Tiny;

fn llama() -> Tiny {
    Tiny::new("llama", json!({}), false, 8)
}

fn load(files: ModelFiles) -> Result<LanguageModel, ModelError> {
    let options = LoadOptions { weight_type: WeightType::F32, format: Format::F32, ..LoadOptions::default() };
    LanguageModel::load(&files, &options, |_, _| {})
}

fn load_folder(tiny: &Tiny) -> Result<LanguageModel, ModelError> {
    load(ModelFiles::Folder(tiny.folder().to_path_buf()))
}

fn gguf_with(metadata: &[(&str, Value)]) -> (Tiny, PathBuf) {
    let tiny = llama();
    let path = tiny.write_gguf_with("llama", GgmlDType::F32, metadata, &[]);
    (tiny, path)
}

fn refusal(metadata: &[(&str, Value)]) -> String {
    let (_tiny, path) = gguf_with(metadata);
    load(ModelFiles::Gguf(path)).err().map(|error| error.to_string()).unwrap_or_default()
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// What an outline says of weights is what loading them makes of them.
#[test]
fn an_outline_knows_what_the_weights_will_take() {
    let tiny = Tiny::of_size([256, 256], "llama", json!({}), false, 64, |_, _| {});
    let outline = |files: &ModelFiles| Outline::open(files).unwrap();
    let loaded = |files: &ModelFiles, weight_type: WeightType| {
        let options = LoadOptions { weight_type, ..LoadOptions::default() };
        LanguageModel::load(files, &options, |_, _| {}).unwrap().engine().weight_bytes() as u64
    };
    let folder = ModelFiles::Folder(tiny.folder().to_path_buf());
    let weights = outline(&folder).weights().clone();
    for held in [WeightType::Stored, WeightType::F32] {
        assert_eq!(weights.step_bytes(held), loaded(&folder, held));
    }
    // The embedding table is its own, [50, 256] in f32.
    assert_eq!(weights.bytes(WeightType::F32), weights.step_bytes(WeightType::F32) + 50 * 256 * 4);
    assert_eq!(
        (weights.numbers() * 4, weights.integer_share(WeightType::Stored)),
        (weights.bytes(WeightType::F32), 0.0)
    );
    for kind in [GgmlDType::Q4_0, GgmlDType::Q4K, GgmlDType::Q5_1, GgmlDType::Q6K, GgmlDType::Q8_0] {
        let gguf = ModelFiles::Gguf(tiny.write_gguf_of("llama", kind));
        let quantised = outline(&gguf).weights().clone();
        // The 50 columns of the output layer are padded to 64.
        let (told, found) = (quantised.step_bytes(WeightType::Stored), loaded(&gguf, WeightType::Stored));
        assert!(told <= found && found - told <= 14 * 256 * 34 / 32, "{kind:?}: {told} told, {found} found");
        assert_eq!((quantised.numbers(), quantised.integer_share(WeightType::Stored)), (weights.numbers(), 1.0));
    }

    // Without weights they are taken to have 16 bits, unless the configuration says otherwise.
    std::fs::remove_file(tiny.weights()).unwrap();
    assert_eq!(2 * outline(&folder).weights().bytes(WeightType::Stored), weights.bytes(WeightType::Stored));
    let mut config = tiny.config.clone();
    config["torch_dtype"] = json!("float32");
    std::fs::write(tiny.folder().join("config.json"), config.to_string()).unwrap();
    assert_eq!(outline(&folder).weights().bytes(WeightType::Stored), weights.bytes(WeightType::Stored));
    assert!(load_folder(&tiny).is_err_and(|error| error.to_string().contains("no safetensors weights")));
}

#[test]
fn gguf_files_of_other_shapes_say_what_they_are() {
    assert_eq!(refusal(&[("general.type", text("model")), ("split.count", Value::U16(0))]), "");
    assert_eq!(refusal(&[("llama.expert_count", Value::U32(0))]), "");
    let part = refusal(&[("split.count", Value::U16(3)), ("split.no", Value::U16(1))]);
    assert!(part.contains("this is part 2 of 3 of a model") && part.contains("llama-gguf-split --merge"), "{part}");
    assert!(refusal(&[("general.type", text("adapter"))]).contains("of the type `adapter`, and no model"));
    let experts = refusal(&[("llama.expert_count", Value::U32(8))]);
    assert!(experts.contains("a mixture of 8 experts is not implemented"), "{experts}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocabulary.gguf");
    let architecture = ("general.architecture", &text("llama"));
    gguf_file::write(&mut File::create(&path).unwrap(), &[architecture], &[]).unwrap();
    assert!(Gguf::open(&path).err().unwrap().to_string().contains("no weights, only metadata"));
}

#[test]
fn gguf_rope_factors_have_the_defaults_of_llama_cpp() {
    let scaling = |metadata: &[(&str, Value)]| {
        let (_tiny, path) = gguf_with(metadata);
        ModelConfig::from_gguf(&Gguf::open(&path).unwrap()).map(|config| config.rope_scaling)
    };
    let (kind, factor, old) = ("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scale_linear");
    let linear = |factor| RopeScaling::Linear { factor };
    for (metadata, expected) in [
        (vec![], RopeScaling::None),
        (vec![(kind, text("linear")), (factor, Value::F32(4.0))], linear(4.0)),
        (vec![(factor, Value::F32(4.0))], linear(4.0)),
        (vec![(old, Value::F32(2.0))], linear(2.0)),
        (vec![(kind, text("linear")), (old, Value::F32(2.0))], linear(2.0)),
        (vec![(factor, Value::F32(4.0)), (old, Value::F32(2.0))], linear(4.0)),
        (vec![(factor, Value::F32(0.0))], RopeScaling::None),
        (vec![(kind, text("linear"))], RopeScaling::None),
        (vec![(kind, text("none")), (factor, Value::F32(4.0))], RopeScaling::None),
    ] {
        assert_eq!(scaling(&metadata).unwrap(), expected, "{metadata:?}");
    }
    assert!(scaling(&[(kind, text("yarn"))]).unwrap_err().to_string().contains("`yarn` is not implemented"));

    let divisors = |numbers: &[f32], metadata: &[(&str, Value)]| {
        let (tiny, numbers) = (llama(), Tensor::new(numbers, &Device::Cpu).unwrap());
        let path = tiny.write_gguf_with("llama", GgmlDType::F32, metadata, &[("rope_freqs.weight", numbers)]);
        ModelConfig::from_gguf(&Gguf::open(&path).unwrap()).map(|config| config.rope_scaling)
    };
    let numbers = [1.0, 2.0, 4.0, 8.0];
    assert_eq!(divisors(&numbers, &[]).unwrap(), RopeScaling::Divisors(numbers.to_vec()));
    let stretched = divisors(&numbers, &[(factor, Value::F32(2.0))]).unwrap();
    assert_eq!(stretched, RopeScaling::Divisors(vec![2.0, 4.0, 8.0, 16.0]));
    for wrong in [&[1.0, 1.0, 1.0][..], &[1.0, 0.0, 1.0, 1.0], &[1.0, 1.0, f32::NAN, 1.0]] {
        assert!(divisors(wrong, &[]).unwrap_err().to_string().contains("`rope_freqs.weight`"), "{wrong:?}");
    }
}

#[test]
fn gguf_nonsense_is_refused_by_its_key() {
    for (key, value) in [
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(f32::INFINITY)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)),
        ("llama.rope.freq_base", Value::F32(f32::NAN)),
        ("llama.rope.freq_base", Value::F32(f32::INFINITY)),
        ("llama.rope.freq_base", Value::F32(0.0)),
        ("llama.rope.scaling.factor", Value::F32(-2.0)),
        ("llama.rope.scaling.factor", Value::F32(f32::NAN)),
        ("llama.context_length", Value::U32(0)),
        ("llama.block_count", Value::U32(u32::MAX)),
        ("llama.attention.head_count", Value::U32(u32::MAX)),
        ("llama.embedding_length", Value::U32(u32::MAX)),
    ] {
        let error = refusal(&[(key, value.clone())]);
        assert!(error.contains(&format!("tiny.gguf: `{key}` is")), "{value:?}: {error}");
    }
}

#[test]
fn fewer_layers_than_a_file_has_are_refused() {
    let tiny = Tiny::new("llama", json!({ "num_hidden_layers": 1 }), false, 8);
    let error = load_folder(&tiny).err().unwrap().to_string();
    assert!(error.contains("2 layers are in it") && error.contains("num_hidden_layers"), "{error}");
    let error = refusal(&[("llama.block_count", Value::U32(1))]);
    assert!(error.contains("2 layers are in it") && error.contains("block_count"), "{error}");
}

#[test]
fn weights_that_were_never_written_are_refused() {
    let zero = |part: &'static str| {
        let change = move |name: &str, numbers: &mut [f32]| {
            if name.contains(part) {
                numbers.fill(0.0);
            }
        };
        Tiny::with_weights("qwen2", json!({ "use_sliding_window": false }), false, 8, change)
    };
    for part in ["model.norm", "lm_head", "embed_tokens", "layers.1.mlp.up_proj", "layers.0.self_attn.q_proj.weight"] {
        let tiny = zero(part);
        for files in [ModelFiles::Folder(tiny.folder().to_path_buf()), ModelFiles::Gguf(tiny.write_gguf("qwen2"))] {
            let error = load(files).err().unwrap().to_string();
            assert!(error.contains(part) && error.contains("nothing but zeros"), "{part}: {error}");
        }
    }
    for part in ["bias", "layers.1.self_attn.o_proj", "layers.1.mlp.down_proj"] {
        assert!(load_folder(&zero(part)).is_ok(), "{part}");
    }
}

#[test]
fn a_model_saved_without_its_output_layer_is_the_same_model() {
    let tiny = Tiny::new("llama", json!({}), true, 8);
    let logits = || {
        let model = load_folder(&tiny).unwrap();
        model.prefill(&[3, 1, 4, 1, 5], ObservationRequest::default(), |_| ()).unwrap().logits().to_vec()
    };
    let whole = logits();
    let base: HashMap<String, Tensor> =
        tiny.tensors.iter().map(|(name, tensor)| (name.replace("model.", ""), tensor.clone())).collect();
    candle_core::safetensors::save(&base, tiny.weights()).unwrap();
    assert_eq!(logits(), whole);
}

/// Byte-level BPE of the letters a and b, as GGUF has it.
fn bpe(more: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let texts = |texts: &[&str]| Value::Array(texts.iter().map(|part| text(part)).collect());
    let mut metadata = vec![
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "<s>", "</s>"])),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.token_type", Value::Array([1, 1, 1, 3, 3].map(Value::I32).to_vec())),
        ("tokenizer.ggml.bos_token_id", Value::U32(3)),
        ("tokenizer.ggml.eos_token_id", Value::U32(4)),
    ];
    metadata.extend(more.iter().cloned());
    metadata
}

#[test]
fn a_gguf_tokenizer_that_does_not_say_how_it_splits_words_needs_a_tokenizer_json() {
    for unsaid in [&[][..], &[("tokenizer.ggml.pre", text("default"))]] {
        let (tiny, path) = gguf_with(&bpe(unsaid));
        let gguf = Gguf::open(&path).unwrap();
        let error = Tokenizer::from_gguf(&gguf).err().unwrap().to_string();
        assert!(error.contains("`tokenizer.ggml.pre` is missing or `default`"), "{error}");
        assert!(error.contains("put the tokenizer.json"), "{error}");
        assert!(load(ModelFiles::Gguf(path.clone())).is_ok(), "there is one beside the file");
        std::fs::remove_file(tiny.folder().join("tokenizer.json")).unwrap();
        assert!(load(ModelFiles::Gguf(path)).is_err());
    }
}

#[test]
fn a_gguf_tokenizer_opens_and_closes_texts_as_its_metadata_say() {
    let ids = |flags: &[(&'static str, Value)]| {
        let (_tiny, path) = gguf_with(&bpe(&[&[("tokenizer.ggml.pre", text("gpt-2"))], flags].concat()));
        let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
        (tokenizer.encode("abb", true).unwrap(), tokenizer.encode_conversation("abb").unwrap())
    };
    let (opens, closes) = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token");
    assert_eq!(ids(&[]), (vec![2, 1], vec![2, 1]));
    assert_eq!(ids(&[(opens, Value::Bool(true))]), (vec![3, 2, 1], vec![3, 2, 1]));
    assert_eq!(ids(&[(opens, Value::Bool(false)), (closes, Value::Bool(true))]), (vec![2, 1, 4], vec![2, 1]));
}
