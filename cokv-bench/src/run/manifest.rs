//! What a run's folder says of itself, so that a report needs neither the model nor the data.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::store::{StoreError, file_name, files_in, io};

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

pub(super) const FOLDER: &str = "models";

impl Manifest {
    /// The file's name in a run's folder.
    pub fn file(&self) -> String {
        format!("{FOLDER}/{}.json", file_name(&self.model))
    }

    /// Those of a run's folder, in the order of their names.
    pub fn read(folder: &Path) -> Result<Vec<Self>, StoreError> {
        let mut manifests = Vec::new();
        for path in files_in(&folder.join(FOLDER), |name| name.ends_with(".json"))? {
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            let manifest = serde_json::from_str(&text)
                .map_err(|error| StoreError::Manifest { path: path.display().to_string(), error })?;
            manifests.push(manifest);
        }
        Ok(manifests)
    }
}
