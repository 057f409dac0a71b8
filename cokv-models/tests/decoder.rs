//! The decoder against candle's own models, on tiny random checkpoints of every family.

mod tiny;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, mistral, qwen2, qwen3};
use cokv_core::{Format, HeadSelection, ObservationRequest, Selection, WindowSum};
use cokv_models::ask::Ask;
use cokv_models::cache::RaggedCache;
use cokv_models::config::ModelConfig;
use cokv_models::engine::{Engine, Row};
use cokv_models::weights::{Gguf, Safetensors, Weights};
use cokv_models::{LoadOptions, ModelError, Prefill, WeightType, load_engine};
use serde_json::{Value as Json, json};
use tiny::Tiny;

const OPTIONS: LoadOptions =
    LoadOptions { weight_type: WeightType::F32, format: Format::F32, device: cokv_models::Device::Cpu };

fn load(tiny: &Tiny) -> Result<Arc<dyn Engine>, ModelError> {
    let config = ModelConfig::from_folder(tiny.folder())?;
    let weights = Weights::Safetensors(Safetensors::open(vec![tiny.weights()])?);
    load_engine(&weights, config, &OPTIONS, |_, _| {})
}

fn decoder(tiny: &Tiny) -> Arc<dyn Engine> {
    load(tiny).unwrap()
}

fn prompt(tokens: usize) -> Vec<u32> {
    (0..tokens as u32).map(|i| (i * 31 + i / 7) % 50).collect()
}

fn prefill(decoder: &Arc<dyn Engine>, tokens: &[u32]) -> Prefill {
    Prefill::run(decoder, tokens, Format::F32, ObservationRequest::default(), |_| {}).unwrap()
}

/// Logits after some more tokens.
fn logits(decoder: &Arc<dyn Engine>, tokens: &[u32], cache: &mut RaggedCache) -> Vec<f32> {
    let mut answers = decoder.step(&mut [Row::new(tokens, cache, Ask::Logits)]).unwrap();
    answers.remove(0).logits(String::new).unwrap()
}

fn assert_close(ours: &[f32], theirs: &Tensor, what: &str) {
    let theirs: Vec<f32> = theirs.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let largest = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let scale = theirs.iter().map(|x| x.abs()).fold(0.0, f32::max);
    assert!(largest < 1e-4 * scale.max(1.0), "{what}: logits differ by {largest} (scale {scale})");
}

/// candle's logits of the last token.
fn oracle(family: &str, tiny: &Tiny, tokens: &[u32]) -> Tensor {
    let device = Device::Cpu;
    let data = std::fs::read(tiny.weights()).unwrap();
    let vb = VarBuilder::from_buffered_safetensors(data, DType::F32, &device).unwrap();
    let input = Tensor::new(tokens, &device).unwrap().unsqueeze(0).unwrap();
    let json = tiny.config.clone();
    match family {
        "llama" => {
            let config: llama::LlamaConfig = serde_json::from_value(json).unwrap();
            let config = config.into_config(false);
            let mut cache = llama::Cache::new(false, DType::F32, &config, &device).unwrap();
            llama::Llama::load(vb, &config).unwrap().forward(&input, 0, &mut cache).unwrap()
        }
        "mistral" => {
            let config: mistral::Config = serde_json::from_value(json).unwrap();
            mistral::Model::new(&config, vb).unwrap().forward(&input, 0).unwrap()
        }
        "qwen2" => {
            let config: qwen2::Config = serde_json::from_value(json).unwrap();
            qwen2::ModelForCausalLM::new(&config, vb).unwrap().forward(&input, 0).unwrap()
        }
        _ => {
            let config: qwen3::Config = serde_json::from_value(json).unwrap();
            qwen3::ModelForCausalLM::new(&config, vb).unwrap().forward(&input, 0).unwrap()
        }
    }
}

#[test]
fn every_family_equals_candle() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    });
    let cases: [(&str, &str, Json, bool, usize); 6] = [
        ("Llama 2", "llama", json!({ "num_key_value_heads": 4 }), false, 8),
        ("Llama 3, tied", "llama", json!({ "rope_theta": 500000.0, "tie_word_embeddings": true }), true, 8),
        ("Llama 3.1", "llama", json!({ "rope_theta": 500000.0, "rope_scaling": llama3 }), false, 8),
        ("Mistral", "mistral", json!({ "sliding_window": null, "use_flash_attn": false }), false, 8),
        ("Qwen2", "qwen2", json!({ "use_sliding_window": false, "sliding_window": 4096 }), true, 8),
        ("Qwen3", "qwen3", json!({ "head_dim": 12, "use_sliding_window": false, "attention_bias": false }), false, 12),
    ];
    for (name, family, settings, tied, head_dim) in cases {
        let tiny = Tiny::new(family, settings, tied, head_dim);
        let decoder = decoder(&tiny);
        for tokens in [1, 40] {
            let prompt = prompt(tokens);
            assert_close(prefill(&decoder, &prompt).logits(), &oracle(family, &tiny, &prompt), name);
        }
    }
}

#[test]
fn chunks_and_single_steps_compute_the_same() {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let decoder = decoder(&tiny);
    // Longer than one chunk of prefill.
    let prompt = prompt(700);
    let whole = prefill(&decoder, &prompt);
    assert_close(whole.logits(), &oracle("llama", &tiny, &prompt), "700 tokens");

    let start = prefill(&decoder, &prompt[..690]);
    let mut cache = RaggedCache::full(start.prompt());
    let mut last = Vec::new();
    for token in &prompt[690..] {
        last = logits(&decoder, &[*token], &mut cache);
    }
    assert_close(&last, &oracle("llama", &tiny, &prompt), "single steps");
    assert_eq!(cache.next_position(), 700);
}

#[test]
fn an_evicted_token_is_as_if_it_were_masked() {
    // Evicting everything but the last token must equal attention to that token alone: the value it holds.
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let decoder = decoder(&tiny);
    let prompt = prompt(30);
    let prefilled = prefill(&decoder, &prompt);
    let heads = prefilled.prompt().layout().heads();
    let kept = |tokens: Vec<u32>| Selection { heads: vec![HeadSelection::Tokens(tokens); heads] };
    let mut caches = [kept((0..30).collect()), kept(vec![29]), kept(vec![])]
        .map(|selection| RaggedCache::compressed(prefilled.prompt(), &selection).unwrap());
    let mut full = RaggedCache::full(prefilled.prompt());
    let step = |cache: &mut RaggedCache| logits(&decoder, &[7], cache);
    let all: Vec<Vec<f32>> = caches.iter_mut().map(step).collect();
    assert_eq!(all[0], step(&mut full), "keeping all tokens gives the bits of the full cache");
    assert_ne!(all[0], all[1]);
    assert_ne!(all[1], all[2]);
    assert!(caches.iter().all(|cache| cache.next_position() == 31), "positions go on from the prompt's length");
}

/// A window is one of positions, however little a head has kept of it.
#[test]
fn a_token_behind_the_window_is_as_if_it_were_evicted() {
    let decoder = decoder(&Tiny::new("mistral", json!({ "sliding_window": 12 }), false, 8));
    let tokens = prompt(600);
    let prefilled = prefill(&decoder, &tokens);
    let heads = prefilled.prompt().layout().heads();
    let after = |kept: Vec<u32>, more: usize| {
        let selection = Selection { heads: vec![HeadSelection::Tokens(kept); heads] };
        let mut cache = RaggedCache::compressed(prefilled.prompt(), &selection).unwrap();
        logits(&decoder, &tokens[..more], &mut cache)
    };
    for more in [1, 5, 11, 12, 40] {
        let all = after((0..600).collect(), more);
        assert_eq!(all, logits(&decoder, &tokens[..more], &mut RaggedCache::full(prefilled.prompt())));
        let near = |kept: Vec<u32>| all.iter().zip(after(kept, more)).all(|(a, b)| (a - b).abs() < 1e-5);
        // The first of the new tokens, at position 600, sees from 589 on.
        assert!(near((589..600).collect()), "{more} tokens");
        assert_eq!(near((590..600).collect()), more > 12, "{more} tokens");
        let of_few = |old: std::ops::Range<u32>| after(old.chain([596]).collect(), more);
        let (some, none) = (of_few(0..300), of_few(0..0));
        assert!(some.iter().zip(&none).all(|(a, b)| (a - b).abs() < 1e-5), "{more} tokens");
    }
}

#[test]
fn a_gguf_file_of_the_same_weights_gives_the_same_logits() {
    let tiny = Tiny::new("qwen2", json!({ "use_sliding_window": false, "sliding_window": 16 }), true, 8);
    let gguf = Gguf::open(&tiny.write_gguf("qwen2")).unwrap();
    let config = ModelConfig::from_gguf(&gguf).unwrap();
    let theirs = load_engine(&Weights::Gguf(gguf), config, &OPTIONS, |_, _| {}).unwrap();
    let prompt = prompt(40);
    assert_eq!(prefill(&theirs, &prompt).logits(), prefill(&decoder(&tiny), &prompt).logits());
}

#[test]
fn bad_files_are_clear_errors() {
    let tiny = Tiny::new("llama", json!({}), false, 8);
    let gguf = tiny.write_gguf("llama");
    let bytes = std::fs::read(&gguf).unwrap();
    let message = |error: ModelError| error.to_string();

    std::fs::write(&gguf, &bytes[..bytes.len() - 100]).unwrap();
    assert!(message(Gguf::open(&gguf).err().unwrap()).contains("truncated"));
    std::fs::write(&gguf, &bytes[..40]).unwrap();
    assert!(message(Gguf::open(&gguf).err().unwrap()).contains("not a readable GGUF"));
    assert!(message(Gguf::open(&gguf.with_extension("none")).err().unwrap()).contains("tiny.none"));

    let other = Gguf::open(&tiny.write_gguf("mamba")).unwrap();
    assert!(message(ModelConfig::from_gguf(&other).err().unwrap()).contains("architecture `mamba` is not implemented"));

    let weights = tiny.weights();
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() - 8]).unwrap();
    assert!(message(Safetensors::open(vec![weights.clone()]).err().unwrap()).contains("truncated"));
    std::fs::write(&weights, b"short").unwrap();
    assert!(Safetensors::open(vec![weights]).is_err());
}

#[test]
fn unusable_configurations_are_refused() {
    let refused = |settings: Json| {
        let tiny = Tiny::new("llama", settings, false, 8);
        ModelConfig::from_folder(tiny.folder()).err().unwrap().to_string()
    };
    assert!(refused(json!({ "model_type": "gemma" })).contains("architecture `gemma`"));
    assert!(refused(json!({ "num_key_value_heads": 3 })).contains("3 KV heads"));
    assert!(refused(json!({ "hidden_act": "gelu" })).contains("activation `gelu`"));
    assert!(refused(json!({ "head_dim": 7 })).contains("odd head_dim"));
    assert!(refused(json!({ "quantization_config": { "quant_method": "gptq" } })).contains("quantised by `gptq`"));
    let error = refused(json!({ "rope_scaling": { "rope_type": "su", "factor": 4.0 } }));
    assert!(
        error.contains("`su`") && error.contains("known: default, linear, llama3, dynamic, yarn, longrope"),
        "{error}"
    );
    let of_layers = json!({ "full_attention": { "rope_type": "default" }, "sliding_attention": null });
    assert!(refused(json!({ "rope_parameters": of_layers })).contains("RoPE that differs between layers"));

    let unloadable = |settings: Json| load(&Tiny::new("llama", settings, false, 8)).err().unwrap().to_string();
    let error = unloadable(json!({ "vocab_size": 51 }));
    assert!(error.contains("[50, 32]") && error.contains("[51, 32]"), "{error}");
    let error = unloadable(json!({ "num_hidden_layers": 16_000_000 }));
    assert!(error.contains("`model.layers.15999999.input_layernorm.weight` is missing"), "{error}");
    assert!(unloadable(json!({ "attention_bias": true })).contains("k_proj.bias` is missing"));
    let untied = Tiny::new("llama", json!({ "tie_word_embeddings": false }), true, 8);
    assert!(load(&untied).err().unwrap().to_string().contains("`lm_head.weight` is missing"));
}

#[test]
fn sequences_that_cannot_be_computed_exactly_are_refused() {
    let run = |decoder: &Arc<dyn Engine>, tokens: &[u32]| {
        Prefill::run(decoder, tokens, Format::F32, ObservationRequest::default(), |_| {}).err()
    };
    let short = decoder(&Tiny::new("llama", json!({ "max_position_embeddings": 20 }), false, 8));
    assert!(matches!(run(&short, &prompt(21)), Some(ModelError::TooLong { tokens: 21, limit: 20, .. })));
    assert!(matches!(run(&short, &[]), Some(ModelError::EmptyPrompt)));
    assert!(matches!(run(&short, &[50]), Some(ModelError::UnknownToken { token: 50, vocabulary: 50 })));
}

#[test]
fn nan_weights_are_noticed() {
    let tiny = Tiny::with_weights("llama", json!({}), false, 8, |name, numbers| {
        if name.contains("layers.1.mlp.down") {
            numbers[5] = f32::NAN;
        }
    });
    let error = load(&tiny).err().unwrap().to_string();
    assert!(error.contains("`model.layers.1.mlp.down_proj.weight` holds NaN"), "{error}");

    // Finite weights whose products are not.
    let tiny = Tiny::with_weights("llama", json!({}), false, 8, |name, numbers| {
        if name.contains("mlp") {
            numbers.iter_mut().for_each(|x| *x *= 1e30);
        }
    });
    let error = Prefill::run(&decoder(&tiny), &prompt(5), Format::F32, ObservationRequest::default(), |_| {});
    assert!(matches!(error, Err(ModelError::NotFinite { .. })));
}

#[test]
fn sums_of_the_window_have_the_bits_of_its_rows() {
    let tiny = Tiny::new("llama", json!({}), true, 8);
    // More than one chunk of prefill: the longest window begins in the first.
    let tokens = prompt(520);
    let sums = [(3, 0), (8, 4), (1, 11), (2, 4)].map(|(rows, tail)| WindowSum { rows, tail });
    let prefilled = |window, window_sums: &[WindowSum]| {
        let request = ObservationRequest { window, window_sums: window_sums.to_vec(), ..Default::default() };
        Prefill::run(&decoder(&tiny), &tokens, Format::F32, request, |_| {}).unwrap()
    };
    let [rows, both, alone] = [prefilled(12, &[]), prefilled(5, &sums), prefilled(0, &sums)];
    for layer in 0..2 {
        let [rows, both, alone] = [&rows, &both, &alone].map(|prefill| prefill.summaries(layer).unwrap());
        let of_heads = |sum: WindowSum| rows.window_attention.chunks(12 * 520).flat_map(move |rows| sum.of(rows, 520));
        let expected: Vec<(WindowSum, Vec<f32>)> = sums.iter().map(|&sum| (sum, of_heads(sum).collect())).collect();
        assert!(both.window_sums == expected && alone.window_sums == expected, "layer {layer}");
        // Rows are no more than those that were asked for.
        let last: Vec<f32> =
            rows.window_attention.chunks(12 * 520).flat_map(|rows| &rows[7 * 520..]).copied().collect();
        assert!((both.window, both.window_attention) == (5, last), "layer {layer}");
        assert!(alone.window == 0 && alone.window_attention.is_empty());
    }
}

#[test]
fn norms_of_values_behind_the_output_projection_follow_their_definition() {
    let tiny = Tiny::new("llama", json!({}), true, 8);
    // More than one chunk of prefill.
    let tokens = prompt(700);
    let request = ObservationRequest { values: true, value_output_norms: true, ..Default::default() };
    let prefill = Prefill::run(&decoder(&tiny), &tokens, Format::F32, request, |_| {}).unwrap();
    let weights = candle_core::safetensors::load(tiny.weights(), &Device::Cpu).unwrap();
    for layer in 0..2 {
        let name = format!("model.layers.{layer}.self_attn.o_proj.weight");
        let weight: Vec<Vec<f32>> = weights[&name].to_vec2().unwrap();
        prefill
            .view(layer, |view| {
                let (values, norms) = (view.values.unwrap(), view.value_output_norms.unwrap());
                assert_eq!(norms.len(), 4 * 700);
                for (query_head, token) in [(0, 0), (1, 5), (2, 511), (3, 512), (3, 699)] {
                    let value = &values[(query_head / 2 * 700 + token) * 8..][..8];
                    let written = weight.iter().map(|row| {
                        let columns = &row[query_head * 8..][..8];
                        columns.iter().zip(value).map(|(w, v)| w * v).sum::<f32>().abs()
                    });
                    let (expected, found) = (written.sum::<f32>(), norms[query_head * 700 + token]);
                    assert!((expected - found).abs() < 1e-4 * expected, "{query_head} {token}: {found} not {expected}");
                }
            })
            .unwrap();
    }
}
