//! Files of models that are written otherwise than most, and files that are none.

mod tiny;

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::{DType, Device, Tensor};
use cokv_core::{Format, ObservationRequest};
use cokv_models::config::{ModelConfig, RopeScaling};
use cokv_models::source::ModelFiles;
use cokv_models::tokenizer::Tokenizer;
use cokv_models::weights::Gguf;
use cokv_models::{LanguageModel, LoadOptions, ModelError, Outline, WeightType};
use serde_json::{Value as Json, json};
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
    let unknown = scaling(&[(kind, text("dynamic"))]).unwrap_err().to_string();
    assert!(unknown.contains("`dynamic`") && unknown.contains("known: none, linear, yarn, longrope"), "{unknown}");

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

/// A GGUF file and a folder that say the same of YaRN and LongRoPE are the same model.
#[test]
fn gguf_stretches_are_those_of_a_folder() {
    let of_folder = |rope: Json| {
        let tiny = Tiny::new("llama", json!({ "max_position_embeddings": 1024, "rope_scaling": rope }), false, 8);
        ModelConfig::from_folder(tiny.folder()).unwrap()
    };
    let of_gguf = |metadata: &[(&str, Value)], tensors: &[(&str, &[f32])]| {
        let tiny = llama();
        let metadata: Vec<(String, Value)> =
            metadata.iter().map(|(key, value)| (format!("llama.rope.scaling.{key}"), value.clone())).collect();
        let metadata: Vec<(&str, Value)> = metadata.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let tensor = |numbers: &[f32]| Tensor::new(numbers, &Device::Cpu).unwrap();
        let tensors: Vec<(&str, Tensor)> = tensors.iter().map(|(name, numbers)| (*name, tensor(numbers))).collect();
        let path = tiny.write_gguf_with("llama", GgmlDType::F32, &metadata, &tensors);
        ModelConfig::from_gguf(&Gguf::open(&path).unwrap())
    };
    let same = |folder: ModelConfig, gguf: Result<ModelConfig, ModelError>| {
        let gguf = gguf.unwrap();
        assert_eq!(folder.rope_scaling, gguf.rope_scaling);
        assert!((folder.rope_attention_factor - gguf.rope_attention_factor).abs() < 1e-6, "{gguf:?}");
        assert_eq!(folder.max_tokens(), gguf.max_tokens());
    };
    let number = Value::F32;
    let yarn = [("type", text("yarn")), ("factor", number(4.0)), ("original_context_length", Value::U32(512))];
    let with = |more: &[(&'static str, Value)]| [&yarn[..], more].concat();
    let said = |more: Json| {
        let mut rope = json!({ "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512 });
        rope.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of_folder(rope)
    };
    assert_eq!(said(json!({})).max_tokens(), 2048);
    same(said(json!({})), of_gguf(&yarn, &[]));
    same(said(json!({})), of_gguf(&with(&[("yarn_ext_factor", number(1.0))]), &[]));
    same(said(json!({ "attention_factor": 0.9 })), of_gguf(&with(&[("yarn_attn_factor", number(0.9))]), &[]));
    let both = json!({ "mscale": 1.0, "mscale_all_dim": 0.7 });
    same(said(both), of_gguf(&with(&[("yarn_log_multiplier", number(0.7))]), &[]));
    let betas = [("yarn_beta_fast", number(20.0)), ("yarn_beta_slow", number(2.0))];
    same(said(json!({ "beta_fast": 20, "beta_slow": 2 })), of_gguf(&with(&betas), &[]));
    let part = of_gguf(&with(&[("yarn_ext_factor", number(0.5))]), &[]).unwrap_err().to_string();
    assert!(part.contains("yarn_ext_factor 0.5"), "{part}");
    let swapped = of_gguf(&with(&[("yarn_beta_fast", number(0.5))]), &[]).unwrap_err().to_string();
    assert!(swapped.contains("`beta_slow` is 1"), "{swapped}");

    let (short, long) = ([1.0, 1.1, 1.3, 2.0], [1.0, 2.0, 5.0, 30.0]);
    let longrope = json!({
        "rope_type": "longrope", "short_factor": short, "long_factor": long, "original_max_position_embeddings": 256,
        "attention_factor": 1.25,
    });
    let metadata =
        [("type", text("longrope")), ("original_context_length", Value::U32(256)), ("attn_factor", number(1.25))];
    let tensors: [(&str, &[f32]); 2] = [("rope_factors_short.weight", &short), ("rope_factors_long.weight", &long)];
    same(of_folder(longrope), of_gguf(&metadata, &tensors));
    let missing = of_gguf(&metadata, &tensors[..1]).unwrap_err().to_string();
    assert!(missing.contains("rope_factors_long.weight"), "{missing}");
    let few = of_gguf(&metadata, &[tensors[0], (tensors[1].0, &long[..3])]).unwrap_err().to_string();
    assert!(few.contains("`rope_factors_long.weight` has 3 numbers for 4 pairs"), "{few}");
}

#[test]
fn a_gguf_window_is_one_of_all_layers_or_of_nobody_knows_which() {
    let windows = |architecture: &str, tokens: u32| {
        let tiny = llama();
        let key = format!("{architecture}.attention.sliding_window");
        let metadata = [(key.as_str(), Value::U32(tokens))];
        let path = tiny.write_gguf_with(architecture, GgmlDType::F32, &metadata, &[]);
        ModelConfig::from_gguf(&Gguf::open(&path).unwrap()).map(|config| config.windows)
    };
    assert_eq!(windows("llama", 24).unwrap(), [Some(24); 2]);
    assert_eq!(windows("llama", 0).unwrap(), []);
    // The context has 1,024 tokens, which nothing leaves.
    assert_eq!(windows("qwen2", 1024).unwrap(), []);
    let error = windows("qwen2", 24).unwrap_err().to_string();
    assert!(error.contains("`qwen2.attention.sliding_window` is 24") && error.contains("which layers"), "{error}");
}

#[test]
fn gguf_nonsense_is_refused_by_its_key() {
    for (key, value) in [
        ("llama.rope.scaling.attn_factor", Value::F32(f32::INFINITY)),
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

/// A checkpoint of 8 billion numbers in bfloat16 took 32 GB, because its floats became f32.
#[test]
fn floats_of_16_bits_are_held_in_16_bits_and_give_the_same_bits() {
    for dtype in [DType::BF16, DType::F16] {
        let tiny = Tiny::new("llama", json!({ "max_position_embeddings": 2048 }), false, 8);
        let halves: HashMap<String, Tensor> =
            tiny.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(dtype).unwrap())).collect();
        candle_core::safetensors::save(&halves, tiny.weights()).unwrap();
        let run = |weight_type: WeightType| {
            let options = LoadOptions { weight_type, ..LoadOptions::default() };
            let files = ModelFiles::Folder(tiny.folder().to_path_buf());
            let model = LanguageModel::load(&files, &options, |_, _| {}).unwrap();
            let prompt: Vec<u32> = (0..40).collect();
            let logits = model.prefill(&prompt, ObservationRequest::default(), |_| ()).unwrap().logits().to_vec();
            (model.engine().weight_bytes(), logits)
        };
        let (stored, wide) = (run(WeightType::Stored), run(WeightType::F32));
        assert_eq!(2 * stored.0, wide.0, "{dtype:?}");
        assert_eq!(stored.1, wide.1, "{dtype:?}");
    }
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
