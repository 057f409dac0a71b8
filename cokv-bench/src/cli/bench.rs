//! `cokv bench`

mod models;
mod written;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use cokv_core::Registry;
use cokv_core::Shard;
use cokv_models::source::Observer;
use serde_json::json;

use self::models::check_models;
use self::written::{environment, manifest, resolved, summary};
use super::bar::fetching;
use super::forecast::{Forecast, enough_disk};
use super::load::load;
use super::mode::Mode;
use super::output::print;
use super::progress::{Audience, Progress};
use super::ready::{Ready, read, ready};
use super::report::write_report;
use super::stopped::Stopped;
use crate::config::Config;
use crate::machine::memory::{mebibytes, peak_resident_bytes};
use crate::model::{Loaded, Outlined};
use crate::report::{LoadedRun, verdicts};
use crate::run::{
    Ended, MODELS, Manifest, ManifestMethod, Matrix, Opened, Results, Row, RunStore, Selected, cells, origin, tables,
    write, write_predictions,
};

/// Run a matrix of methods and budgets
///
/// Every prompt is prefilled once; all methods and budgets are compressed from that prefill and decoded as one batch.
/// Rows are appended to FOLDER/NAME/results.jsonl (of a shard, results-1-of-4.jsonl) prompt by prompt: a run that was
/// stopped, or killed, goes on where it was when the same command is run again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cokv bench --config cokv.toml

A configuration, with all defaults:
  name = \"mine\"                    # the run's folder is runs/mine; where
                                   # nothing is said, as the file is called
  budgets = [64, \"10%\", \"8 MiB\"]   # tokens per KV head, share, bytes
  [model]                          # or several [[model]]
  source = \"smollm2-135m-instruct\" # or hub:owner/repo, path:FILE-OR-FOLDER,
                                   # pip:package==version/file
  weights = \"stored\"               # or f32
  cache = \"f16\"                    # or f32, bf16
  # chat_template_kwargs = { enable_thinking = false }  # what the model's
                                   # chat template is told, if it asks
  [data]
  source = \"synthetic\"             # or hub:THUDM/LongBench[@revision], its
                                   # data.zip or folder; or records of your
                                   # own: cokv data check --help
  tasks = [\"all\"]                  # or names; generated ones also: ruler
                                   # (its families), needle (a grid); of
                                   # LongBench also english, chinese, code,
                                   # single-document-qa, multi-document-qa,
                                   # summarization, few-shot,
                                   # synthetic-tasks, and all-e or TASK_e
                                   # of LongBench-E
  records = 8                      # of each task
  context_tokens = 1000            # of a synthetic prompt
  # context_lengths = [500, 1000]  # instead: records of each length
  depths = 5                       # of the task needle: records at each of
                                   # 0, 25, 50, 75, 100 % of the context
  seed = 0
  # questions = \"squad.jsonl\"      # what the task ruler-qa asks, a part
                                   # of ruler: records of LongBench's layout
                                   # (input, context, answers), or SQuAD's
  # haystack = \"book.txt\"         # what needles and pass keys are hidden in
  # split = \"all\"                  # of files: validation, test
  # max_prompt_tokens = 7500       # longer prompts lose their middle;
                                   # default, and at most: what the model
                                   # can hold beside the answer
  chat_template = \"auto\"           # or never
  [run]
  folder = \"runs\"
  answer_tokens = 64               # of the reference answer, for
                                   # log-likelihood and divergence
  share_prefill = true             # false: every cell alone, to see what
                                   # sharing saves
  protocol = \"question-seen\"       # or context-only: what stands before
                                   # the question is compressed, the rest
                                   # read in full; or a list of both
  noisy_scores = \"stop\"            # or mark: methods whose head scores are
                                   # noise run all the same, with a mark
  [[method]]                       # name = \"…\" sets the label in tables
                                   # (compressor = \"ada-snapkv\": a preset,
                                   # of which cokv methods lists all)
  allocator = \"uniform\"
  [method.compressor]
  name = \"snapkv\"
  window = 8
  kernel = 7
  pooling = \"max\"
  group = \"mean\"
  order = \"reduce-first\"

Head scores for allocators that want them (cokv, headkv, shapley-ada, …) come from a file, or are measured when first
needed, and kept in FOLDER/importance; the keys are the options of cokv estimate:
  [importance.retrieval]
  estimator = \"scpr\"               # or { name = \"ssv\", sides = \"both\" }, …
  data = \"synthetic\"
  tasks = [\"passkey\", \"key-value\"]
  records = 16
  reliability = 0.9                # and both ends must be reached:
  allocation_distance = 0.25       # tokens that half the samples move
  [[method]]
  compressor = \"snapkv\"
  allocator = \"cokv\"
  importance = \"retrieval\"         # or scores = a file, or one for each as
                                   # in \"{model}-{task}.scores.json\" (and
                                   # per_task = true above, not tasks)
  [method.select]                  # to choose from with cokv select
  drop_lowest = [1, 10, 20]")]
pub struct Arguments {
    /// The TOML file that describes the run
    #[arg(long, default_value = "cokv.toml")]
    config: PathBuf,
    /// Show what would be done, head scores that are to be measured first included, about how long it would take and how much
    /// memory, and stop. Reads the model's configuration and tokenizer, and none of its weights
    #[arg(long)]
    plan: bool,
    /// Do one part of the prompts, such as 1/4; parts may run at the same time, on machines that share the folder, once
    /// all scores are measured
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Say nothing until the table
    #[arg(long)]
    quiet: bool,
    /// Tell a program: one JSON object a line, the last of them with the results of all cells; of a plan, one for each model
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

impl Arguments {
    fn audience(&self) -> Audience {
        match (self.json, self.quiet) {
            (true, _) => Audience::Machine,
            (_, true) => Audience::Nobody,
            _ => Audience::People,
        }
    }

    fn part<'a>(&'a self, text: &'a str) -> Part<'a> {
        let shard = self.shard.unwrap_or(Shard::WHOLE);
        Part { configuration: &self.config, text, shard, plan: self.plan, audience: self.audience(), is_task: false }
    }
}

/// Which part of a run is done, and how.
pub(super) struct Part<'a> {
    /// The configuration's file.
    pub configuration: &'a Path,
    /// What it says.
    pub text: &'a str,
    pub shard: Shard,
    /// Only say what there is to do.
    pub plan: bool,
    pub audience: Audience,
    /// Whether it is a task of a cluster: others may be at work on whatever it does, and measuring heads is their affair.
    pub is_task: bool,
}

impl Part<'_> {
    /// What there is to do, as whoever is told reads it.
    fn told(&self, config: &Config, forecast: &Forecast) -> String {
        match self.audience {
            Audience::Machine => forecast.event(&config.run.model.source).to_string(),
            _ => forecast.describe(Some(config), self.plan),
        }
    }

    /// Says something to people.
    fn say(&self, text: &str) {
        if self.audience == Audience::People {
            eprintln!("{text}");
        }
    }

    /// Opens the run's folder and says what was mended.
    pub fn open(&self, folder: &Path) -> Result<RunStore> {
        match self.is_task {
            true => Ok(opened(RunStore::open_task(folder, self.shard)?, folder)),
            false => open(folder, self.shard),
        }
    }

    /// Makes the rows of this part on every model; none where they are only planned.
    pub fn rows(&self, config: &Config) -> Result<Option<Vec<Manifest>>> {
        let (mut store, mut manifests) = (None, Vec::new());
        for config in config.of_models() {
            manifests.push(one_model(self, config, &mut store)?);
        }
        // A plan opens nothing.
        Ok(store.is_some().then_some(manifests))
    }
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let started = Instant::now();
    let (text, config) = read(&arguments.config, registry)?;
    let folder = config.folder();
    origin::check(&folder, &arguments.config, &text)?;
    let part = arguments.part(&text);
    if config.models.len() > 1 {
        // What is wrong with the last model is found out before the first has run for hours.
        check_models(&config, &if arguments.quiet { Observer::default() } else { fetching() }, arguments.plan)?;
    }
    let Some(manifests) = part.rows(&config)? else { return Ok(()) };
    let missing = conclude(&config, &manifests, part.audience)?;
    if missing > 0 {
        let all = manifests.iter().map(|manifest| manifest.rows.len()).sum::<usize>();
        let parts = if part.shard.count > 1 { "the other parts, or " } else { "" };
        eprintln!("{missing} of {all} rows are not done: {parts}the same command goes on there");
    }
    let peak =
        peak_resident_bytes().map(|bytes| format!(", {} of memory at the peak", mebibytes(bytes))).unwrap_or_default();
    let page = match missing {
        0 => format!("report in {}", folder.join(REPORT).join("index.html").display()),
        _ => format!(
            "rows in {}; cokv report {} makes a page of them",
            folder.join("results.jsonl").display(),
            folder.display()
        ),
    };
    part.say(&format!("{:.1} s{peak}; {page}", started.elapsed().as_secs_f64()));
    Ok(())
}

/// The folder of a run's page, within the run's.
const REPORT: &str = "report";

/// Writes and shows the table of all rows, whichever part made them, and once none is missing the predictions and the page.
/// Returns how many are.
pub(super) fn conclude(config: &Config, manifests: &[Manifest], audience: Audience) -> Result<usize> {
    let folder = config.folder();
    let results = Results::read(&folder)?;
    let fingerprints: Vec<&String> = manifests.iter().flat_map(|manifest| &manifest.rows).collect();
    let rows: Vec<Row> = fingerprints.iter().filter_map(|row| results.row(row).cloned()).collect();
    let missing = fingerprints.len() - rows.len();
    if missing == 0 {
        write_predictions(&folder, &rows)?;
    }
    let table = tables(&rows, manifests);
    let verdicts = sentences(&rows, manifests);
    write(&folder, "table.md", &format!("{table}\n{verdicts}\nMethods\n\n{}\n", config.methods_table()))?;
    match audience {
        Audience::Machine => print(&summary(&rows, missing).to_string())?,
        _ => print(&format!("{table}\n{verdicts}"))?,
    }
    if missing == 0 {
        write_report(&[LoadedRun::read(&folder)?], None, &folder.join(REPORT))?;
    }
    Ok(missing)
}

/// What the run says of its methods, a sentence for each comparison; nothing where there is nothing to compare.
fn sentences(rows: &[Row], manifests: &[Manifest]) -> String {
    let methods: Vec<ManifestMethod> = manifests.iter().flat_map(|manifest| manifest.methods.clone()).collect();
    let (verdicts, comparisons) = verdicts(&cells(rows), &methods);
    if verdicts.is_empty() {
        return String::new();
    }
    let lines: String = verdicts.iter().map(|verdict| format!("- {verdict}\n")).collect();
    format!(
        "Score against the best method without head scores, record by record, with 95 % intervals\n\n{lines}\n{comparisons}.\n"
    )
}

/// Runs the matrix on one model, or only plans it.
fn one_model(part: &Part<'_>, config: Config, store: &mut Option<RunStore>) -> Result<Manifest> {
    let mode = Mode { plan: part.plan, choosing: false, quiet: part.audience != Audience::People };
    let mut ready = ready(config, mode)?;
    if part.plan {
        let results = if ready.fingerprint.is_some() { Results::read(&ready.folder)? } else { Results::default() };
        let pace = ready.model.pace();
        let (draft, selected) = draft(&ready, true)?;
        let forecast = ready.forecast(&draft, selected, &results, part.shard, pace.as_ref())?;
        print(&part.told(&draft, &forecast))?;
        room(&ready, &forecast)?;
        return Ok(Manifest::default());
    }
    if part.is_task {
        ready.check_measured()?;
    }
    let store = match store {
        Some(store) => store,
        None => store.insert(part.open(&ready.folder)?),
    };
    let (planned, selected) = draft(&ready, false)?;
    let forecast = ready.forecast(&planned, selected, store.results(), part.shard, None)?;
    match part.audience {
        Audience::Machine => print(&part.told(&planned, &forecast))?,
        _ => part.say(&part.told(&planned, &forecast)),
    }
    room(&ready, &forecast)?;
    // Where nothing is left to do, what was done is shown, and no weight is read.
    let loaded = if forecast.is_done() { None } else { Some(load(&ready.model, &forecast.beside())?) };
    let fingerprint = match &loaded {
        Some(Loaded { model, fingerprint }) => {
            ready.measure(model)?;
            fingerprint.clone()
        }
        None => ready.fingerprint.clone().unwrap_or_default(),
    };
    let Ready { config, prompts, folder, selected, model: Outlined { outline, .. }, .. } = ready;
    if let Some(selected) = &selected {
        selected.check(&config, &fingerprint, &folder)?;
    }
    let matrix = Matrix::prepare(&config, &prompts, &outline, &fingerprint, selected.as_ref())?;
    store
        .write(MODELS, &serde_json::to_string(&config.models.iter().map(|model| &model.source).collect::<Vec<_>>())?)?;
    origin::claim(&folder, part.configuration, part.text)?;
    store.write(origin::CONFIGURATION, part.text)?;
    store.write("resolved.toml", &resolved(&config, part.text)?)?;
    store.write("environment.json", &environment(&config)?)?;
    let manifest = manifest(&config, &fingerprint, outline.config().layout, &matrix);
    store.write(&manifest.file(), &(serde_json::to_string_pretty(&manifest)? + "\n"))?;
    let ours: HashSet<&str> = matrix.fingerprints().collect();
    let foreign = |row: &&Row| row.model == manifest.model && !ours.contains(row.fingerprint.as_str());
    let others = store.results().rows().filter(foreign).count();
    if others > 0 {
        part.say(&format!("note: {others} rows of other settings stay in the results and out of the table"));
    }
    let Some(Loaded { model, .. }) = loaded else { return Ok(manifest) };
    let ended = matrix.run(&model, store, part.shard, &mut Progress::new(part.audience)?)?;
    if ended == Ended::Stopped {
        if part.audience == Audience::Machine {
            print(&json!({ "event": "stopped" }).to_string())?;
        }
        return Err(Stopped("stopped after the prompt; the same command goes on".into()).into());
    }
    Ok(manifest)
}

/// The configuration as far as it is known before the model is loaded, with what was chosen. Of settings that are yet to be
/// chosen, or that were chosen with scores which are yet to be measured, the first stand for all.
fn draft(ready: &Ready, is_plan: bool) -> Result<(Config, Option<&Selected>)> {
    let mut config = ready.config.clone();
    match (&ready.selected, &ready.fingerprint) {
        (Some(selected), Some(fingerprint)) if ready.unmeasured.is_empty() => {
            selected.check(&config, fingerprint, &ready.folder)?;
            return Ok((config, Some(selected)));
        }
        // A run finds out that nothing was chosen before it measures anything.
        (None, _) if !is_plan => return Ok((config, None)),
        _ => {}
    }
    for column in config.columns.iter_mut().filter(|column| column.is_open()) {
        if ready.selected.is_none() {
            eprintln!("settings of `{}` have to be chosen first, by cokv select", column.name);
        }
        column.variants.truncate(1);
    }
    Ok((config, None))
}

/// Refuses what does not fit into memory or on the disk.
fn room(ready: &Ready, forecast: &Forecast) -> Result<()> {
    ready.model.check_room(&forecast.beside())?;
    forecast.matrix.iter().try_for_each(|plan| enough_disk(plan, &ready.folder))
}

/// Opens a run's folder and says what was mended.
fn open(folder: &Path, shard: Shard) -> Result<RunStore> {
    Ok(opened(RunStore::open(folder, shard)?, folder))
}

/// Says what opening a folder has found.
fn opened(Opened { store, torn_bytes }: Opened, folder: &Path) -> RunStore {
    if torn_bytes > 0 {
        eprintln!(
            "{}: an unfinished last line ({torn_bytes} bytes) was cut off; its prompt is run again",
            folder.display()
        );
    }
    for line in store.results().damaged() {
        eprintln!("note: {line}; it is skipped, and its cell is run again");
    }
    if let Some(notice) = store.results().repeated().notice() {
        eprintln!("note: {notice}");
    }
    store
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    #[test]
    fn what_the_help_shows_is_a_configuration() {
        for width in [80, 100] {
            let help = Arguments::augment_args(Command::new("bench")).term_width(width).render_long_help().to_string();
            // A block ends at the first line that is not indented.
            let block = |heading: &str| -> String {
                let lines = help.lines().skip_while(|line| !line.contains(heading)).skip(1);
                lines.take_while(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect()
            };
            let whole = block("A configuration, with all defaults:");
            let scores = block("estimate:");
            assert!(whole.lines().chain(scores.lines()).all(|line| line.chars().count() <= 76), "{help}");
            let parsed = |text: &str| Config::parse("help", text, &cokv_policies::registry());
            let first = parsed(&whole).map_err(|error| error.to_string()).unwrap();
            assert_eq!((first.run.name.as_str(), first.columns.len()), ("mine", 1));
            let both = parsed(&(whole + &scores)).map_err(|error| error.to_string()).unwrap();
            assert_eq!(both.columns.len(), 2);
        }
    }
}
