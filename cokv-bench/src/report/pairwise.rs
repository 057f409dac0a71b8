//! Method against method, at each budget and over all of them.

use std::collections::BTreeSet;
use std::fmt;

use super::columns::{Column, difference_column, key, key_of};
use super::compare::{Compared, of_pairs};
use super::{Heading, Table, TableCell};
use crate::data::Protocol;
use crate::run::{Cell, CellBudget, ManifestMethod, Measure, name};
use crate::statistics::{Comparisons, Difference};

/// Every pair of methods that evict, of one model: budget by budget, then over all budgets. Of two protocols, each method with itself
/// alone.
fn pairs(cells: &[Cell<'_>]) -> Vec<Compared> {
    let mut methods: Vec<&str> = Vec::new();
    let mut budgets: Vec<CellBudget> = Vec::new();
    for cell in cells.iter().filter(|cell| !cell.budget.is_full()) {
        if !methods.contains(&cell.method) {
            methods.push(cell.method);
        }
        if !budgets.contains(&cell.budget) {
            budgets.push(cell.budget);
        }
    }
    let at =
        |method: &str, budget: CellBudget| cells.iter().find(|cell| cell.method == method && cell.budget == budget);
    let both = |first: &str, second: &str, budget: CellBudget| Some((at(first, budget)?, at(second, budget)?));
    // A method of one's own comes last in a configuration, and is to be what others are taken from.
    let protocol = |method: &str| cells.iter().find(|cell| cell.method == method).map(|cell| cell.protocol);
    let comparable = |&(first, second): &(&str, &str)| {
        protocol(first) == protocol(second) || Protocol::method_of(first) == Protocol::method_of(second)
    };
    let of_two: Vec<(&str, &str)> = (0..methods.len())
        .rev()
        .flat_map(|second| (0..second).map(move |first| (first, second)))
        .map(|(first, second)| (methods[first], methods[second]))
        .filter(comparable)
        .collect();
    let mut compared = Vec::new();
    for &budget in &budgets {
        let here = of_two.iter().filter_map(|(first, second)| both(first, second, budget));
        compared.extend(here.filter_map(|pair| of_pairs(&[pair], &budget.to_string())));
    }
    if budgets.len() > 1 {
        for (first, second) in of_two {
            let all: Vec<_> = budgets.iter().filter_map(|&budget| both(first, second, budget)).collect();
            compared.extend(of_pairs(&all, ALL));
        }
    }
    compared
}

/// What stands for the mean over all budgets.
const ALL: &str = "all";

/// The pairs' scores, and their damage: two tables, because who reads scores only should not pay for the other comparisons.
pub fn tables(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Vec<Table> {
    let pairs = pairs(cells);
    if pairs.is_empty() {
        return Vec::new();
    }
    let mut scores = table(&pairs, methods, &[Measure::Score]);
    add_differing(&mut scores, &pairs);
    let scores = Table {
        id: "pairwise".into(),
        title: "Method against method".into(),
        caption: "How far the method is above the other in score, record by record, with the 95 % interval of the mean \
                  difference; `all` is every record's mean over the budgets. A record whose difference is zero says nothing: \
                  the last column counts the others, task by task. A mark takes ten of them, and as many in the tasks that differ most."
            .into(),
        ..scores
    };
    let damage = table(&pairs, methods, &[Measure::LogLikelihood, Measure::Divergence, Measure::Agreement]);
    let damage = Table {
        id: "pairwise-damage".into(),
        title: "Method against method: damage".into(),
        caption:
            "The same of log-likelihood (more is better), of divergence from the full cache (less is better) and of \
                  tokens as with the full cache."
                .into(),
        ..damage
    };
    vec![scores, damage]
}

fn table(pairs: &[Compared], methods: &[ManifestMethod], measures: &[Measure]) -> Table {
    let mut differences: Vec<Vec<Option<Difference>>> =
        measures.iter().map(|measure| pairs.iter().map(|pair| pair.of(*measure)).collect()).collect();
    let comparisons = Comparisons::correct(differences.iter_mut().flatten().flatten());
    let column = |(measure, of): (&Measure, &Vec<_>)| difference_column(measure.name(), key_of(*measure), *measure, of);
    let columns: Vec<Column> = measures.iter().zip(&differences).map(column).collect();
    let row = |(at, pair): (usize, &Compared)| {
        let named = |column: &String| TableCell { text: name(methods, column), ..column.as_str().into() };
        let names = [pair.budget.as_str().into(), named(&pair.second), named(&pair.first)];
        names.into_iter().chain(columns.iter().map(|column| column.cells[at].clone())).collect()
    };
    let names = [("budget", "budget"), ("method", "method"), ("minus", "other")];
    let names = names.map(|(text, key)| Heading::new(text, key));
    Table {
        header: names.into_iter().chain(columns.iter().map(|column| column.heading.clone())).collect(),
        names: 3,
        rows: pairs.iter().enumerate().map(row).collect(),
        notes: vec![format!("{comparisons}.")],
        ..Table::default()
    }
}

/// Adds how many records differ in score, all together and task by task.
fn add_differing(table: &mut Table, pairs: &[Compared]) {
    let tasks: BTreeSet<&str> = pairs.iter().flat_map(|pair| &pair.tasks).map(|task| task.task.as_str()).collect();
    let of_tasks = tasks.iter().map(|task| format!("differ_on_{}", key(task)));
    let keys = ["records".to_owned(), "records_whose_score_differs".into()].into_iter().chain(of_tasks).collect();
    table.header.push(Heading { text: "scores that differ".into(), keys });
    for (row, pair) in table.rows.iter_mut().zip(pairs) {
        let sum: usize = pair.tasks.iter().map(|task| task.differ).sum();
        let of: usize = pair.tasks.iter().map(|task| task.records).sum();
        let by_task: Vec<String> = pair.tasks.iter().map(|task| format!("{} {}", task.task, task.differ)).collect();
        let differ =
            |name: &&str| pair.tasks.iter().find(|task| task.task == *name).map(|task| task.differ.to_string());
        let of_tasks = tasks.iter().map(|task| differ(task).unwrap_or_default());
        row.push(TableCell {
            text: format!("{sum} of {of}: {}", by_task.join(", ")),
            best: false,
            values: [of.to_string(), sum.to_string()].into_iter().chain(of_tasks).collect(),
        });
    }
}

/// How far a method is above the best baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The model's source, where there are several.
    pub model: Option<String>,
    /// The two methods, second minus first; † where head scores are noise.
    pub methods: String,
    /// Their difference.
    pub compared: Compared,
}

impl Verdict {
    /// The differences that its sentence says: of the scores, and over all budgets of the log-likelihoods too.
    fn said(&mut self) -> impl Iterator<Item = &mut Difference> {
        let all = self.compared.budget == ALL;
        let differences = self.compared.differences.iter_mut().zip(Measure::ALL);
        let said = differences.filter(move |(_, measure)| match measure {
            Measure::Score => true,
            Measure::LogLikelihood => all,
            Measure::Divergence | Measure::Agreement => false,
        });
        said.filter_map(|(difference, _)| difference.as_mut())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, methods, compared } = self;
        let place = if compared.budget == ALL { "over all budgets".into() } else { format!("at {}", compared.budget) };
        if let Some(model) = model {
            write!(f, "{model}: ")?;
        }
        write!(f, "{methods} {place}: {}", Measure::Score.difference(compared.of(Measure::Score)))?;
        // Small models score little where their distributions say much.
        match compared.of(Measure::LogLikelihood).filter(|_| compared.budget == ALL) {
            Some(damage) => write!(f, ", log-likelihood {}", Measure::LogLikelihood.difference(Some(damage))),
            None => Ok(()),
        }
    }
}

/// Every method with head scores, or every one where none has any, against the run's best baseline, at every budget and over
/// all of them, model by model, and how many comparisons those are. A baseline is a method without head scores, or any where
/// all have some; the best is the one with the highest mean score there. Each reads like `cokv − ada-snapkv at 64: +13.5 (9.0 … 17.0) ▲`.
pub fn verdicts(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> (Vec<Verdict>, Comparisons) {
    let several = cells.iter().any(|cell| cell.model != cells[0].model);
    let has_scores = |name: &str| methods.iter().any(|method| method.is_of(name) && method.head_scores.is_some());
    let any_scores = cells.iter().any(|cell| has_scores(cell.method));
    let is_asked_for = |method: &str| !any_scores || has_scores(method);
    let mut verdicts: Vec<Verdict> = Vec::new();
    for of_model in cells.chunk_by(|a, b| (a.model, a.protocol) == (b.model, b.protocol)) {
        let compared = pairs(of_model);
        for of_budget in compared.chunk_by(|a, b| a.budget == b.budget) {
            let Some(best) = best_baseline(of_model, &of_budget[0].budget, &has_scores) else { continue };
            let against_best = of_budget.iter().filter_map(|pair| match (pair.first == best, pair.second == best) {
                (true, _) if is_asked_for(&pair.second) => Some(pair.clone()),
                (_, true) if is_asked_for(&pair.first) => of_names(of_model, &pair.second, &pair.first, &pair.budget),
                _ => None,
            });
            let model = several.then(|| of_model[0].model.to_owned());
            verdicts.extend(against_best.map(|compared| Verdict {
                model: model.clone(),
                methods: format!("{} − {}", name(methods, &compared.second), name(methods, &compared.first)),
                compared,
            }));
        }
    }
    let comparisons = Comparisons::correct(verdicts.iter_mut().flat_map(Verdict::said));
    (verdicts, comparisons)
}

/// The cells of a method at a budget, or at all of them.
fn at<'a, 'b>(cells: &'b [Cell<'a>], method: &str, budget: &str) -> Vec<&'b Cell<'a>> {
    let here = |cell: &&Cell<'_>| {
        cell.method == method && !cell.budget.is_full() && (budget == ALL || cell.budget.to_string() == budget)
    };
    cells.iter().filter(here).collect()
}

fn of_names(cells: &[Cell<'_>], first: &str, second: &str, budget: &str) -> Option<Compared> {
    let seconds = at(cells, second, budget);
    let pair = |first: &'_ Cell<'_>| seconds.iter().find(|cell| cell.budget == first.budget).copied();
    let firsts = at(cells, first, budget);
    let pairs: Vec<_> = firsts.iter().filter_map(|first| Some((*first, pair(first)?))).collect();
    of_pairs(&pairs, budget)
}

fn best_baseline<'a>(cells: &[Cell<'a>], budget: &str, has_scores: &dyn Fn(&str) -> bool) -> Option<&'a str> {
    let mut scored: Vec<(&str, f64)> = Vec::new();
    for cell in cells.iter().filter(|cell| !scored_already(cell, cells)) {
        let means = at(cells, cell.method, budget).into_iter().filter_map(|cell| cell.mean_of_tasks(Measure::Score));
        if let Some(mean) = crate::run::mean(means) {
            scored.push((cell.method, mean));
        }
    }
    let of = |baseline: bool| {
        let those = scored.iter().filter(move |(name, _)| !baseline || !has_scores(name));
        those.copied().reduce(|a, b| if b.1 > a.1 { b } else { a })
    };
    of(true).or_else(|| of(false)).map(|(name, _)| name)
}

/// Whether a method has come before, or is none that evicts.
fn scored_already(cell: &Cell<'_>, cells: &[Cell<'_>]) -> bool {
    let first = cells.iter().find(|other| other.method == cell.method);
    cell.budget.is_full() || first.is_some_and(|first| first.budget != cell.budget)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;
    use crate::run::{Row, cells};

    fn rows() -> Vec<Row> {
        let mut rows = Vec::new();
        for record in 0..16 {
            let noise = (record % 4) as f64 / 40.0;
            let methods =
                [("full", "full", 0.9), ("weak", "64", 0.2 + noise), ("strong", "64", 0.4), ("own", "64", 0.6 - noise)];
            let others = [("weak", "128", 0.5 + noise), ("strong", "128", 0.7), ("own", "128", 0.7)];
            rows.extend(methods.into_iter().chain(others).map(|(method, budget, score)| Row {
                method: method.into(),
                budget: budget.parse().unwrap(),
                record: record.to_string(),
                score,
                ..row("x")
            }));
        }
        rows
    }

    #[test]
    fn methods_are_held_against_the_best_baseline() {
        let own = ManifestMethod { name: "own".into(), head_scores: Some(vec![1.0]), ..ManifestMethod::default() };
        let rows = rows();
        let (verdicts, comparisons) = verdicts(&cells(&rows), &[own]);
        let sentences: Vec<String> = verdicts.iter().map(ToString::to_string).collect();
        assert_eq!(comparisons.count, 4, "what has head scores is what is asked about");
        assert_eq!(sentences[0], "own − strong at 64: +16.2 (14.7 … 17.8) ▲");
        assert_eq!(sentences[1], "own − strong at 128: 0.0 (–)");
        assert!(sentences[2].starts_with("own − strong over all budgets: +8.1 ("), "{sentences:?}");
        let (verdicts, comparisons) = super::verdicts(&cells(&rows), &[]);
        assert_eq!(comparisons.count, 8);
        assert_eq!(verdicts[1].to_string(), "strong − own at 64: -16.2 (-17.8 … -14.7) ▼", "the best of all");
    }

    #[test]
    fn every_pair_is_compared_at_every_budget() {
        let rows = rows();
        let tables = tables(&cells(&rows), &[]);
        let [scores, damage] = &tables[..] else { panic!("{tables:?}") };
        assert_eq!((scores.rows.len(), damage.rows.len()), (9, 9), "three pairs at two budgets and over both");
        let first: Vec<&str> = scores.rows[0].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(first[..3], ["64", "own", "weak"]);
        assert_eq!(first[4], "16 of 16: t 16");
        let keys: Vec<&String> = scores.header.iter().flat_map(|heading| &heading.keys).collect();
        assert_eq!(keys[3..6], ["score", "score_low", "score_high"]);
        assert_eq!(keys.last().unwrap().as_str(), "differ_on_t");
        assert!(scores.rows.iter().all(|row| row.iter().map(|cell| cell.values.len()).sum::<usize>() == keys.len()));
        assert!(scores.notes[0].starts_with("9 comparisons: "), "{:?}", scores.notes);
    }
}
