//! How a model's makers would have its answers drawn.

use std::path::Path;

use serde::Deserialize;

use crate::error::ModelError;
use crate::files::read_optional;
use crate::sampling::Sampling;

/// What `generation_config.json` says of drawing. `do_sample` is not asked: it is for whoever generates without saying how.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Suggestion {
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
}

impl Suggestion {
    /// Of a model's folder; nothing where it has no such file.
    ///
    /// # Errors
    /// The file cannot be read, or has something else than numbers.
    pub(crate) fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("generation_config.json");
        let Some(text) = read_optional(&path)? else { return Ok(Self::default()) };
        serde_json::from_str(&text).map_err(|error| ModelError::malformed(&path, error))
    }

    /// What is not suggested is as the model has it.
    pub(crate) fn sampling(&self) -> Sampling {
        let own = Sampling::default();
        Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(own.repetition_penalty),
            ..own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(text: &str) -> Result<Sampling, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
        Ok(Suggestion::from_folder(folder.path())?.sampling())
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
        assert_eq!(Suggestion::from_folder(nowhere.path()).unwrap().sampling(), Sampling::default());
    }

    #[test]
    fn what_is_no_number_is_refused_with_the_file() {
        let error = suggested(r#"{ "temperature": "hot" }"#).unwrap_err().to_string();
        assert!(error.contains("generation_config.json") && error.contains("hot"), "{error}");
    }
}
