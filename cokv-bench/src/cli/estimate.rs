//! `cokv estimate` and `cokv merge`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_core::Shard;
use cokv_shapley::statistics::mean;
use cokv_shapley::{LogFile, Outcome, estimator, read_log};

use super::bar::fetching;
use super::choice::{refused, with_choice};
use super::load::load;
use super::output::print;
use super::progress::{Audience, Progress};
use crate::data::longbench::Fetcher;
use crate::importance::{Estimated, Estimation, Importance, ImportanceSettings};
use crate::model::{Loaded, ModelSettings};
use crate::scores::ModelStamp;
use crate::scores::show::{TerminalColours, extremes, heat_map, summary};

/// Find out what each KV head is worth to a task
///
/// The heads play a cooperative game: a coalition's heads see the whole prompt, all others its last few tokens, and the
/// utility is how well the model still answers. Every record is prefilled once; many coalitions are one forward pass.
/// Samples are appended to OUT.samples.jsonl as they come: a stopped or killed run goes on where it was when the same
/// command is run again. With --estimator NAME and the --design that was played, another estimator reads the same samples.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv estimate --task passkey --out passkey.scores.json
  cokv estimate --data ../LongBench --task qasper --max-prompt-tokens 2000 --out qasper.scores.json
  cokv estimate --task key-value --utility agreement --reliability 0.95 --out any.scores.json
  cokv estimate --task passkey --estimator ssv --set 'sides=\"both\"' --design 'slices 11,22,33,45' --out ssv.scores.json
  cokv estimate --task passkey --estimator exact --heads 18.2,23.0,20.2,17.1 --records 4 --out exact.scores.json
  cokv estimate --task passkey --shard 1/4 --out part1.scores.json      # on each of four machines, then:
  cokv merge part*.samples.jsonl --out whole.samples.jsonl")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    settings: ImportanceSettings,
    /// scpr, ssv, ssv-ridge, complementary, permutation, kernel-shap, leave-one-out, banzhaf or exact
    #[arg(long, default_value = cokv_shapley::NAMES[0])]
    estimator: String,
    /// Settings of the estimator, as in a configuration: 'sides=\"both\"' (ssv), 'prior=\"ridge\"' (scpr),
    /// antithetic=false (permutation)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    estimator_settings: Vec<String>,
    /// Do one part of the samples: 1/4 to 4/4
    #[arg(long)]
    shard: Option<Shard>,
    /// The score file; the samples lie beside it
    #[arg(long)]
    out: PathBuf,
    /// Say nothing until the scores
    #[arg(long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let started = Instant::now();
    let settings = arguments.settings.clone();
    settings.check().map_err(refused)?;
    let estimator = with_choice("--estimator", &arguments.estimator, &arguments.estimator_settings, estimator)?;
    let importance = Importance { settings, estimator, per_task: false };

    let Loaded { model, fingerprint } = load(&arguments.model)?;
    let stamp = ModelStamp::of(&arguments.model.source, &fingerprint, model.config().layout);
    let held_as = arguments.model.held_as();
    let estimation = Estimation::prepare(&importance, &model, stamp, &held_as, &Fetcher::from_env(fetching()))?;
    let samples = beside(&arguments.out, "samples.jsonl");
    let shard = arguments.shard.unwrap_or(Shard::WHOLE);
    let audience = if arguments.quiet { Audience::Nobody } else { Audience::People };
    let played = estimation.play(&samples, shard, &mut Progress::new(audience)?)?;
    let Some(Estimated { scores, estimate, outcome, log }) = played else {
        let next = if arguments.shard.is_some() { ", or cokv merge joins the shards" } else { "" };
        eprintln!("what was played is in {}; the same command goes on{next}", samples.display());
        return Ok(());
    };
    scores.write(&arguments.out)?;
    if !arguments.quiet {
        let ends = log.ends().map(|ends| (mean(&ends.full), mean(&ends.empty))).unwrap_or_default();
        eprintln!(
            "{}: reliability {:.3} after {} samples, {} evaluations; U(all heads) {:.4}, U(none) {:.4}; {:.1} s; scores in {}",
            outcome_text(outcome),
            estimate.reliability,
            estimate.samples,
            estimate.evaluations,
            ends.0,
            ends.1,
            started.elapsed().as_secs_f64(),
            arguments.out.display()
        );
    }
    let colours = TerminalColours::detect(std::io::stdout().is_terminal(), |name| std::env::var(name).ok());
    print(&format!("{}\n{}\n{}", summary(&scores), heat_map(&scores, colours), extremes(&scores, 5)))
}

/// The file beside `x.scores.json` that is called `x.` and `ending`.
pub(super) fn beside(out: &Path, ending: &str) -> PathBuf {
    let name = stem(out, ".json");
    let stem = name.strip_suffix(".scores").unwrap_or(&name);
    out.with_file_name(format!("{stem}.{ending}"))
}

/// A file's name without its folder and without an ending.
pub(super) fn stem(path: &Path, ending: &str) -> String {
    let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
    name.strip_suffix(ending).unwrap_or(&name).to_owned()
}

fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Reliable => "reliable",
        Outcome::Evaluations => "no more evaluations are allowed",
        Outcome::Time => "time is up",
        Outcome::TwoRunMae => "two halves agree",
        Outcome::AllocationDistance => "two halves give the same budgets",
        Outcome::Exhausted => "all samples are done",
        Outcome::Interrupted => "stopped",
    }
}

/// Put the samples of several shards into one file
///
/// The files must be of the same game, plan and seed. A sample that is in several of them counts once.
#[derive(clap::Args)]
pub struct Merge {
    /// Files of samples
    #[arg(required = true)]
    samples: Vec<PathBuf>,
    /// The file to make; `cokv estimate --out` of the same name goes on from it
    #[arg(long)]
    out: PathBuf,
}

pub fn merge(arguments: &Merge) -> Result<()> {
    let read = |path: &PathBuf| -> Result<_> {
        let (log, notices) = read_log(path)?;
        notices.iter().for_each(|notice| eprintln!("{}: {notice}", path.display()));
        Ok(log)
    };
    let mut logs = arguments.samples.iter();
    let first = logs.next().context("no file to merge")?;
    let mut whole = read(first)?;
    for path in logs {
        let notice = whole.merge(read(path)?).with_context(|| path.display().to_string())?;
        notice.iter().for_each(|notice| eprintln!("{}: {notice}", path.display()));
    }
    if arguments.out.exists() {
        bail!("{} exists; merge into a new file", arguments.out.display());
    }
    let (mut file, ..) = LogFile::open(&arguments.out, whole.header())?;
    if let Some(ends) = whole.ends() {
        file.append_ends(ends)?;
    }
    for sample in whole.samples() {
        file.append(sample)?;
    }
    print(&format!("{} samples in {}", whole.len(), arguments.out.display()))
}
