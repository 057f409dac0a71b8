//! Which cells differ: between two runs, or between two methods of a run.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::run::LoadedRun;
use crate::run::{Cell, Measure, Pairs, Row, cells};
use crate::statistics::{Comparisons, Difference};

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
    /// Name of the first side's method.
    pub first: String,
    /// Name of the second side's, which may be the same.
    pub second: String,
    /// The budget; `all` for the mean over all budgets.
    pub budget: String,
    /// Records that both have.
    pub records: usize,
    /// How many records of each task do not have the same score on both sides.
    pub tasks: Vec<TaskDifference>,
    /// How far the second side is above the first, in the order of [`Measure::ALL`], in files by name; none where one of them
    /// lacks it.
    #[serde(serialize_with = "by_name")]
    pub differences: [Option<Difference>; 4],
}

/// What a task adds to a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskDifference {
    /// Name of the task.
    pub task: String,
    /// Records, places of one needle counted once.
    pub records: usize,
    /// Those that do not have the same score on both sides.
    pub differ: usize,
}

fn by_name<S: Serializer>(differences: &[Option<Difference>; 4], serializer: S) -> Result<S::Ok, S::Error> {
    let named: BTreeMap<&str, &Option<Difference>> =
        Measure::ALL.iter().map(|measure| measure.key()).zip(differences).collect();
    named.serialize(serializer)
}

impl Compared {
    /// The difference in a measure.
    pub fn of(&self, measure: Measure) -> Option<Difference> {
        self.differences[measure as usize]
    }

    /// What is compared: a method, or two.
    pub fn methods(&self) -> String {
        match self.first == self.second {
            true => self.first.clone(),
            false => format!("{} − {}", self.second, self.first),
        }
    }
}

/// Marks the differences of all cells, in all measures, among each other.
pub fn correct(compared: &mut [Compared]) -> Comparisons {
    Comparisons::correct(compared.iter_mut().flat_map(|cell| cell.differences.iter_mut().flatten()))
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
pub fn of_pairs(pairs: &[(&Cell<'_>, &Cell<'_>)], budget: &str) -> Option<Compared> {
    let (first, second) = pairs.first()?;
    let paired = Pairs::of(pairs);
    let records = paired.records();
    let tasks = paired.by_task(Measure::Score).into_iter().map(|(task, clusters)| TaskDifference {
        task: task.into(),
        records: clusters.len(),
        differ: clusters.iter().filter(|cluster| cluster.is_informative()).count(),
    });
    (records > 0).then(|| Compared {
        model: first.model.into(),
        first: first.method.into(),
        second: second.method.into(),
        budget: budget.into(),
        records,
        tasks: tasks.collect(),
        differences: Measure::ALL.map(|measure| paired.difference(measure)),
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
        for record in 0..12 {
            let noise = (record % 2) as f64 / 4.0;
            rows.extend([of("a", "32", record, 0.0), of("b", "32", record, 0.5 + noise)]);
            rows.extend([of("a", "64", record, 0.0), of("b", "64", record, 0.5 - noise)]);
        }
        let run = run(rows);
        let compared = compare(&Side { run: &run, method: Some("a") }, &Side { run: &run, method: Some("b") });
        let names: Vec<(&str, &str)> =
            compared.iter().map(|cell| (cell.second.as_str(), cell.budget.as_str())).collect();
        assert_eq!(names, [("b", "32"), ("b", "64"), ("b", "all")]);
        assert_eq!(compared[0].methods(), "b − a");
        // What budgets take from one another cancels in every record's mean.
        let all = compared[2].of(Measure::Score).unwrap();
        assert_eq!((all.mean, all.low, all.high, all.members), (50.0, 50.0, 50.0, 12));
        assert!(compared[0].differences[0].unwrap().high > compared[0].differences[0].unwrap().mean);
    }

    #[test]
    fn programs_read_names_of_measures_and_how_many_records_differ() {
        let rows = vec![of("a", "64", 0, 0.5), of("a", "64", 1, 0.5), of("b", "64", 0, 0.5), of("b", "64", 1, 1.0)];
        let run = run(rows);
        let compared = compare(&Side { run: &run, method: Some("a") }, &Side { run: &run, method: Some("b") });
        let json = serde_json::to_value(&compared[0]).unwrap();
        assert_eq!((json["first"].as_str(), json["second"].as_str()), (Some("a"), Some("b")));
        assert_eq!(json["tasks"][0], serde_json::json!({ "task": "t", "records": 2, "differ": 1 }));
        assert_eq!(
            (json["differences"]["score"]["mean"].as_f64(), json["differences"].as_object().unwrap().len()),
            (Some(25.0), 4)
        );
        assert!(json["differences"]["divergence"].is_null());
    }
}
