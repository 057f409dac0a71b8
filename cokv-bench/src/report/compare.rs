//! Which cells differ: between two runs, or between two methods of a run.

use serde::Serialize;

use super::run::LoadedRun;
use crate::run::{Cell, Measure, Pairs, Row, cells};
use crate::statistics::Estimate;

/// Cells of a run: all of them, or those of a method.
pub struct Side<'a> {
    /// The run.
    pub run: &'a LoadedRun,
    /// Name of the method; none for all.
    pub method: Option<&'a str>,
}

/// A cell that both sides have.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// The model's source.
    pub model: String,
    /// Name of the method, or of the two that are compared.
    pub method: String,
    /// The budget; `all` for the mean over all budgets.
    pub budget: String,
    /// Records that both have.
    pub records: usize,
    /// How far the second side is above the first, measure by measure as in [`Measure::ALL`]; none where one of them lacks
    /// it.
    pub differences: [Option<Estimate>; 4],
}

/// Compares the records that two sides have in common: budget by budget, in the order of the first side, and, where
/// methods are named, the mean over budgets. Cells without common records are left out.
pub fn compare(first: &Side<'_>, second: &Side<'_>) -> Vec<Compared> {
    let rows = |side: &Side<'_>| -> Vec<Row> {
        let rows = side.run.models.iter().flat_map(|model| &model.rows);
        rows.filter(|row| side.method.is_none_or(|method| row.method == method)).cloned().collect()
    };
    let (first_rows, second_rows) = (rows(first), rows(second));
    let (first_cells, second_cells) = (cells(&first_rows), cells(&second_rows));
    let methods_differ = first.method.is_some() && second.method.is_some() && first.method != second.method;
    // What evicts nothing has no budget of its own and stands beside all of the other's.
    let budgets_meet = |a: &Cell<'_>, b: &Cell<'_>| a.budget == b.budget || a.budget.is_full() || b.budget.is_full();
    let same = |a: &Cell<'_>, b: &Cell<'_>| {
        let methods = if methods_differ { budgets_meet(a, b) } else { (a.method, a.budget) == (b.method, b.budget) };
        a.model == b.model && methods
    };
    let mut compared: Vec<Compared> = Vec::new();
    let mut pairs_of_model: Vec<(&str, Vec<(&Cell<'_>, &Cell<'_>)>)> = Vec::new();
    for cell in &first_cells {
        for other in second_cells.iter().filter(|other| same(cell, other)) {
            let budget = if cell.budget.is_full() { other.budget } else { cell.budget };
            compared.extend(of_pairs(&[(cell, other)], &budget.to_string()));
            match pairs_of_model.iter_mut().find(|(model, _)| *model == cell.model) {
                Some((_, pairs)) => pairs.push((cell, other)),
                None => pairs_of_model.push((cell.model, vec![(cell, other)])),
            }
        }
    }
    if first.method.is_some() || second.method.is_some() {
        let several = pairs_of_model.iter().filter(|(_, pairs)| pairs.len() > 1);
        compared.extend(several.filter_map(|(_, pairs)| of_pairs(pairs, "all")));
    }
    compared
}

/// The differences of one pair of cells, or of several, of which every record's mean counts: that a record was asked at
/// several budgets does not make it several records.
fn of_pairs(pairs: &[(&Cell<'_>, &Cell<'_>)], budget: &str) -> Option<Compared> {
    let (first, second) = pairs.first()?;
    let paired = Pairs::of(pairs);
    let records = paired.records();
    let method = match first.method == second.method {
        true => first.method.to_owned(),
        false => format!("{} − {}", second.method, first.method),
    };
    (records > 0).then(|| Compared {
        model: first.model.into(),
        method,
        budget: budget.into(),
        records,
        differences: Measure::ALL.map(|measure| Estimate::of_groups(&paired.differences(measure))),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::run::ModelRun;
    use super::*;
    use crate::run::tests::row;

    fn run(rows: Vec<Row>) -> LoadedRun {
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: None, kept: Vec::new() };
        LoadedRun {
            name: "r".into(),
            config: String::new(),
            environment: Json::Null,
            models: vec![model],
            date: None,
            damaged: Vec::new(),
        }
    }

    fn of(method: &str, budget: &str, record: usize, score: f64) -> Row {
        Row { method: method.into(), budget: budget.parse().unwrap(), record: record.to_string(), score, ..row("x") }
    }

    #[test]
    fn runs_are_compared_cell_by_cell() {
        let first = run(vec![of("a", "64", 0, 0.0), of("a", "64", 1, 1.0), of("b", "64", 0, 0.0)]);
        let second = run(vec![of("a", "64", 0, 0.5), of("a", "64", 1, 1.0), of("a", "64", 2, 0.0)]);
        let compared = compare(&Side { run: &first, method: None }, &Side { run: &second, method: None });
        assert_eq!(compared.len(), 1);
        assert_eq!((compared[0].records, compared[0].differences[0].unwrap().mean), (2, 25.0));
    }

    #[test]
    fn methods_are_compared_at_every_budget_and_over_all() {
        let mut rows = Vec::new();
        for record in 0..8 {
            let noise = (record % 2) as f64 / 4.0;
            rows.extend([of("a", "32", record, 0.0), of("b", "32", record, 0.5 + noise)]);
            rows.extend([of("a", "64", record, 0.0), of("b", "64", record, 0.5 - noise)]);
        }
        let run = run(rows);
        let compared = compare(&Side { run: &run, method: Some("a") }, &Side { run: &run, method: Some("b") });
        let names: Vec<(&str, &str)> =
            compared.iter().map(|cell| (cell.method.as_str(), cell.budget.as_str())).collect();
        assert_eq!(names, [("b − a", "32"), ("b − a", "64"), ("b − a", "all")]);
        // What budgets take from one another cancels in every record's mean.
        assert_eq!(compared[2].differences[0], Some(Estimate { mean: 50.0, low: 50.0, high: 50.0, members: 8 }));
        assert!(compared[0].differences[0].unwrap().high > compared[0].differences[0].unwrap().mean);
    }
}
