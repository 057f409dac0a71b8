//! What the tests on real models share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::PathBuf;

use cokv_models::cache::CacheType;
use cokv_models::linear::WeightType;
use cokv_models::source::{DEFAULT_MODEL, Preset, Source};
use cokv_models::{LanguageModel, LoadOptions};
use serde_json::Value as Json;

/// The golden data beside the project. A clone elsewhere does not have it: tests then say so and pass, but never in CI.
pub fn shared(path: &str) -> Option<PathBuf> {
    let full = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")).join(path);
    if full.exists() {
        return Some(full);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing, and in CI it must be there", full.display());
    println!("skipped: {} is not here", full.display());
    None
}

pub fn golden(name: &str) -> Option<Json> {
    let text = std::fs::read_to_string(shared(&format!("golden/{name}"))?).unwrap();
    Some(serde_json::from_str(&text).unwrap())
}

/// Golden data come from the GGUF files, so the preset's wheel is used and not its hub repository.
fn wheel(preset: &str) -> &'static Source {
    let mut sources = Preset::find(preset).unwrap().sources.iter();
    sources.find(|source| matches!(source, Source::Wheel(_))).unwrap()
}

/// The default model's wheel as users write it.
pub fn wheel_source() -> String {
    wheel(DEFAULT_MODEL).to_string()
}

pub fn load_model(preset: &str, weight_type: WeightType, cache_type: CacheType) -> LanguageModel {
    let files = wheel(preset).fetch(false).unwrap();
    let options = LoadOptions { weight_type, cache_type, ..LoadOptions::default() };
    LanguageModel::load(&files, &options, |_, _| {}).unwrap()
}

/// A JSON list of token ids.
pub fn ids(json: &Json) -> Vec<u32> {
    json.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}
