//! What a run's folder says of itself, so that a report needs neither the model nor the data.

use std::fs;
use std::path::Path;

use cokv_core::MethodSettings;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::folder::{StoreError, io};
use crate::data::Protocol;
use crate::names::file_name;
use crate::scores::HeadScoresWorth;

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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ManifestMethod {
    /// Name in tables.
    pub name: String,
    /// Compressor and allocator with all settings; none in what builds wrote that had them as a text, `definition`.
    pub settings: Option<MethodSettings>,
    /// Why it may keep another share than its budget; none where it does not, and in what those builds wrote.
    pub off_budget: Option<String>,
    /// What each head is worth to it, in flat order; none where it does not ask.
    pub head_scores: Option<Vec<f64>>,
    /// How far its head scores can be trusted, where that is known.
    #[serde(default)]
    pub head_scores_worth: Option<HeadScoresWorth>,
}

impl ManifestMethod {
    /// Whether rows of this name are its: a column has a method for every task that has head scores of its own
    /// (`cokv on qasper`), and for every variant to choose from (`cokv(floor=0.5)`).
    pub fn is_of(&self, column: &str) -> bool {
        let rest = self.name.strip_prefix(Protocol::method_of(column));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(" on ") || rest.starts_with('('))
    }

    /// Why its head scores are no better than noise; none where they are good enough, and where it has none.
    pub fn unworthy(&self) -> Option<&str> {
        self.head_scores_worth.as_ref()?.unworthy.as_deref()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_of_builds_whose_settings_were_a_text_are_read() {
        let written = r#"{"model":"m","fingerprint":"f","layers":2,"kv_heads":1,"rows":["r"],"methods":[
            {"name":"ada","definition":"SnapKv { window: 8 }, AdaKv { rounding: Paper }","head_scores":[0.5,1.0]}]}"#;
        let manifest: Manifest = serde_json::from_str(written).unwrap();
        let [method] = &manifest.methods[..] else { panic!("{manifest:?}") };
        assert_eq!((method.name.as_str(), &method.settings, &method.off_budget), ("ada", &None, &None));
        assert_eq!(method.head_scores.as_deref(), Some(&[0.5, 1.0][..]));
        assert_eq!(method.head_scores_worth, None);
        let again: Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
    }

    #[test]
    fn a_column_has_the_methods_of_its_tasks_and_variants() {
        let method = |name: &str| ManifestMethod { name: name.into(), ..ManifestMethod::default() };
        for (name, is_of) in [("ada", true), ("ada on qasper", true), ("ada(floor=0.5)", true), ("ada-2", false)] {
            assert_eq!(method(name).is_of("ada"), is_of, "{name}");
            assert_eq!(method(name).is_of("ada (context-only)"), is_of, "{name}");
        }
    }

    #[test]
    fn what_head_scores_are_worth_is_a_line() {
        let worth = HeadScoresWorth {
            reliability: Some(0.04),
            records: Some(4),
            halves_apart: Some(0.31),
            unworthy: Some("reliability below 0.50".into()),
            ..HeadScoresWorth::default()
        };
        let line = "reliability 0.04, 4 records, budgets of two halves 31 % apart, noise: reliability below 0.50";
        assert_eq!(worth.to_string(), line);
    }
}
