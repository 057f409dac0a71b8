//! `cokv select`

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_core::Shard;
use cokv_shapley::whole;

use super::bench::{describe, open};
use super::mode::Mode;
use super::output::print;
use super::progress::{Audience, Progress};
use super::ready::{Ready, read, ready};
use super::stopped::Stopped;
use crate::markdown;
use crate::run::{Choice, Ended, Matrix, RunStore, SELECTION, Selected, Trial, origin, selection_fingerprint};
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
    /// Say nothing until the table
    #[arg(long)]
    quiet: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    let mode = Mode { plan: false, choosing: true, quiet: arguments.quiet };
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
    let Ready { config, model, fingerprint, tasks, tested, folder, .. } = ready(config, mode)?;
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
    let config = crate::config::Config { columns: sweep(config.columns), ..config };
    let matrix = Matrix::prepare(&config, tasks, &model, &fingerprint, None, |_, _| {})?;
    let mut store: RunStore = open(&folder.join("selection"), Shard::WHOLE)?;
    origin::claim(&folder, &arguments.config, &text)?;
    let plan = matrix.plan(store.results(), Shard::WHOLE);
    if !arguments.quiet {
        eprintln!("validation records of {}", describe(&config, &plan, None));
    }
    let audience = if arguments.quiet { Audience::Nobody } else { Audience::People };
    let ended = matrix.run(&mut store, Shard::WHOLE, &mut Progress::new(audience)?)?;
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
        eprintln!("the choice is in {}, every prediction in {}", path.display(), folder.join("selection").display());
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
