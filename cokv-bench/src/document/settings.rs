//! What a saved cache says of where it comes from, and what that means to whoever reads it.

use cokv_models::cache::file::{CacheFileError, Description, Identity};
use cokv_models::source::Source;
use cokv_scheduler::MadeBy;
use sha2::{Digest, Sha256};

use crate::device::DeviceSetting;
use crate::model::ModelSettings;
use crate::names::by_name;

/// How a cache was made.
pub struct Made<'a> {
    /// The model, and how it was held.
    pub by: &'a ModelSettings,
    /// Whose keys and values they are.
    pub identity: Identity,
    /// What computed them.
    pub backend: &'a str,
    /// Hash of what was read.
    pub prefix: String,
    /// What chose.
    pub made_by: MadeBy,
}

/// What a file is to say of a cache that is made now.
pub fn describe(made: Made<'_>) -> Description {
    let Made { by, identity, backend, prefix, made_by } = made;
    Description {
        identity,
        model: wherever(&by.source),
        weights: name(&by.weights),
        backend: backend.into(),
        chat_template_kwargs: serde_json::Value::Object(by.chat_template_kwargs.clone()).to_string(),
        prefix,
        method: made_by.settings,
        budget: made_by.budget,
        head_scores: made_by.head_scores,
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        cokv: env!("CARGO_PKG_VERSION").into(),
    }
}

/// A hash of what was read.
pub fn prefix_hash(text: &str) -> String {
    sha256(text.as_bytes())
}

/// How the model that made a cache is loaded again, from where it came or from somewhere else.
///
/// # Errors
/// Where the description says what no cokv writes.
pub fn model_settings(
    of: &Description,
    elsewhere: Option<&str>,
    device: DeviceSetting,
) -> Result<ModelSettings, CacheFileError> {
    let damaged = |key: &str, error: String| CacheFileError::Damaged(format!("`{key}`: {error}"));
    let kwargs = serde_json::from_str(&of.chat_template_kwargs);
    Ok(ModelSettings {
        source: elsewhere.unwrap_or(&of.model).to_owned(),
        weights: by_name(&of.weights).map_err(|error| damaged("weights", error))?,
        cache: of.identity.format,
        device,
        chat_template_kwargs: kwargs.map_err(|error| damaged("chat_template_kwargs", error.to_string()))?,
    })
}

/// A source as it is found from every folder.
fn wherever(source: &str) -> String {
    match source.parse() {
        Ok(Source::Path(path)) => Source::Path(std::path::absolute(&path).unwrap_or(path)).to_string(),
        _ => source.to_owned(),
    }
}

/// A value by its name in TOML files.
fn name(value: &impl serde::Serialize) -> String {
    toml::Value::try_from(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use cokv_core::{Budget, ConfigTable, Format, HeadLayout, HeadScores, Method};
    use cokv_models::WeightType;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_held_as_the_file_says_wherever_it_is_now() {
        let layout = HeadLayout::new(2, 4, 2, 8).unwrap();
        let identity = Identity {
            model: "m".into(),
            tokenizer: "t".into(),
            numerics: "5".into(),
            layout,
            format: Format::Bf16,
            rope: "{}".into(),
        };
        let by = ModelSettings {
            source: "path:tiny.gguf".into(),
            weights: WeightType::F32,
            cache: Format::Bf16,
            chat_template_kwargs: json!({ "date_string": "26 Jul 2024" }).as_object().unwrap().clone(),
            ..ModelSettings::default()
        };
        let method =
            cokv_policies::registry().method(ConfigTable::parse("test", "compressor = 'knorm'").unwrap()).unwrap();
        let made = |method: &Method| {
            let (identity, made_by) = (identity.clone(), MadeBy::of(method, Budget::Share(0.05)));
            describe(Made { by: &by, identity, backend: "cpu", prefix: prefix_hash("abc"), made_by })
        };
        let description = made(&method);
        assert_eq!(description.prefix, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((description.budget.as_str(), description.head_scores.clone()), ("5%", None));
        assert_eq!(description.method, r#"{ compressor = "knorm", allocator = "uniform" }"#);
        let here = std::env::current_dir().unwrap().join("tiny.gguf");
        assert_eq!(description.model, format!("path:{}", here.display()));
        let again = model_settings(&description, None, DeviceSetting::Cpu).unwrap();
        assert_eq!((again.source, again.weights, again.cache), (description.model.clone(), by.weights, by.cache));
        assert_eq!(again.chat_template_kwargs, by.chat_template_kwargs);
        let moved = model_settings(&description, Some("hub:a/b"), DeviceSetting::Cpu).unwrap();
        assert_eq!(moved.source, "hub:a/b");
        for wrong in [
            Description { weights: "f8".into(), ..description.clone() },
            Description { chat_template_kwargs: "[]".into(), ..description.clone() },
        ] {
            assert!(matches!(model_settings(&wrong, None, DeviceSetting::Cpu), Err(CacheFileError::Damaged(_))));
        }
        let hash = |last: f64| {
            let mut scored = method.clone();
            scored.set_head_scores(HeadScores::new(layout, vec![1.0, 2.0, 3.0, last]).unwrap());
            made(&scored).head_scores.unwrap()
        };
        assert!(hash(4.0) == hash(4.0) && hash(4.0) != hash(5.0));
    }
}
