//! `cokv bench`

use std::collections::{BTreeMap, HashSet};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cokv_core::{HeadScores, Registry};
use cokv_models::LanguageModel;
use cokv_shapley::Shard;
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use serde_json::json;

use super::estimate::held_as;
use super::load::{Loaded, load};
use super::output::print;
use super::watcher::Teller;
use crate::config::{Config, check_unseen};
use crate::data::{Record, Suite};
use crate::importance::Estimation;
use crate::run::memory::{mebibytes, peak_resident_bytes};
use crate::run::{Matrix, Observer, Opened, Plan, Results, RunStore, Summary, summarise, tasks};
use crate::scores::show::summary;
use crate::scores::{ModelStamp, ScoreFile};

/// Run a matrix of methods and budgets on one model
///
/// Every prompt is prefilled once; all methods and budgets are compressed from that prefill and decoded as one batch.
/// Rows are appended to FOLDER/NAME/results.jsonl prompt by prompt: a run that was stopped, or killed, goes on where it
/// was when the same command is run again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cokv bench --config cokv.toml

A configuration, with every default written out:
  name = \"default\"                       # the run's folder is runs/default
  budgets = [64, \"10%\", \"8 MiB\"]         # tokens per KV head, share of the prompt, bytes
  [model]
  source = \"smollm2-135m-instruct\"       # or hub:owner/repo, path:FILE-OR-FOLDER, pip:package==version/file
  weights = \"stored\"                     # or f32
  cache = \"f16\"                          # or f32, bf16
  [data]
  source = \"synthetic\"                   # or a LongBench folder
  tasks = [\"all\"]
  records = 8                            # of each task
  context_tokens = 1000                  # of a synthetic prompt
  seed = 0
  # max_prompt_tokens = 7500             # longer prompts lose their middle; default: what the model can hold
  chat_template = \"auto\"                 # or never
  [run]
  folder = \"runs\"
  answer_tokens = 64                     # of the reference answer, for log-likelihood and divergence
  [[method]]
  compressor = { name = \"snapkv\", window = 8, kernel = 7, pooling = \"max\", group = \"mean\", order = \"reduce-first\" }
  allocator = \"uniform\"

Head scores for allocators that want them (cokv, headkv, shapley-ada, …) come from a file, or are measured when first
needed, and kept in FOLDER/importance; the keys are the options of cokv estimate:
  [importance.retrieval]
  estimator = \"scpr\"                     # or { name = \"ssv\", sides = \"both\" }, …
  data = \"synthetic\"
  tasks = [\"passkey\", \"key-value\"]
  records = 16
  reliability = 0.9
  [[method]]
  compressor = \"snapkv\"
  allocator = \"cokv\"
  importance = \"retrieval\"               # or scores = \"FILE.scores.json\"")]
pub struct Arguments {
    /// The TOML file that describes the run
    #[arg(long, default_value = "cokv.toml")]
    config: PathBuf,
    /// Show what would be done and stop
    #[arg(long)]
    plan: bool,
    /// Say nothing until the table
    #[arg(long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let started = Instant::now();
    let file = arguments.config.display().to_string();
    let text = std::fs::read_to_string(&arguments.config).with_context(|| file.clone())?;
    let mut config = Config::parse(&file, &text, registry)?;
    let suite = Suite::open(&config.run.data)?;
    let folder = config.run.run.folder.join(&config.run.name);

    let settings = config.run.model.clone();
    let Loaded { model, fingerprint } = load(&settings.source, settings.weights, settings.cache)?;
    let stamp = ModelStamp::of(&settings.source, &fingerprint, model.config().layout);
    let tasks = tasks(&config.run, suite, &model)?;
    let tested = tasks.iter().flat_map(|task| task.records.iter().map(Record::fingerprint)).collect();
    let measured = measure(&mut config, &model, &stamp, &tested, arguments)?;
    let notices = config.fit_to(&stamp, &measured, &tested)?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    let matrix = Matrix::prepare(&config, tasks, &model, &fingerprint)?;
    if arguments.plan {
        eprintln!("{}", describe(&config, &matrix.plan(&Results::read(&folder)?)));
        return Ok(());
    }
    let Opened { mut store, torn_bytes } = RunStore::open(&folder)?;
    if torn_bytes > 0 {
        eprintln!(
            "{}: an unfinished last line ({torn_bytes} bytes) was cut off; its prompt is run again",
            folder.display()
        );
    }
    let plan = matrix.plan(store.results());
    if !arguments.quiet {
        eprintln!("{}", describe(&config, &plan));
    }
    store.write("config.toml", &text)?;
    store.write("environment.json", &environment(&config, &fingerprint)?)?;

    let mut progress = Progress::new(&plan, arguments.quiet);
    matrix.run(&mut store, &mut progress)?;
    progress.bar.finish_and_clear();

    let rows = matrix.rows(store.results());
    store.write_predictions(&rows)?;
    let table = Summary::markdown(&summarise(&rows));
    store.write("table.md", &table)?;
    print(&table)?;
    if !arguments.quiet {
        let peak = peak_resident_bytes()
            .map(|bytes| format!(", {} of memory at the peak", mebibytes(bytes)))
            .unwrap_or_default();
        eprintln!("{:.1} s{peak}; rows in {}", started.elapsed().as_secs_f64(), folder.join("results.jsonl").display());
    }
    Ok(())
}

/// Head scores of the importance tables that methods use: as measured before, or measured now. A plan measures nothing.
fn measure(
    config: &mut Config,
    model: &LanguageModel,
    stamp: &ModelStamp,
    tested: &HashSet<String>,
    arguments: &Arguments,
) -> Result<BTreeMap<String, HeadScores>> {
    let names: Vec<String> = config.importance_used().into_iter().map(Into::into).collect();
    let mut measured = BTreeMap::new();
    if names.is_empty() {
        return Ok(measured);
    }
    // Methods that cannot run on this model are found out before anything is measured, whatever the scores will be.
    let layout = model.config().layout;
    let made_up = HeadScores::new(layout, (0..layout.heads()).map(|head| head as f64).collect())?;
    config.fit_to(stamp, &names.iter().map(|name| (name.clone(), made_up.clone())).collect(), tested)?;
    let folder = config.run.run.folder.join("importance");
    let mut teller = Teller::new(arguments.quiet)?;
    for name in names {
        let held_as = held_as(config.run.model.weights, config.run.model.cache);
        let importance = &config.importance[&name];
        let estimation = Estimation::prepare(importance, model, stamp.clone(), &held_as)
            .with_context(|| format!("[importance.{name}]"))?;
        check_unseen(&format!("[importance.{name}]"), estimation.seen(), tested)?;
        let (samples, scores) = estimation.fingerprints();
        let scores = folder.join(format!("{name}-{scores}.scores.json"));
        let file = if scores.exists() {
            ScoreFile::read(&scores)?
        } else if arguments.plan {
            eprintln!("[importance.{name}] has to be measured first");
            continue;
        } else {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            eprintln!("[importance.{name}] is measured; scores will be in {}", scores.display());
            let samples = folder.join(format!("{name}-{samples}.samples.jsonl"));
            let played = estimation.play(&samples, Shard::WHOLE, &mut teller);
            teller.clear();
            let Some(estimated) = played.with_context(|| format!("[importance.{name}]"))? else {
                bail!("stopped; what was played is in {}; the same command goes on", samples.display());
            };
            estimated.scores.write(&scores)?;
            eprintln!("{}", summary(&estimated.scores));
            estimated.scores
        };
        measured.insert(name, file.head_scores(stamp).map_err(|problem| problem.at(&scores))?);
    }
    Ok(measured)
}

fn describe(config: &Config, plan: &Plan) -> String {
    let Plan { cells, prompts, done, tokens_to_prefill, shortened, longest_shortened } = plan;
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let mut text = format!("{}: {}", config.run.name, count(*prompts, "prompt"));
    if *done > 0 {
        text += &format!(", {done} of them done");
    }
    text += &format!(" × {}; {tokens_to_prefill} tokens to prefill, once for all cells", count(*cells, "cell"));
    if *shortened > 0 {
        text += &format!(
            "\nnote: {} lost the middle (the longest had {longest_shortened} tokens)",
            count(*shortened, "prompt")
        );
    }
    text
}

/// What a run was made with: every default written out, versions, and the machine.
fn environment(config: &Config, fingerprint: &str) -> Result<String> {
    let methods: serde_json::Map<_, _> =
        config.methods.iter().map(|method| (method.name().to_owned(), json!(method.definition()))).collect();
    let environment = json!({
        "cokv": env!("CARGO_PKG_VERSION"),
        "settings": serde_json::to_value(&config.run)?,
        "methods": methods,
        "model_fingerprint": fingerprint,
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "threads": std::thread::available_parallelism().map_or(0, usize::from),
    });
    Ok(serde_json::to_string_pretty(&environment)? + "\n")
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    lines: bool,
    prompt: String,
    done: u64,
    said: Instant,
    started: Instant,
    to_do: u64,
    rows: usize,
}

impl Progress {
    fn new(plan: &Plan, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = match quiet || !terminal {
            true => ProgressBar::hidden(),
            false => ProgressBar::new(plan.prompts as u64),
        };
        let template = "{wide_bar} {pos}/{len} prompts, {elapsed} gone, {eta} left  {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(500));
        let to_do = (plan.prompts - plan.done) as u64;
        Self {
            bar,
            lines: !quiet && !terminal,
            prompt: String::new(),
            done: 0,
            said: Instant::now(),
            started: Instant::now(),
            to_do,
            rows: 0,
        }
    }
}

impl Observer for Progress {
    fn skipped(&mut self, prompts: usize) {
        self.bar.inc(prompts as u64);
        // What was done before says nothing about the speed of this run.
        self.bar.reset_eta();
    }

    fn begin(&mut self, task: &str, _record: &str, prompt_tokens: usize) {
        self.prompt = format!("{task}, {prompt_tokens} tokens");
        self.bar.set_message(self.prompt.clone());
    }

    fn prefilled(&mut self, tokens: usize) {
        self.bar.set_message(format!("{}, {tokens} prefilled", self.prompt));
    }

    fn finished(&mut self, rows: usize) {
        self.done += 1;
        self.rows += rows;
        self.bar.inc(1);
        let due = self.said.elapsed() > Duration::from_secs(10) || self.done == self.to_do;
        if self.lines && due {
            self.said = Instant::now();
            let elapsed = self.started.elapsed();
            let left = elapsed.mul_f64((self.to_do - self.done) as f64 / self.done as f64);
            eprintln!(
                "{}/{} prompts, {:.1} cells/s, about {} left",
                self.done,
                self.to_do,
                self.rows as f64 / elapsed.as_secs_f64(),
                HumanDuration(left)
            );
        }
    }

    fn note(&mut self, text: &str) {
        match self.lines || self.bar.is_hidden() {
            true => eprintln!("note: {text}"),
            false => self.bar.println(format!("note: {text}")),
        }
    }
}
