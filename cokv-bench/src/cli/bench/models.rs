//! What can be said of all models of a configuration before the first of them is loaded.

use std::collections::HashSet;

use anyhow::{Context, Result};
use cokv_core::HeadLayout;
use cokv_models::ModelError;
use cokv_models::config::ModelConfig;
use cokv_models::source::{ModelFiles, Observer, Source};
use cokv_models::weights::Gguf;

use crate::cli::ready::fit_made_up;
use crate::config::Config;
use crate::data::Suite;
use crate::data::longbench::Fetcher;
use crate::model::ModelSettings;
use crate::scores::ModelStamp;

/// Fetches every model (for a plan, without its weights), which finds out whether its files are whole, and refuses one that the
/// decoder does not know or the methods, with the score files that they name, do not fit.
pub fn check_models(config: &Config, observer: &Observer, plan: bool) -> Result<()> {
    let tasks = Suite::open(&config.run.data, &Fetcher::from_env(observer.clone()))?.names();
    config
        .models
        .iter()
        .try_for_each(|model| check(config, model, &tasks, observer, plan).context(model.source.clone()))
}

fn check(config: &Config, model: &ModelSettings, tasks: &[String], observer: &Observer, plan: bool) -> Result<()> {
    let source = model.source.parse::<Source>()?;
    let files = if plan { source.fetch_outline(observer.clone())? } else { source.fetch(observer.clone())? };
    // Hashing the weights takes as long as reading them, and only a notice would depend on it.
    let stamp = ModelStamp::of(&model.source, None, layout(&files)?);
    fit_made_up(&mut config.clone(), &stamp, tasks, &HashSet::new())
}

/// The heads of a model that is not loaded.
fn layout(files: &ModelFiles) -> Result<HeadLayout, ModelError> {
    let config = match files {
        ModelFiles::Gguf(path) => ModelConfig::from_gguf(&Gguf::open(path)?)?,
        ModelFiles::Folder(folder) | ModelFiles::Random(folder) => ModelConfig::from_folder(folder)?,
    };
    Ok(config.layout)
}
