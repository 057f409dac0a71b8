//! `cokv compare`

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::output::print;
use crate::markdown;
use crate::report::LoadedRun;
use crate::report::compare::{Compared, compare};
use crate::run::Measure;

/// Say which cells differ between two runs, and whether by more than chance
///
/// Cells of the same model, method and budget are compared record by record: the mean difference, second minus first, with
/// the 95 % interval of the paired bootstrap. ▲ and ▼ mark differences whose interval excludes zero; of twenty cells that
/// do not differ, one will have a mark.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of the first run
    first: PathBuf,
    /// Folder of the second run
    second: PathBuf,
    /// Only cells with a mark
    #[arg(long)]
    significant: bool,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (first, second) = (LoadedRun::read(&arguments.first)?, LoadedRun::read(&arguments.second)?);
    let mut compared = compare(&first, &second);
    if compared.is_empty() {
        bail!("the runs have no record of the same model, task, method and budget in common");
    }
    if arguments.significant {
        compared.retain(|cell| cell.differences.iter().flatten().any(|difference| difference.excludes_zero()));
    }
    if arguments.json {
        return print(&serde_json::to_string_pretty(&compared)?);
    }
    print(&table(&compared))
}

fn table(compared: &[Compared]) -> String {
    let several = compared.iter().any(|cell| cell.model != compared[0].model);
    let names = if several { vec!["model", "method", "budget"] } else { vec!["method", "budget"] };
    let header: Vec<&str> = names.iter().copied().chain(["records"]).chain(Measure::ALL.map(Measure::name)).collect();
    let mut table = markdown::table(header, names.len());
    for cell in compared {
        let differences = Measure::ALL.iter().zip(&cell.differences).map(|(measure, difference)| measure.difference(*difference));
        let names = [&cell.model, &cell.method, &cell.budget].into_iter().skip(usize::from(!several)).cloned();
        table.add_row(names.chain([cell.records.to_string()]).chain(differences));
    }
    markdown::text(&table)
}
