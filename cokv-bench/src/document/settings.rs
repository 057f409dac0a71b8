//! What a saved cache says of where it comes from, and what that means to whoever reads it.

use cokv_core::{Budget, Method};
use cokv_models::cache::file::{CacheFileError, Description, Identity};
use cokv_models::source::Source;
use sha2::{Digest, Sha256};

use super::turn::OpenTurn;
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
    /// What was read.
    pub document: &'a OpenTurn,
    /// What chose.
    pub method: &'a Method,
    /// How much was to be kept.
    pub budget: Budget,
}

/// What a file is to say of a cache that is made now.
pub fn describe(made: Made<'_>) -> Description {
    let Made { by, identity, backend, document, method, budget } = made;
    let scores = method.head_scores().map(|scores| {
        let all = scores.values().iter().chain(scores.query_heads().unwrap_or_default());
        sha256(&all.flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>())
    });
    Description {
        identity,
        model: wherever(&by.source),
        weights: name(&by.weights),
        backend: backend.into(),
        chat_template_kwargs: serde_json::Value::Object(by.chat_template_kwargs.clone()).to_string(),
        prefix: prefix_hash(document),
        method: method.settings().to_string(),
        budget: budget.to_string(),
        head_scores: scores,
        created: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        cokv: env!("CARGO_PKG_VERSION").into(),
    }
}

/// A hash of what was read.
pub fn prefix_hash(document: &OpenTurn) -> String {
    sha256(document.text.as_bytes())
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
