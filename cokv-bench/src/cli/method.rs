//! A method from the command line, for one prompt.

use std::path::PathBuf;

use anyhow::Result;
use cokv_core::{Budget, ConfigTable, HeadLayout, Method, Registry};

use crate::scores::{FittedScores, ModelStamp, ScoreFile};

/// Which tokens of a prompt are kept.
#[derive(clap::Args)]
pub struct MethodArguments {
    /// Compressor: a name, or an inline TOML table with its settings; `cokv methods` lists them
    #[arg(long, default_value = "full")]
    pub method: String,
    /// Allocator: a name, or an inline TOML table with its settings
    #[arg(long, default_value = "uniform")]
    pub allocator: String,
    /// Head scores for the allocator, from cokv estimate or cokv scores import
    #[arg(long)]
    pub scores: Option<PathBuf>,
    /// Cache kept: tokens per KV head (128), a share of the prompt (10%) or bytes ('8 MiB')
    #[arg(long, default_value = "100%")]
    pub budget: Budget,
}

impl MethodArguments {
    /// The method; what it says is checked before a model is loaded.
    pub fn build(&self, registry: &Registry) -> Result<Method> {
        let value = |text: &str| if text.trim_start().starts_with('{') { text.into() } else { format!("{text:?}") };
        let toml = format!("compressor = {}\nallocator = {}", value(&self.method), value(&self.allocator));
        Ok(registry.method(ConfigTable::parse("--method and --allocator", &toml)?)?)
    }

    /// Gives the method its head scores, and finds out what does not fit the model.
    pub fn fit(&self, method: &mut Method, model: &ModelStamp, layout: HeadLayout) -> Result<()> {
        if let Some(path) = &self.scores {
            let FittedScores { scores, notice, worth, seen: _ } = ScoreFile::read_for(path, model)?;
            notice.iter().for_each(|notice| eprintln!("note: {notice}"));
            if let Some(reason) = worth.unworthy {
                eprintln!("note: {}: these head scores are noise: {reason}", path.display());
            }
            method.set_head_scores(scores);
        }
        Ok(method.check(layout)?)
    }
}
