//! `cokv select`

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_core::Shard;
use cokv_models::Outline;
use cokv_shapley::whole;

use super::bench::Part;
use super::load::load;
use super::mode::Mode;
use super::output::print;
use super::progress::{Audience, Progress};
use super::ready::{Ready, read, ready};
use super::stopped::Stopped;
use crate::config::Config;
use crate::markdown;
use crate::model::{Loaded, Outlined};
use crate::run::{Asked, Choice, Ended, Matrix, Results, SELECTION, Selected, Trial, origin, selection_fingerprint};
use crate::selection::{choose, sweep, validation};

/// Choose settings of methods on the validation records
///
/// For every method of a configuration that lists settings to choose from, runs all of them on records that the matrix is
/// not tested on (CoKV's validation split of LongBench; the next seed of synthetic data), and keeps, for each task and
/// budget, those of the highest mean score. FOLDER/NAME/selection.json holds the choice and the whole sweep; `cokv bench`
/// with the same configuration then uses it. A stopped or killed sweep goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  [[method]]
  compressor = \"snapkv\"
  allocator = \"cokv\"
  importance = \"retrieval\"
  select = { drop_lowest = [1, 5, 10, 20, 40] }

  cokv select --config cokv.toml && cokv bench --config cokv.toml")]
pub struct Arguments {
    /// The TOML file that describes the run
    #[arg(long, default_value = "cokv.toml")]
    config: PathBuf,
    /// Show what would be done, about how long it would take and how much memory, and stop
    #[arg(long)]
    plan: bool,
    /// Say nothing until the table
    #[arg(long)]
    quiet: bool,
    /// Tell a program what is planned, as JSON
    #[arg(long, requires = "plan")]
    json: bool,
}

/// The folder of the sweep's rows, within the run's.
pub(super) const SWEEP: &str = "selection";

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let (text, config) = read(&arguments.config, registry)?;
    let part = Part {
        configuration: &arguments.config,
        text: &text,
        shard: Shard::WHOLE,
        plan: arguments.plan,
        audience: if arguments.quiet || arguments.json { Audience::Nobody } else { Audience::People },
        is_task: false,
    };
    if !config.columns.iter().any(|column| column.is_open()) {
        bail!(
            "{}: no method lists settings to choose from; add, for example, select = {{ drop_lowest = [1, 10, 20] }}",
            arguments.config.display()
        );
    }
    origin::check(&config.folder(), &arguments.config, &text)?;
    let ready = on_validation(config, &part)?;
    if arguments.plan {
        return plan(&ready, arguments.json);
    }
    let swept = sweep_part(&part, ready)?;
    swept.choose(&Results::read(&swept.folder.join(SWEEP))?, part.audience)
}

/// Gets the methods ready that have settings to choose from, on the validation records.
pub(super) fn on_validation(mut config: Config, part: &Part<'_>) -> Result<Ready> {
    config.columns.retain(|column| column.is_open());
    config.run.data = validation(&config.run.data);
    ready(config, Mode { plan: part.plan, choosing: true, quiet: part.audience != Audience::People })
}

/// Every variant as a column of its own.
fn swept(config: &Config) -> Config {
    Config { columns: sweep(config.columns.clone()), ..config.clone() }
}

fn plan(ready: &Ready, json: bool) -> Result<()> {
    let planned = swept(&ready.config);
    let (known, rows) = (ready.fingerprint.is_some(), ready.folder.join(SWEEP));
    let results = if known { Results::read(&rows)? } else { Results::default() };
    let forecast = ready.forecast(&planned, None, &results, Shard::WHOLE, ready.model.pace().as_ref())?;
    print(&match json {
        true => forecast.event(&planned.run.model.source).to_string(),
        false => format!("validation records of {}", forecast.describe(Some(&planned), true)),
    })?;
    Ok(ready.model.check_room(&forecast.beside())?)
}

/// A sweep whose rows, or those of a part of it, are there.
pub(super) struct Swept {
    config: Config,
    prompts: Vec<Asked>,
    outline: Arc<Outline>,
    fingerprint: String,
    /// Fingerprints of the records.
    tested: HashSet<String>,
    /// The run's folder.
    folder: PathBuf,
}

/// Makes the rows of a part of the sweep.
pub(super) fn sweep_part(part: &Part<'_>, mut ready: Ready) -> Result<Swept> {
    let planned = swept(&ready.config);
    let mut store = part.open(&ready.folder.join(SWEEP))?;
    origin::claim(&ready.folder, part.configuration, part.text)?;
    let forecast = ready.forecast(&planned, None, store.results(), part.shard, None)?;
    if part.audience == Audience::People {
        eprintln!("validation records of {}", forecast.describe(Some(&planned), false));
    }
    if forecast.is_done() {
        return Swept::of(ready);
    }
    let Loaded { model, .. } = load(&ready.model, &forecast.beside())?;
    ready.measure(&model)?;
    let swept = Swept::of(ready)?;
    let config = self::swept(&swept.config);
    let matrix = Matrix::prepare(&config, &swept.prompts, &swept.outline, &swept.fingerprint, None)?;
    let ended = matrix.run(&model, &mut store, part.shard, &mut Progress::new(part.audience)?)?;
    if ended == Ended::Stopped {
        return Err(Stopped("stopped after the prompt; the same command goes on".into()).into());
    }
    Ok(swept)
}

impl Swept {
    /// What is ready and measured.
    pub fn of(ready: Ready) -> Result<Self> {
        ready.check_measured()?;
        let Ready { config, prompts, tested, folder, fingerprint, model: Outlined { outline, .. }, .. } = ready;
        Ok(Self { config, prompts, outline, fingerprint: fingerprint.unwrap_or_default(), tested, folder })
    }

    /// Chooses by the rows of the sweep, which are all there, and writes and shows the choice.
    pub fn choose(&self, results: &Results, audience: Audience) -> Result<()> {
        let Self { config, prompts, outline, fingerprint, tested, folder } = self;
        let names: Vec<(String, Vec<(String, String)>)> = config
            .columns
            .iter()
            .map(|column| {
                let variants = column.variants.iter();
                let names = variants.map(|variant| (variant.method.name().to_owned(), variant.settings.clone()));
                (column.name.clone(), names.collect())
            })
            .collect();
        let swept = swept(config);
        let matrix = Matrix::prepare(&swept, prompts, outline, fingerprint, None)?;
        let rows = matrix.rows(results);
        let missing = matrix.fingerprints().count() - rows.len();
        if missing > 0 {
            bail!("{missing} rows of the validation records are missing: nothing can be chosen yet");
        }
        let choices = choose(&rows, &names);
        let mut seen: Vec<String> = tested.iter().cloned().collect();
        seen.sort_unstable();
        let table = table(&choices);
        let selected = Selected { fingerprint: selection_fingerprint(config, fingerprint), seen, choices };
        let path = folder.join(SELECTION);
        whole::write(&path, serde_json::to_string_pretty(&selected)? + "\n")
            .with_context(|| path.display().to_string())?;
        print(&table)?;
        if audience == Audience::People {
            eprintln!("the choice is in {}, every prediction in {}", path.display(), folder.join(SWEEP).display());
        }
        Ok(())
    }
}

fn table(choices: &[Choice]) -> String {
    let mut table = markdown::table(["method", "task", "budget", "chosen", "decided by", "score", "all scores"], 5);
    for Choice { method, task, budget, settings, sweep } in choices {
        let score = |score: f64| format!("{:.1}", 100.0 * score);
        let chosen = sweep.iter().find(|trial| trial.settings == *settings).map(|trial| score(trial.score));
        let all: Vec<String> = sweep.iter().map(|trial| score(trial.score)).collect();
        table.add_row([
            method.clone(),
            task.clone(),
            budget.to_string(),
            settings.clone(),
            decided_by(sweep).into(),
            chosen.unwrap_or_default(),
            all.join(" "),
        ]);
    }
    markdown::text(&table)
}

/// What told the best trial from the others.
fn decided_by(sweep: &[Trial]) -> &'static str {
    let best = sweep.iter().map(|trial| trial.score).fold(f64::NEG_INFINITY, f64::max);
    let tied: Vec<&Trial> = sweep.iter().filter(|trial| trial.score == best).collect();
    match &tied[..] {
        [] | [_] => "score",
        [first, rest @ ..] if rest.iter().all(|trial| trial.log_likelihood == first.log_likelihood) => {
            "nothing: all tie"
        }
        _ => "log-likelihood",
    }
}
