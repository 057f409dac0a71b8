//! What a run's folder says of itself, so that a report needs neither the model nor the data.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folder::{StoreError, io};
use crate::names::file_name;

/// One model of a run: `models/<model>.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The model's source as configured.
    pub model: String,
    /// Hash of the model's files.
    pub fingerprint: String,
    /// Layers.
    pub layers: usize,
    /// KV heads of a layer.
    pub kv_heads: usize,
    /// The columns of the matrix.
    pub methods: Vec<ManifestMethod>,
    /// Fingerprints of all rows of the matrix, those that are not done yet too, in the order of the configuration. Rows of
    /// earlier configurations lie in the same file.
    pub rows: Vec<String>,
}

/// One method, or one of several variants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ManifestMethod {
    /// Name in tables.
    pub name: String,
    /// Compressor and allocator with all settings.
    pub definition: String,
    /// What each head is worth to it, in flat order; none where it does not ask.
    pub head_scores: Option<Vec<f64>>,
}

/// The models of the configuration, in its order: a list of their sources.
pub const MODELS: &str = "models.json";

fn file(model: &str) -> String {
    format!("models/{}.json", file_name(model))
}

/// A file's value; none where there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(path)(error)),
    };
    let damaged = |error| StoreError::Manifest { path: path.display().to_string(), error };
    serde_json::from_str(&text).map(Some).map_err(damaged)
}

impl Manifest {
    /// The file's name in a run's folder.
    pub fn file(&self) -> String {
        file(&self.model)
    }

    /// Those of a run's folder, in the order of the configuration. Models whose turn has not come have none yet; those of
    /// earlier configurations do not count.
    pub fn read(folder: &Path) -> Result<Vec<Self>, StoreError> {
        let models: Vec<String> = read_json(&folder.join(MODELS))?.unwrap_or_default();
        let of_model = |model: &String| read_json(&folder.join(file(model))).transpose();
        models.iter().filter_map(of_model).collect()
    }
}
