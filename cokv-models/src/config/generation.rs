//! `generation_config.json`: what ends an answer, and how a model's makers would have it drawn.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value as Json, json};

use crate::error::ModelError;
use crate::files::read_optional;
use crate::sampling::Sampling;

/// The file of a model's folder, which many lack.
pub(crate) struct Generation {
    path: PathBuf,
    json: Json,
}

/// What it says of drawing. `do_sample` is not asked: it is for whoever generates without saying how.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Suggestion {
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl Generation {
    /// Of a folder; one that says nothing where there is no such file.
    ///
    /// # Errors
    /// The file cannot be read, or is no JSON.
    pub(crate) fn read(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("generation_config.json");
        let json = match read_optional(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))?,
            None => json!({}),
        };
        Ok(Self { path, json })
    }

    /// Tokens that end an answer.
    pub(super) fn stop_tokens(&self) -> Vec<u32> {
        token_ids(self.json.get("eos_token_id"))
    }

    /// How answers are drawn. What is not suggested is as the model has it.
    ///
    /// # Errors
    /// It has something else than numbers.
    pub(crate) fn sampling(&self) -> Result<Sampling, ModelError> {
        let said = Suggestion::deserialize(&self.json).map_err(|error| ModelError::malformed(&self.path, error))?;
        let own = Sampling::default();
        Ok(Sampling {
            temperature: said.temperature.unwrap_or(own.temperature),
            top_k: said.top_k.unwrap_or(own.top_k),
            top_p: said.top_p.unwrap_or(own.top_p),
            min_p: said.min_p.unwrap_or(own.min_p),
            repetition_penalty: said.repetition_penalty.unwrap_or(own.repetition_penalty),
            ..own
        })
    }
}

/// One id or a list of them.
pub(super) fn token_ids(json: Option<&Json>) -> Vec<u32> {
    let id = |json: &Json| json.as_u64().and_then(|id| u32::try_from(id).ok());
    match json {
        Some(Json::Array(ids)) => ids.iter().filter_map(id).collect(),
        Some(single) => id(single).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(text: &str) -> Result<Sampling, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        Generation::read(folder.path())?.sampling()
    }

    #[test]
    fn a_model_may_suggest_how_it_is_drawn_from() {
        // What Qwen2.5-0.5B-Instruct comes with.
        let qwen = r#"{ "bos_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643], "pad_token_id": 151643,
                        "repetition_penalty": 1.1, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0" }"#;
        let expected =
            Sampling { temperature: 0.7, top_p: 0.8, top_k: 20, repetition_penalty: 1.1, ..Sampling::default() };
        assert_eq!(suggested(qwen).unwrap(), expected);
        assert_eq!(suggested(r#"{ "temperature": null }"#).unwrap(), Sampling::default());
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(Generation::read(nowhere.path()).unwrap().sampling().unwrap(), Sampling::default());
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_file() {
        let error = suggested(r#"{ "temperature": "hot" }"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("hot"), "{error}");
    }
}
