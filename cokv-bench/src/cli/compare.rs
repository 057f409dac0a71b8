//! `cokv compare`

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use cokv_core::config::unknown_name;
use serde_json::json;

use super::output::print;
use super::report::note_damage;
use crate::markdown;
use crate::report::LoadedRun;
use crate::report::compare::{Compared, Side, compare, correct};
use crate::run::Measure;
use crate::statistics::{Comparisons, FEWEST, Mark};

/// Say which cells differ between two runs, or two methods, and whether by more than chance
///
/// Cells of the same model, method and budget are compared record by record: the mean difference, second minus first, with
/// its 95 % interval (docs/statistics.md). ▲ and ▼ mark differences that stand among all comparisons of the table (Holm's
/// correction): where nothing differs, one table of twenty has any. △ and ▽ mark those whose own interval excludes zero and
/// which do not stand: of twenty comparisons of what does not differ, one has such a mark. No mark is made of fewer than ten
/// records that differ. With RUN:METHOD, two methods are compared at every budget and over all budgets.
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
    /// Only cells with ▲ or ▼
    #[arg(long)]
    significant: bool,
    /// JSON instead of a table: an object with the number of comparisons and all cells, their differences by measure
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
    let comparisons = correct(&mut compared);
    if arguments.significant {
        let stands = |cell: &Compared| cell.differences.iter().flatten().any(|found| found.mark == Mark::Corrected);
        compared.retain(stands);
    }
    if arguments.json {
        let told = json!({ "comparisons": comparisons, "correction": "holm", "cells": compared });
        return print(&serde_json::to_string_pretty(&told)?);
    }
    if compared.is_empty() {
        return print(&format!("no difference is marked ▲ or ▼\n\n{comparisons}"));
    }
    print(&format!("{}\n\n{}", table(&compared), legend(comparisons)))
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

/// What the signs in a table mean.
fn legend(comparisons: Comparisons) -> String {
    format!(
        "Second − first (95 %); of KL, more is worse. `differ`: records whose scores differ, of all (places of one needle \
         count as one); a mark takes {FEWEST} that differ.\n{comparisons}"
    )
}

fn table(compared: &[Compared]) -> String {
    let several = compared.iter().any(|cell| cell.model != compared[0].model);
    let names = if several { vec!["model", "method", "budget"] } else { vec!["method", "budget"] };
    let header: Vec<&str> = names.iter().copied().chain(["differ"]).chain(Measure::ALL.map(Measure::name)).collect();
    let mut table = markdown::table(header, names.len());
    for cell in compared {
        let differences =
            Measure::ALL.iter().zip(&cell.differences).map(|(measure, difference)| measure.difference(*difference));
        let names = [cell.model.clone(), cell.methods(), cell.budget.clone()].into_iter().skip(usize::from(!several));
        let [differ, of] =
            cell.tasks.iter().fold([0, 0], |[differ, of], task| [differ + task.differ, of + task.records]);
        table.add_row(names.chain([format!("{differ} of {of}")]).chain(differences));
    }
    markdown::text(&table)
}
