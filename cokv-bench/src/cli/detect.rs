//! `cokv detect`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use cokv_core::random::mix;
use cokv_core::{Evidence, Registry, Shard};

use super::choice::{refused, with_choice};
use super::data::of_configuration;
use super::estimate::{Manner, as_json, beside, find_out, show};
use super::load::outline;
use super::output::print;
use crate::data::Records;
use crate::importance::detection::Detection;
use crate::importance::{Importance, ImportanceSettings, named};
use crate::model::ModelSettings;
use crate::scores::{ModelStamp, ScoreFile};

/// Find the heads that retrieve, as HeadKV and KVzip do
///
/// The model answers questions about long texts, and every head is scored by where it attends meanwhile: to the token that
/// is being copied (headkv-r), or to the answer (headkv-r2). Records say nothing whose answer is right by half or less:
/// by its ROUGE-1 recall for headkv-r, by the F1 of its words for headkv-r2, as HeadKV filters them. With kvzip the model
/// repeats the prompts instead, and nothing has to be right. Every record is kept as it is done; a stopped or killed run goes
/// on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv detect --kind headkv-r2 --out r2.scores.json
  cokv detect --kind headkv-r --task passkey --task multi-key-needle --records 20 --out r.scores.json
  cokv detect --kind kvzip --records 4 --out kvzip.scores.json
  cokv detect --kind random --out random.scores.json        # scores to compare with")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// How heads score
    #[arg(long)]
    kind: Kind,
    /// What is asked; where no task is named, passkey and multi-key-needle, whose answers stand in the text word for word
    #[command(flatten)]
    records: Records,
    /// The score file; what each record says lies beside it
    #[arg(long)]
    out: PathBuf,
    /// Show what would be done, about how long it would take and how much memory, and stop. Reads none of the model's weights
    #[arg(long)]
    plan: bool,
    /// Print the scores and how well they are known, or the plan, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Copying (HeadKV-R)
    HeadkvR,
    /// Retrieval and reasoning (HeadKV-R2)
    HeadkvR2,
    /// What a head gives at most to a token while the model repeats the prompt (KVzip)
    Kvzip,
    /// Numbers from 0 to 1 that mean nothing
    Random,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let settings =
        ImportanceSettings { records: of_configuration(&arguments.records)?, ..ImportanceSettings::default() };
    let name = match arguments.kind {
        Kind::HeadkvR => Detection::HeadkvR.name(),
        Kind::HeadkvR2 => Detection::HeadkvR2.name(),
        Kind::Kvzip => Detection::Kvzip.name(),
        Kind::Random => return random(arguments, settings.data(Evidence::Answers).seed),
    };
    let nobodys = Registry::default();
    let estimator = with_choice("--kind", name, &[], |choice| named(choice, &settings, &nobodys))?;
    settings.check(estimator.evidence()).map_err(refused)?;
    let importance = Importance { settings, estimator, per_task: false };
    let log = beside(&arguments.out, "detected.jsonl");
    let manner = Manner { plan: arguments.plan, quiet: false, json: arguments.json };
    find_out(&importance, &arguments.model, &log, Shard::WHOLE, &arguments.out, &manner)
}

/// Scores to compare with.
fn random(arguments: &Arguments, seed: u64) -> Result<()> {
    arguments.records.check().map_err(refused)?;
    if arguments.plan {
        bail!("--kind random draws numbers at once: there is nothing to plan");
    }
    let model = outline(&arguments.model, false)?;
    let (layout, fingerprint) = (model.outline.config().layout, model.fingerprint()?);
    let number = |head: usize| mix(seed << 32 | head as u64) as f64 / u64::MAX as f64;
    let scores: Vec<f64> = (0..layout.heads()).map(number).collect();
    let scores = ScoreFile::new(ModelStamp::of(&arguments.model.source, Some(&fingerprint), layout), "random", &scores);
    scores.write(&arguments.out)?;
    if arguments.json { print(&as_json(&scores).to_string()) } else { show(&scores) }
}
