//! `cokv estimate` and `cokv merge`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cokv_core::config::Choice;
use cokv_core::{Registry, Shard};
use cokv_shapley::{LogFile, read_log};
use serde_json::json;

use super::bar::fetching;
use super::choice::{refused, with_choice};
use super::data::of_configuration;
use super::forecast::{Forecast, Studied, beside_study};
use super::load::{load, outline};
use super::output::print;
use super::progress::{Audience, Progress};
use super::stopped::Stopped;
use crate::data::longbench::Fetcher;
use crate::importance::{Estimated, Estimation, Importance, ImportanceSettings, named};
use crate::model::{Beside, ModelSettings};
use crate::scores::ScoreFile;
use crate::scores::show::{Shades, TerminalColours, extremes, heat_map, summary};

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
  cokv estimate --task passkey --estimator ssv --set sides=both --design 'slices 11,22,33,45' --out ssv.scores.json
  cokv estimate --task passkey --estimator exact --heads 18.2,23.0,20.2,17.1 --records 4 --out exact.scores.json
  cokv estimate --task passkey --out passkey.scores.json --plan      # what it would take
  cokv estimate --task passkey --shard 1/4 --out part1.scores.json      # on each of four machines, then:
  cokv merge part*.samples.jsonl --out whole.samples.jsonl")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    #[command(flatten)]
    settings: ImportanceSettings,
    /// scpr, ssv, ssv-ridge, complementary, permutation, kernel-shap, leave-one-out, banzhaf or exact; headkv-r or headkv-r2,
    /// which watch where the model looks while it answers, kvzip, where it looks while it repeats; or one that a crate of your own adds
    #[arg(long, default_value = cokv_shapley::NAMES[0])]
    estimator: String,
    /// Settings of the estimator, as in a configuration: sides=both (ssv), prior=ridge (scpr),
    /// antithetic=false (permutation)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    estimator_settings: Vec<String>,
    /// Do one part of the samples: 1/4 to 4/4
    #[arg(long)]
    shard: Option<Shard>,
    /// The score file; the samples lie beside it
    #[arg(long)]
    out: PathBuf,
    /// Show what would be done, about how long it would take and how much memory, and stop. Reads none of the model's weights
    #[arg(long)]
    plan: bool,
    /// Say nothing until the scores
    #[arg(long)]
    quiet: bool,
    /// Print the scores and how well they are known, or the plan, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let records = of_configuration(&arguments.settings.records)?;
    let settings = ImportanceSettings { records, ..arguments.settings.clone() };
    let build = |choice: &Choice<'_>| named(choice, &settings, registry);
    let estimator = with_choice("--estimator", &arguments.estimator, &arguments.estimator_settings, build)?;
    settings.check(estimator.evidence()).map_err(refused)?;
    let importance = Importance { settings, estimator, per_task: false };
    let log = beside(&arguments.out, "samples.jsonl");
    let Arguments { model, shard, out, plan, quiet, json, .. } = arguments;
    let shard = shard.unwrap_or(Shard::WHOLE);
    find_out(&importance, model, &log, shard, out, &Manner { plan: *plan, quiet: *quiet, json: *json })
}

/// How a command goes about an estimation.
pub(super) struct Manner {
    /// Only say what there is to do.
    pub plan: bool,
    /// Say nothing until the scores.
    pub quiet: bool,
    /// Print for a program.
    pub json: bool,
}

/// Runs an estimation on a model, writes the score file and shows it; or only says what there is to do.
pub(super) fn find_out(
    importance: &Importance,
    settings: &ModelSettings,
    log: &Path,
    shard: Shard,
    out: &Path,
    &Manner { plan, quiet, json }: &Manner,
) -> Result<()> {
    let started = Instant::now();
    let outlined = outline(settings, plan)?;
    if !plan {
        // Before anything of the weights is read.
        outlined.check_room(&Beside::default())?;
    }
    let fingerprint = if plan { outlined.known_fingerprint() } else { Some(outlined.fingerprint()?) };
    let fetcher = Fetcher::from_env(fetching());
    let estimation = Estimation::prepare(importance, &outlined, fingerprint.as_deref(), &fetcher)?;
    if plan {
        let pace = outlined.pace();
        let work = estimation.work(fingerprint.is_some().then_some(log), shard, pace.as_ref())?;
        let forecast = Forecast {
            studies: vec![Studied { title: estimation.title(), work }],
            matrix: None,
            weight_bytes: outlined.outline.weights().bytes(settings.weights),
            looked: fingerprint.is_some() || !log.exists(),
        };
        print(&match json {
            true => forecast.event(&settings.source).to_string(),
            false => forecast.describe(None, true),
        })?;
        return Ok(outlined.check_room(&forecast.beside())?);
    }
    let work = estimation.work(Some(log), shard, None)?;
    let model = load(&outlined, &beside_study(&work))?.model;
    let audience = if quiet { Audience::Nobody } else { Audience::People };
    let mut progress = Progress::new(audience)?;
    let played = estimation.run(&model, log, shard, &mut progress)?;
    let Some(Estimated { scores, estimate }) = played else {
        if progress.stopped() {
            let message = format!("stopped; what was played is in {}; the same command goes on", log.display());
            return Err(Stopped(message).into());
        }
        eprintln!("this shard is done, in {}: cokv merge joins the shards", log.display());
        return Ok(());
    };
    scores.write(out)?;
    if !quiet {
        let seconds = started.elapsed().as_secs_f64();
        eprintln!("{}; {seconds:.1} s; scores in {}", estimate.summary, out.display());
    }
    if json { print(&as_json(&scores).to_string()) } else { show(&scores) }
}

/// A score file with how well its scores are known, for a program.
pub(super) fn as_json(scores: &ScoreFile) -> serde_json::Value {
    json!({ "scores": scores, "worth": scores.worth() })
}

/// A score file on the terminal.
pub(super) fn show(scores: &ScoreFile) -> Result<()> {
    let colours = TerminalColours::detect(std::io::stdout().is_terminal(), |name| std::env::var(name).ok());
    print(&format!("{}\n{}\n{}", summary(scores), heat_map(scores, colours, Shades::default()), extremes(scores, 5)))
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
