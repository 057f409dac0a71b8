//! `cokv select`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_core::Shard;
use cokv_shapley::whole;

use super::bench::open;
use super::load::load;
use super::mode::Mode;
use super::output::print;
use super::progress::{Audience, Progress};
use super::ready::{Ready, read, ready};
use super::stopped::Stopped;
use crate::config::Config;
use crate::markdown;
use crate::model::Loaded;
use crate::run::{Choice, Ended, Matrix, Results, RunStore, SELECTION, Selected, Trial, origin, selection_fingerprint};
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
const SWEEP: &str = "selection";

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let mode = Mode { plan: arguments.plan, choosing: true, quiet: arguments.quiet || arguments.json };
    let (text, mut config) = read(&arguments.config, registry)?;
    config.columns.retain(|column| column.is_open());
    if config.columns.is_empty() {
        bail!(
            "{}: no method lists settings to choose from; add, for example, select = {{ drop_lowest = [1, 10, 20] }}",
            arguments.config.display()
        );
    }
    origin::check(&config.folder(), &arguments.config, &text)?;
    config.run.data = validation(&config.run.data);
    let mut ready = ready(config, mode)?;
    let swept = |config: &Config| Config { columns: sweep(config.columns.clone()), ..config.clone() };
    let planned = swept(&ready.config);
    if arguments.plan {
        let (known, rows) = (ready.fingerprint.is_some(), ready.folder.join(SWEEP));
        let results = if known { Results::read(&rows)? } else { Results::default() };
        let forecast = ready.forecast(&planned, None, &results, Shard::WHOLE, ready.model.pace().as_ref())?;
        print(&match arguments.json {
            true => forecast.event(&planned.run.model.source).to_string(),
            false => format!("validation records of {}", forecast.describe(Some(&planned), true)),
        })?;
        return Ok(ready.model.check_room(&forecast.beside())?);
    }
    let mut store: RunStore = open(&ready.folder.join(SWEEP), Shard::WHOLE)?;
    origin::claim(&ready.folder, &arguments.config, &text)?;
    let forecast = ready.forecast(&planned, None, store.results(), Shard::WHOLE, None)?;
    if !arguments.quiet {
        eprintln!("validation records of {}", forecast.describe(Some(&planned), false));
    }
    let Loaded { model, fingerprint } = load(&ready.model, &forecast.beside())?;
    ready.measure(&model)?;
    let Ready { config, prompts, tested, folder, .. } = ready;
    let made_for = selection_fingerprint(&config, &fingerprint);
    let names: Vec<(String, Vec<(String, String)>)> = config
        .columns
        .iter()
        .map(|column| {
            let variants = column.variants.iter();
            let names = variants.map(|variant| (variant.method.name().to_owned(), variant.settings.clone()));
            (column.name.clone(), names.collect())
        })
        .collect();
    let config = swept(&config);
    let matrix = Matrix::prepare(&config, &prompts, model.outline(), &fingerprint, None)?;
    let audience = if arguments.quiet { Audience::Nobody } else { Audience::People };
    let ended = matrix.run(&model, &mut store, Shard::WHOLE, &mut Progress::new(audience)?)?;
    if ended == Ended::Stopped {
        return Err(Stopped("stopped after the prompt; the same command goes on".into()).into());
    }

    let choices = choose(&matrix.rows(store.results()), &names);
    let mut seen: Vec<String> = tested.into_iter().collect();
    seen.sort_unstable();
    let table = table(&choices);
    let selected = Selected { fingerprint: made_for, seen, choices };
    let path = folder.join(SELECTION);
    whole::write(&path, serde_json::to_string_pretty(&selected)? + "\n").with_context(|| path.display().to_string())?;
    print(&table)?;
    if !arguments.quiet {
        eprintln!("the choice is in {}, every prediction in {}", path.display(), folder.join(SWEEP).display());
    }
    Ok(())
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
