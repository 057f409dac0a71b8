//! `cokv compare`

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use cokv_core::config::unknown_name;

use super::output::print;
use super::report::note_damage;
use crate::markdown;
use crate::report::LoadedRun;
use crate::report::compare::{Compared, Side, compare};
use crate::run::Measure;
use crate::statistics::FEWEST;

/// Say which cells differ between two runs, or two methods, and whether by more than chance
///
/// Cells of the same model, method and budget are compared record by record: the mean difference, second minus first, with
/// the 95 % interval of the paired bootstrap. ▲ and ▼ mark differences whose interval excludes zero; of twenty cells that
/// do not differ, one will have a mark. With RUN:METHOD, two methods are compared at every budget and over all budgets.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv compare runs/before runs/after --significant
  cokv compare runs/cokv:snapkv runs/cokv:streaming-llm")]
pub struct Arguments {
    /// Folder of the first run, or RUN:METHOD
    first: String,
    /// Folder of the second run, or RUN:METHOD
    second: String,
    /// Only cells with a mark
    #[arg(long)]
    significant: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let [first, second] = [&arguments.first, &arguments.second].map(|text| named(text));
    let [(first, first_method), (second, second_method)] = [first?, second?];
    note_damage(&[&first, &second]);
    let first = Side { run: &first, method: first_method };
    let second = Side { run: &second, method: second_method };
    let mut compared = compare(&first, &second);
    if compared.is_empty() {
        bail!(
            "{} and {} have no record of the same task, model and budget in common",
            arguments.first,
            arguments.second
        );
    }
    if arguments.significant {
        compared.retain(|cell| cell.differences.iter().flatten().any(|difference| difference.excludes_zero()));
    }
    if arguments.json {
        return print(&serde_json::to_string_pretty(&compared)?);
    }
    if compared.is_empty() {
        return print("no difference is marked");
    }
    print(&format!("{}\n\n{}", table(&compared), legend()))
}

/// A run, and the method that is named behind it.
fn named(text: &str) -> Result<(LoadedRun, Option<&str>)> {
    let (folder, method) = match text.rsplit_once(':') {
        Some((folder, method)) if !Path::new(text).exists() => (folder, Some(method)),
        _ => (text, None),
    };
    let run = LoadedRun::read(Path::new(folder))?;
    let methods: BTreeSet<&str> =
        run.models.iter().flat_map(|model| &model.rows).map(|row| row.method.as_str()).collect();
    if let Some(method) = method.filter(|method| !methods.contains(method)) {
        bail!("{folder}: {}", unknown_name("method", method, methods));
    }
    Ok((run, method))
}

/// What the signs under a table mean.
fn legend() -> String {
    format!(
        "Second − first (95 %); ▲ more and ▼ less by more than chance, of {FEWEST} records or more (places of one needle \
         count as one); of KL, more is worse."
    )
}

fn table(compared: &[Compared]) -> String {
    let several = compared.iter().any(|cell| cell.model != compared[0].model);
    let names = if several { vec!["model", "method", "budget"] } else { vec!["method", "budget"] };
    let header: Vec<&str> = names.iter().copied().chain(["records"]).chain(Measure::ALL.map(Measure::name)).collect();
    let mut table = markdown::table(header, names.len());
    for cell in compared {
        let differences =
            Measure::ALL.iter().zip(&cell.differences).map(|(measure, difference)| measure.difference(*difference));
        let names = [&cell.model, &cell.method, &cell.budget].into_iter().skip(usize::from(!several)).cloned();
        table.add_row(names.chain([cell.records.to_string()]).chain(differences));
    }
    markdown::text(&table)
}
