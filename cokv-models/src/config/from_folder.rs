//! `config.json` of a Hugging Face folder.

use std::path::Path;

use cokv_core::{HeadLayout, RotaryPairs};
use serde_json::Value as Json;

use super::fields::Fields;
use super::generation::{Generation, token_ids};
use super::rope::{Stretch, Unstretched};
use super::{Architecture, ModelConfig};
use super::{check_head_dim, context_length, norm_epsilon, rope_theta, sliding_window, unknown_architecture};
use crate::error::ModelError;

impl ModelConfig {
    /// Reads `config.json` of a Hugging Face folder, and the stop tokens of `generation_config.json` beside it.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        Self::beside(folder, &Generation::read(folder)?)
    }

    /// The same where the second file has been read.
    pub(crate) fn beside(folder: &Path, generation: &Generation) -> Result<Self, ModelError> {
        let path = folder.join("config.json");
        let text = std::fs::read_to_string(&path).map_err(ModelError::io(&path))?;
        let json: Json = serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))?;
        let mut config = from_fields(Fields::new(&path, &json))?;
        config.stop_tokens.extend(generation.stop_tokens());
        Ok(config)
    }
}

fn from_fields(fields: Fields<'_>) -> Result<ModelConfig, ModelError> {
    let path = fields.path;
    let model_type = fields.optional_text("model_type")?.unwrap_or_default();
    let architecture = Architecture::of_model_type(model_type).ok_or_else(|| unknown_architecture(path, model_type))?;
    refuse_unknown(fields)?;
    let query_heads = fields.size("num_attention_heads")?;
    let kv_heads = fields.optional_size("num_key_value_heads")?.unwrap_or(query_heads);
    let hidden_size = fields.size("hidden_size")?;
    let head_dim = fields.optional_size("head_dim")?.unwrap_or(hidden_size / query_heads.max(1));
    let layout = HeadLayout::new(fields.size("num_hidden_layers")?, query_heads, kv_heads, head_dim)?;
    check_head_dim(path, head_dim)?;
    let rope = match fields.optional_object("rope_parameters")? {
        Some(rope) => Some(rope),
        None => fields.optional_object("rope_scaling")?,
    };
    let theta = match rope.map(|rope| rope.optional_number("rope_theta")).transpose()?.flatten() {
        Some(theta) => theta,
        None => fields.optional_number("rope_theta")?.unwrap_or(10_000.0),
    };
    let context = fields.optional_integer("max_position_embeddings")?;
    let context = context.ok_or_else(|| fields.missing("max_position_embeddings"))?;
    let context_length = context_length(path, "max_position_embeddings", context)?;
    let theta = rope_theta(path, "rope_theta", theta)?;
    let unstretched = Unstretched { context_length, head_dim, theta };
    let Stretch { scaling, attention_factor, context_length } = unstretched.stretched_by_folder(fields, rope)?;
    Ok(ModelConfig {
        architecture,
        layout,
        hidden_size,
        intermediate_size: fields.size("intermediate_size")?,
        vocabulary: fields.size("vocab_size")?,
        context_length,
        windows: windows(fields, architecture, layout.layers)?,
        norm_epsilon: norm_epsilon(path, "rms_norm_eps", fields.number("rms_norm_eps")?)?,
        rope_theta: theta,
        rope_scaling: scaling,
        rope_attention_factor: attention_factor,
        rope_pairs: RotaryPairs::Halves,
        attention_bias: fields.optional_flag("attention_bias")?.unwrap_or(architecture == Architecture::Qwen2),
        tied_embeddings: fields.optional_flag("tie_word_embeddings")?,
        stop_tokens: token_ids(fields.get("eos_token_id")),
    })
}

/// What the decoder would compute otherwise than the model does.
fn refuse_unknown(fields: Fields<'_>) -> Result<(), ModelError> {
    let unsupported = |message: String| Err(ModelError::unsupported(fields.path, message));
    let quantised = fields.optional_object("quantization_config")?;
    if let Some(method) = quantised.map(|quantised| quantised.optional_text("quant_method")).transpose()?.flatten() {
        return unsupported(format!(
            "weights quantised by `{method}` are not implemented; use a GGUF file or the original weights"
        ));
    }
    let rope = fields.optional_object("rope_parameters")?;
    for fields in [Some(fields), rope].into_iter().flatten() {
        if let Some(factor) = fields.optional_number("partial_rotary_factor")?.filter(|factor| *factor != 1.0) {
            return unsupported(format!(
                "rotating only a part of each head (partial_rotary_factor {factor}) is not implemented"
            ));
        }
    }
    match fields.optional_text("hidden_act")?.filter(|name| *name != "silu") {
        Some(activation) => unsupported(format!("activation `{activation}` is not implemented (known: silu)")),
        None => Ok(()),
    }
}

/// Qwen names a window and uses it only where a flag says so, and then from layer `max_window_layers` on, or in the layers
/// that `layer_types` lists; all of Mistral's layers slide.
fn windows(fields: Fields<'_>, architecture: Architecture, layers: usize) -> Result<Vec<Option<usize>>, ModelError> {
    let used = match architecture {
        Architecture::Llama => false,
        Architecture::Mistral => fields.optional_flag("use_sliding_window")?.unwrap_or(true),
        Architecture::Qwen2 | Architecture::Qwen3 => fields.optional_flag("use_sliding_window")?.unwrap_or(false),
    };
    let window = if used { fields.optional_integer("sliding_window")? } else { None };
    let Some(window) = window else { return Ok(Vec::new()) };
    let window = sliding_window(fields.path, "sliding_window", window)?;
    if architecture == Architecture::Mistral {
        return Ok(vec![Some(window); layers]);
    }
    let Some(kinds) = fields.get("layer_types") else {
        let first = fields.optional_integer("max_window_layers")?.unwrap_or(28);
        return Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect());
    };
    let kinds = kinds.as_array().map(Vec::as_slice).unwrap_or_default();
    if kinds.len() != layers {
        let message = format!("`layer_types` lists {} layers, and there are {layers}", kinds.len());
        return Err(ModelError::malformed(fields.path, message));
    }
    let window_of = |kind: &Json| match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => Ok(Some(window)),
        _ => Err(ModelError::unsupported(
            fields.path,
            format!("`layer_types` has {kind}, which is not implemented (known: full_attention, sliding_attention)"),
        )),
    };
    kinds.iter().map(window_of).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::RopeScaling;

    fn config(settings: Json) -> Result<ModelConfig, ModelError> {
        let mut json = json!({
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "vocab_size": 50, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5,
        });
        json.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        from_fields(Fields::new(Path::new("config.json"), &json))
    }

    fn scaling_of(scaling: Json) -> RopeScaling {
        config(json!({ "rope_scaling": scaling })).unwrap().rope_scaling
    }

    #[test]
    fn both_names_of_a_rope_type_may_stand_side_by_side() {
        let linear = RopeScaling::Linear { factor: 2.0 };
        assert_eq!(scaling_of(json!({ "type": "linear", "factor": 2 })), linear);
        assert_eq!(scaling_of(json!({ "rope_type": "linear", "type": "linear", "factor": 2.0 })), linear);
        assert_eq!(
            scaling_of(json!({ "rope_type": "linear", "type": "yarn", "factor": 2.0 })),
            linear,
            "the newer counts"
        );
        assert_eq!(scaling_of(json!({ "rope_type": "default", "type": "default" })), RopeScaling::None);
        assert_eq!(scaling_of(json!({ "rope_type": null, "type": "linear", "factor": 2 })), linear);
        let llama3 = json!({
            "rope_type": "llama3", "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64, "rope_theta": 5e5,
        });
        assert!(matches!(scaling_of(llama3), RopeScaling::Llama3 { factor: 8.0, original_context: 64.0, .. }));
    }

    /// Qwen2.5's card adds YaRN to a file that states the context before it; others state the one after it.
    #[test]
    fn a_stretch_lengthens_the_context() {
        let context = |stated: usize, scaling: Json| {
            let all = json!({ "max_position_embeddings": stated, "rope_scaling": scaling });
            config(all).unwrap().max_tokens()
        };
        let original = "original_max_position_embeddings";
        assert_eq!(context(32768, json!({ "type": "yarn", "factor": 4.0, original: 32768 })), 131_072);
        assert_eq!(context(32768, json!({ "type": "yarn", "factor": 4.0 })), 131_072);
        assert_eq!(context(131_072, json!({ "type": "yarn", "factor": 4.0, original: 32768 })), 131_072);
        assert_eq!(context(4096, json!({ "type": "dynamic", "factor": 2.0 })), 8192);
        assert_eq!(context(131_072, json!({ "type": "linear", "factor": 4.0 })), 131_072);
        let divisors = json!([1, 1, 1, 1]);
        let longrope = json!({ "type": "longrope", "short_factor": divisors, "long_factor": divisors, original: 4096 });
        assert_eq!(context(131_072, longrope), 131_072);
        assert_eq!(context(1 << 31, json!({ "type": "yarn", "factor": 1e6 })), u32::MAX as usize);
    }

    #[test]
    fn a_window_counts_where_a_layer_slides() {
        let window = |family: &str, settings: Json| {
            let mut all = json!({ "model_type": family, "sliding_window": 24, "num_hidden_layers": 4 });
            all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            config(all).unwrap().windows
        };
        let used = |settings: Json| {
            let mut all = json!({ "use_sliding_window": true });
            all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            window("qwen2", all)
        };
        let (none, some) = (None, Some(24));
        assert_eq!(window("qwen2", json!({ "use_sliding_window": false, "max_window_layers": 0 })), []);
        assert_eq!(used(json!({ "max_window_layers": 4 })), [none; 4]);
        assert_eq!(used(json!({})), [none; 4], "28 layers attend to everything where nothing else is said");
        assert_eq!(used(json!({ "max_window_layers": 3 })), [none, none, none, some]);
        let full = json!(vec!["full_attention"; 4]);
        assert_eq!(used(json!({ "max_window_layers": 0, "layer_types": full })), [none; 4]);
        let mixed = json!(["full_attention", "sliding_attention", "full_attention", "full_attention"]);
        assert_eq!(used(json!({ "max_window_layers": 4, "layer_types": mixed })), [none, some, none, none]);
        assert_eq!(used(json!({ "sliding_window": null, "max_window_layers": 0 })), []);
        assert_eq!(window("mistral", json!({})), [some; 4]);
        assert_eq!(window("mistral", json!({ "sliding_window": null })), []);
        assert_eq!(window("llama", json!({})), []);
    }

    #[test]
    fn nonsense_is_refused_by_its_key() {
        let rope = |kind: &str, key: &str, value: Json| {
            let mut scaling = json!({
                "rope_type": kind, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            });
            scaling[key] = value;
            json!({ "rope_scaling": scaling })
        };
        let of_layers = |kinds: Json| json!({ "model_type": "qwen3", "sliding_window": 9, "use_sliding_window": true, "layer_types": kinds });
        let of_longrope = |change: Json| {
            let mut scaling =
                json!({ "rope_type": "longrope", "short_factor": [1, 1, 1, 1], "long_factor": [1, 1, 1, 1] });
            scaling.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({ "rope_scaling": scaling })
        };
        assert!(config(of_longrope(json!({}))).is_ok());
        for (key, settings) in [
            ("rms_norm_eps", json!({ "rms_norm_eps": -1e-5 })),
            ("rms_norm_eps", json!({ "rms_norm_eps": 1e300 })),
            ("rms_norm_eps", json!({ "rms_norm_eps": null })),
            ("rms_norm_eps", json!({ "rms_norm_eps": "1e-5" })),
            ("rope_theta", json!({ "rope_theta": 1e300 })),
            ("rope_theta", json!({ "rope_theta": 0 })),
            ("rope_theta", json!({ "rope_theta": -1e4 })),
            ("rope_theta", json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 0.0 } })),
            ("partial_rotary_factor", json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } })),
            ("max_position_embeddings", json!({ "max_position_embeddings": 0 })),
            ("max_position_embeddings", json!({ "max_position_embeddings": 1u64 << 63 })),
            ("hidden_size", json!({ "hidden_size": 1u64 << 62 })),
            ("num_attention_heads", json!({ "num_attention_heads": 1u64 << 63 })),
            ("head_dim", json!({ "head_dim": 1u64 << 62 })),
            ("num_hidden_layers", json!({ "num_hidden_layers": 1_000_000_000 })),
            ("num_hidden_layers", json!({ "num_hidden_layers": -1 })),
            ("vocab_size", json!({ "vocab_size": "50" })),
            ("factor", rope("linear", "factor", json!(0))),
            ("factor", rope("linear", "factor", json!(null))),
            ("factor", rope("llama3", "factor", json!(-8))),
            ("low_freq_factor", rope("llama3", "low_freq_factor", json!(4.0))),
            ("low_freq_factor", rope("llama3", "high_freq_factor", json!(0.5))),
            ("high_freq_factor", rope("llama3", "high_freq_factor", json!(1e300))),
            ("original_max_position_embeddings", rope("llama3", "original_max_position_embeddings", json!(0))),
            ("rope_scaling", json!({ "rope_scaling": "linear" })),
            ("sliding_window", json!({ "model_type": "mistral", "sliding_window": 0 })),
            ("layer_types", of_layers(json!(["full_attention"]))),
            ("layer_types", of_layers(json!("sliding_attention"))),
            ("chunked_attention", of_layers(json!(["full_attention", "chunked_attention"]))),
            ("factor", rope("dynamic", "factor", json!(0.5))),
            ("factor", rope("dynamic", "factor", json!(null))),
            ("factor", rope("yarn", "factor", json!(f64::MAX))),
            ("original_max_position_embeddings", rope("yarn", "original_max_position_embeddings", json!(0))),
            ("attention_factor", rope("yarn", "attention_factor", json!(-1.0))),
            ("beta_fast", rope("yarn", "beta_fast", json!(0.5))),
            ("beta_slow", rope("yarn", "beta_slow", json!(-1.0))),
            ("truncate", rope("yarn", "truncate", json!("no"))),
            ("short_factor", rope("longrope", "long_factor", json!([1.0, 1.0, 1.0, 1.0]))),
            ("long_factor", of_longrope(json!({ "long_factor": [1.0, 1.0, 1.0] }))),
            ("long_factor", of_longrope(json!({ "long_factor": [1.0, 0.0, 1.0, 1.0] }))),
            ("long_factor", of_longrope(json!({ "long_factor": [1.0, "1", 1.0, 1.0] }))),
            ("attention_factor", of_longrope(json!({ "original_max_position_embeddings": 1 }))),
        ] {
            let error = config(settings.clone()).unwrap_err().to_string();
            assert!(error.contains("config.json") && error.contains(key), "{settings}: {error}");
        }
        assert!(config(json!({})).is_ok());
    }
}
