//! `cokv bench`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use cokv_core::Registry;
use serde_json::json;

use super::output::print;
use super::progress::Progress;
use super::ready::{Mode, Ready, ready};
use crate::config::Config;
use crate::run::memory::{mebibytes, peak_resident_bytes};
use crate::run::{Matrix, Opened, Plan, Results, RunStore, Summary, summarise};

/// Run a matrix of methods and budgets on one model
///
/// Every prompt is prefilled once; all methods and budgets are compressed from that prefill and decoded as one batch.
/// Rows are appended to FOLDER/NAME/results.jsonl prompt by prompt: a run that was stopped, or killed, goes on where it
/// was when the same command is run again.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  cokv bench --config cokv.toml

A configuration, with all defaults:
  name = \"default\"                       # the run's folder is runs/default
  budgets = [64, \"10%\", \"8 MiB\"]         # tokens per KV head, share of the prompt, bytes
  [model]
  source = \"smollm2-135m-instruct\"       # or hub:owner/repo, path:FILE-OR-FOLDER, pip:package==version/file
  weights = \"stored\"                     # or f32
  cache = \"f16\"                          # or f32, bf16
  [data]
  source = \"synthetic\"                   # or hub:THUDM/LongBench[@revision], its data.zip, or a LongBench folder
  tasks = [\"all\"]                        # of LongBench also english, chinese, code, single-document-qa,
                                         # multi-document-qa, summarization, few-shot, synthetic-tasks, and
                                         # all-e or TASK_e of LongBench-E
  records = 8                            # of each task
  context_tokens = 1000                  # of a synthetic prompt
  seed = 0
  # split = \"all\"                        # of LongBench: validation, test
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
  importance = \"retrieval\"               # or scores = \"FILE.scores.json\"
  select = { drop_lowest = [1, 10, 20] } # settings to choose from with cokv select")]
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
    let mode = Mode { plan: arguments.plan, choosing: false, quiet: arguments.quiet };
    let Ready { text, config, model, fingerprint, tasks, folder, selected, .. } =
        ready(&arguments.config, registry, mode, |_| Ok(()))?;
    if let Some(selected) = &selected {
        selected.check(&config, &fingerprint, &folder)?;
    }
    let matrix = Matrix::prepare(&config, tasks, &model, &fingerprint, selected.as_ref())?;
    if arguments.plan {
        eprintln!("{}", describe(&config, &matrix.plan(&Results::read(&folder)?)));
        return Ok(());
    }
    let mut store = open(&folder)?;
    let plan = matrix.plan(store.results());
    if !arguments.quiet {
        eprintln!("{}", describe(&config, &plan));
    }
    store.write("config.toml", &text)?;
    store.write("environment.json", &environment(&config, &fingerprint)?)?;

    let mut progress = Progress::new(&plan, arguments.quiet);
    matrix.run(&mut store, &mut progress)?;
    progress.clear();

    let rows = matrix.rows(store.results());
    store.write_predictions(&rows)?;
    let table = Summary::markdown(&summarise(&rows));
    store.write("table.md", &format!("{table}\nMethods\n\n{}\n", config.methods_table()))?;
    print(&table)?;
    if !arguments.quiet {
        let peak = peak_resident_bytes()
            .map(|bytes| format!(", {} of memory at the peak", mebibytes(bytes)))
            .unwrap_or_default();
        eprintln!("{:.1} s{peak}; rows in {}", started.elapsed().as_secs_f64(), folder.join("results.jsonl").display());
    }
    Ok(())
}

/// Opens a run's folder and says what was mended.
pub(super) fn open(folder: &Path) -> Result<RunStore> {
    let Opened { store, torn_bytes } = RunStore::open(folder)?;
    if torn_bytes > 0 {
        eprintln!(
            "{}: an unfinished last line ({torn_bytes} bytes) was cut off; its prompt is run again",
            folder.display()
        );
    }
    Ok(store)
}

pub(super) fn describe(config: &Config, plan: &Plan) -> String {
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
        config.methods().map(|method| (method.name().to_owned(), json!(method.definition()))).collect();
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
