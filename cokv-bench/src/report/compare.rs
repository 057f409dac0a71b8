//! Which cells differ between two runs.

use serde::Serialize;

use super::run::LoadedRun;
use crate::run::{Measure, Row, cells};
use crate::statistics::Estimate;

/// A cell that both runs have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The model's source.
    pub model: String,
    /// Name of the method.
    pub method: String,
    /// Its budget.
    pub budget: String,
    /// Records that both have.
    pub records: usize,
    /// How far the second run is above the first, measure by measure as in [`Measure::ALL`]; none where one of them lacks it.
    pub differences: [Option<Estimate>; 4],
}

/// Compares the records that two runs have in common, cell by cell, in the order of the first. Cells without such records
/// are left out.
pub fn compare(first: &LoadedRun, second: &LoadedRun) -> Vec<Compared> {
    let rows = |run: &LoadedRun| -> Vec<Row> { run.models.iter().flat_map(|model| model.rows.iter().cloned()).collect() };
    let (first, second) = (rows(first), rows(second));
    let (first, second) = (cells(&first), cells(&second));
    let compared = first.iter().filter_map(|cell| {
        let same = |other: &&crate::run::Cell<'_>| {
            (other.model, other.method, other.budget) == (cell.model, cell.method, cell.budget)
        };
        let other = second.iter().find(same)?;
        let of_cell = |row: &&Row| cell.rows().any(|own| (&own.task, &own.record) == (&row.task, &row.record));
        let records = other.rows().filter(of_cell).count();
        (records > 0).then(|| Compared {
            model: cell.model.into(),
            method: cell.method.into(),
            budget: cell.budget.into(),
            records,
            differences: Measure::ALL.map(|measure| other.difference(cell, measure)),
        })
    });
    compared.collect()
}
