//! The tables of a report.

use std::collections::HashSet;

use super::run::{LoadedRun, ModelRun};
use super::{Table, TableCell};
use crate::data::longbench;
use crate::data::synthetic::Task;
use crate::machine::memory::mebibytes;
use crate::metrics::{self, BUCKETS, Bucket, Metric, by_length};
use crate::run::{Cell, CellBudget, Manifest, Measure, Row, cells};

/// Which runs there are, and how far they are.
pub fn overview(runs: &[LoadedRun]) -> Table {
    let mut rows = Vec::new();
    for run in runs {
        for model in &run.models {
            let prompts: HashSet<_> = model.rows.iter().map(|row| (&row.task, &row.record)).collect();
            let text = |key: &str| match &run.environment[key] {
                serde_json::Value::String(text) => text.clone(),
                _ => "–".into(),
            };
            rows.push(vec![
                run.name.as_str().into(),
                model.model.as_str().into(),
                prompts.len().to_string().into(),
                cells(&model.rows).len().to_string().into(),
                model.rows.len().to_string().into(),
                model.missing.to_string().into(),
                text("cokv").into(),
                text("processor").into(),
            ]);
        }
    }
    let header = ["run", "model", "prompts", "cells", "rows", "rows to do", "cokv", "processor"];
    Table { header: header.map(str::to_owned).into(), names: 2, rows, id: "runs".into(), ..Table::default() }
}

/// All tables of a run on one model.
pub fn of_model(model: &ModelRun) -> Vec<Table> {
    let cells = by_budget(cells(&model.rows));
    let mut tables = vec![scores(&cells, model.manifest.as_ref()), by_task(&cells), damage(&cells)];
    tables.extend(lengths(&cells));
    let whole = model.records();
    tables.iter_mut().for_each(|table| mark_incomplete(table, &cells, whole));
    tables.push(cost(&model.rows));
    tables
}

/// Puts side by side what is to be compared: the methods at one budget, in the order in which budgets and methods first come.
fn by_budget(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'_>> {
    let budgets: Vec<CellBudget> = cells.iter().map(|cell| cell.budget).collect();
    cells.sort_by_key(|cell| budgets.iter().position(|budget| *budget == cell.budget));
    cells
}

/// Says of the cells that lack records, whose rows a table has in the same order, how many they have.
fn mark_incomplete(table: &mut Table, cells: &[Cell<'_>], whole: usize) {
    for (row, cell) in table.rows.iter_mut().zip(cells) {
        let records = cell.rows().count();
        if let Some(budget) = row.get_mut(1).filter(|_| records < whole) {
            budget.text += &format!(" ({records} of {whole} records)");
        }
    }
}

/// Category of a task in LongBench's tables; others are of their own.
fn category(task: &str) -> &'static str {
    longbench::category(task).map_or("generated", |category| category.name())
}

fn header(rest: impl IntoIterator<Item = String>) -> Vec<String> {
    ["method", "budget"].map(str::to_owned).into_iter().chain(rest).collect()
}

fn names(cell: &Cell<'_>) -> Vec<TableCell> {
    vec![cell.method.into(), cell.budget.to_string().into()]
}

/// How far every cell is above the full cache, where that was run.
fn above_full(cells: &[Cell<'_>], measure: Measure) -> Option<Vec<TableCell>> {
    let full = cells.iter().find(|cell| cell.budget.is_full())?;
    let compare = |cell: &Cell<'_>| match cell.budget.is_full() {
        true => TableCell::default(),
        false => measure.difference(cell.difference(full, measure)).into(),
    };
    Some(cells.iter().map(compare).collect())
}

/// A column of numbers, the best of every budget marked; the full cache does not compete.
fn column(
    cells: &[Cell<'_>],
    rises: bool,
    write: impl Fn(f64) -> String,
    of: impl Fn(&Cell<'_>) -> Option<f64>,
) -> Vec<TableCell> {
    let values: Vec<Option<f64>> = cells.iter().map(of).collect();
    let best = |at: usize| {
        let value = values[at]?;
        let rivals = cells.iter().zip(&values).filter(|(cell, _)| cell.budget == cells[at].budget);
        let rivals: Vec<f64> = rivals.filter_map(|(_, value)| *value).collect();
        let (better, worse) = (
            |other: &f64| (*other > value) == rises && *other != value,
            |other: &f64| (*other < value) == rises && *other != value,
        );
        // Where all are equal there is no best.
        Some(!cells[at].budget.is_full() && !rivals.iter().any(better) && rivals.iter().any(worse))
    };
    let cell = |at: usize| TableCell { text: values[at].map_or("–".into(), &write), best: best(at).unwrap_or(false) };
    (0..cells.len()).map(cell).collect()
}

/// Rows out of columns.
fn rows(cells: &[Cell<'_>], columns: Vec<Vec<TableCell>>) -> Vec<Vec<TableCell>> {
    let row = |(at, cell): (usize, &Cell<'_>)| {
        names(cell).into_iter().chain(columns.iter().map(|column| column[at].clone())).collect()
    };
    cells.iter().enumerate().map(row).collect()
}

/// The mean over the tasks of a category.
fn of_category(cell: &Cell<'_>, name: &str) -> Option<f64> {
    let tasks = cell.tasks.iter().filter(|(task, _)| category(task) == name);
    let means: Vec<f64> = tasks.filter_map(|(task, _)| cell.mean_of_task(task, Measure::Score)).collect();
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
}

fn scores(cells: &[Cell<'_>], manifest: Option<&Manifest>) -> Table {
    let mut categories: Vec<&'static str> = Vec::new();
    for (task, _) in cells.first().map_or(&[][..], |cell| &cell.tasks) {
        if !categories.contains(&category(task)) {
            categories.push(category(task));
        }
    }
    let several = categories.len() > 1;
    let write = |value| Measure::Score.write(value);
    let mut columns = vec![
        cells.iter().map(|cell| format!("{:.1} %", 100.0 * cell.mean(|row| row.kept_share)).into()).collect(),
        cells.iter().map(|cell| mebibytes(cell.mean(|row| row.cache_bytes as f64) as u64).into()).collect(),
    ];
    if several {
        columns.extend(categories.iter().map(|name| column(cells, true, write, |cell| of_category(cell, name))));
    }
    columns.push(column(cells, true, write, |cell| cell.mean_of_tasks(Measure::Score)));
    columns.push(cells.iter().map(|cell| Measure::Score.interval(cell.estimate(Measure::Score)).into()).collect());
    if several {
        columns.push(column(cells, true, write, |cell| {
            let means: Vec<f64> = categories.iter().filter_map(|name| of_category(cell, name)).collect();
            Some(means.iter().sum::<f64>() / means.len() as f64)
        }));
    }
    let above_full = above_full(cells, Measure::Score);
    let compares = above_full.is_some();
    columns.extend(above_full);
    let categories = if several { categories } else { Vec::new() };
    let titles = [
        vec!["kept", "cache"],
        categories.clone(),
        vec!["mean of tasks", "95 %"],
        if several { vec!["mean of categories"] } else { vec![] },
        if compares { vec!["difference to full (95 %)"] } else { vec![] },
    ];
    Table {
        id: "scores".into(),
        title: "Scores".into(),
        caption: "Each task's metric from 0 to 100, and means in which tasks (or categories) weigh the same. The \
                  highest mean of a budget is bold, whether or not it is higher by more than chance. Intervals are bootstrap \
                  percentiles over records (places of one needle count as one), left out where all are equal; ▲ and ▼ mark \
                  differences to the full cache, pair by pair, whose interval excludes zero."
            .into(),
        header: header(titles.concat().into_iter().map(str::to_owned)),
        names: 2,
        rows: rows(cells, columns),
        notes: cells.iter().filter_map(|cell| off_budget(cell, manifest)).collect(),
    }
}

/// Why a cell keeps another share than its budget, by more than a hundredth of it; none where it does not.
fn off_budget(cell: &Cell<'_>, manifest: Option<&Manifest>) -> Option<String> {
    let budget = cell.budget.0?;
    let asked = cell.mean(|row| budget.share_of(row.prompt_tokens, row.cache_bytes as f64 / row.kept_share));
    let kept = cell.mean(|row| row.kept_share);
    if (kept / asked - 1.0).abs() <= 0.01 {
        return None;
    }
    let methods = manifest.map_or(&[][..], |manifest| &manifest.methods);
    let mut of_cell = methods.iter().filter(|method| method.name == cell.method);
    let reason = of_cell.find_map(|method| method.off_budget.as_deref());
    let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
    let (name, budget) = (cell.method, cell.budget);
    Some(format!("{name} keeps {:.1} % at {budget}, which allows {:.1} %{reason}.", 100.0 * kept, 100.0 * asked))
}

fn by_task(cells: &[Cell<'_>]) -> Table {
    let tasks: Vec<&str> = cells.first().map_or(&[][..], |cell| &cell.tasks).iter().map(|(task, _)| *task).collect();
    let of = |task: &&str| {
        column(cells, true, |value| Measure::Score.write(value), |cell| cell.mean_of_task(task, Measure::Score))
    };
    Table {
        id: "tasks".into(),
        title: "Score by task".into(),
        caption: format!("Each task's own metric, from 0 to 100{}.", metrics_of(&tasks)),
        header: header(tasks.iter().map(|task| with_size(cells, task))),
        names: 2,
        rows: rows(cells, tasks.iter().map(of).collect()),
        ..Table::default()
    }
}

/// A task's name and how many records were asked: the questions, and where a grid asks them at many places, the records.
fn with_size(cells: &[Cell<'_>], task: &str) -> String {
    let [records, questions] = cells.iter().map(|cell| cell.size_of_task(task)).max().unwrap_or_default();
    match records == questions {
        true => format!("{task} (n = {records})"),
        false => format!("{task} (n = {questions}, {records} records)"),
    }
}

/// Which metric each of the tasks has that are known, behind a colon.
fn metrics_of(tasks: &[&str]) -> String {
    let mut of_metrics: Vec<(&str, Vec<&str>)> = Vec::new();
    for &task in tasks {
        let generated = || task.parse().ok().map(Task::metric);
        let Some(metric) = metrics::of_task(task).or_else(generated).map(Metric::name) else { continue };
        match of_metrics.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, tasks)) => tasks.push(task),
            None => of_metrics.push((metric, vec![task])),
        }
    }
    let texts: Vec<String> =
        of_metrics.into_iter().map(|(metric, tasks)| format!("{metric} of {}", tasks.join(", "))).collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join("; ")) }
}

fn damage(cells: &[Cell<'_>]) -> Table {
    let measures = [Measure::LogLikelihood, Measure::Divergence, Measure::Agreement];
    let mut titles = Vec::new();
    let mut columns = Vec::new();
    for measure in measures {
        titles.extend([measure.name().to_owned(), "95 %".to_owned()]);
        columns.push(column(cells, measure.rises(), |value| measure.write(value), |cell| cell.mean_of_tasks(measure)));
        columns.push(cells.iter().map(|cell| measure.interval(cell.estimate(measure)).into()).collect());
    }
    if let Some(above_full) = above_full(cells, Measure::LogLikelihood) {
        titles.push("log-lik. above full (95 %)".into());
        columns.push(above_full);
    }
    Table {
        id: "damage".into(),
        title: "Damage".into(),
        caption: "Log-likelihood of the reference answer and divergence of the full cache's next-token distributions from \
                  the cell's, in nats per token; share of greedy tokens that are the full cache's, in percent. Tasks weigh \
                  the same."
            .into(),
        header: header(titles),
        names: 2,
        rows: rows(cells, columns),
        ..Table::default()
    }
}

/// LongBench-E's buckets, where its tasks were run.
fn lengths(cells: &[Cell<'_>]) -> Option<Table> {
    let of_e = |row: &&Row| longbench::task_of_e(&row.task).is_some();
    let means = |cell: &Cell<'_>| {
        let scored = cell.rows().filter(of_e).map(|row| (row.task.as_str(), row.length, row.score));
        let tasks = by_length(scored);
        [0, 1, 2].map(|place| {
            let filled = tasks.values().map(|buckets: &[Bucket; 3]| buckets[place]).filter(|bucket| bucket.rows > 0);
            let (sum, count) = filled.fold((0.0, 0), |(sum, count), bucket| (sum + bucket.score, count + 1));
            TableCell::from(if count > 0 { Measure::Score.write(sum / f64::from(count)) } else { "–".into() })
        })
    };
    cells.iter().any(|cell| cell.rows().any(|row| of_e(&row))).then(|| Table {
        id: "lengths".into(),
        title: "LongBench-E by length".into(),
        caption: "Means of the tasks' scores over texts of fewer than 4,000, of fewer than 8,000, and of more words."
            .into(),
        header: header(BUCKETS.map(str::to_owned)),
        names: 2,
        rows: cells.iter().map(|cell| names(cell).into_iter().chain(means(cell)).collect()).collect(),
        ..Table::default()
    })
}

fn cost(rows: &[Row]) -> Table {
    let mut seen = HashSet::new();
    // Rows of one batch carry its times, to the bit.
    let batches: Vec<&Row> =
        rows.iter().filter(|row| seen.insert([row.prefill_seconds, row.decode_seconds].map(f64::to_bits))).collect();
    let sum = |of: fn(&Row) -> f64| batches.iter().map(|row| of(row)).sum::<f64>();
    let (prefill, decode) = (sum(|row| row.prefill_seconds), sum(|row| row.decode_seconds));
    let (tokens, answers) =
        (sum(|row| row.prompt_tokens as f64), rows.iter().map(|row| row.new_tokens as f64).sum::<f64>());
    let spared = rows.len() - batches.len();
    let spared_seconds = rows.iter().map(|row| row.prefill_seconds).sum::<f64>() - prefill;
    let minutes = |seconds: f64| format!("{:.1} min", seconds / 60.0);
    let facts = [
        ("prefills", batches.len().to_string()),
        ("rows that came from them", rows.len().to_string()),
        ("time of prefills", minutes(prefill)),
        ("tokens/s of prefills", format!("{:.0}", tokens / prefill.max(1e-9))),
        ("time of decoding, all rows of a prompt as one batch", minutes(decode)),
        ("tokens/s of decoding, all rows of a batch together", format!("{:.0}", answers / decode.max(1e-9))),
        ("prefills that sharing spared", spared.to_string()),
        ("time that they would have taken", minutes(spared_seconds)),
    ];
    Table {
        id: "cost".into(),
        title: "Cost".into(),
        caption: "As measured while the rows were made.".into(),
        header: vec!["what".into(), "how much".into()],
        names: 1,
        rows: facts.into_iter().map(|(what, value)| vec![what.into(), value.into()]).collect(),
        ..Table::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ManifestMethod;
    use crate::run::tests::row;

    #[test]
    fn a_cell_that_does_not_spend_its_budget_is_explained() {
        let of = |budget: &str, kept_share: f64| Row { budget: budget.parse().unwrap(), kept_share, ..row("x") };
        let method = |reason: Option<&str>| ManifestMethod {
            name: "snapkv".into(),
            settings: None,
            off_budget: reason.map(str::to_owned),
            head_scores: None,
        };
        let manifest = |reason| Manifest { methods: vec![method(reason)], ..Manifest::default() };
        let note = |row: Row, reason| off_budget(&cells(&[row])[0], Some(&manifest(reason)));
        // Of 100 tokens of the prompt.
        assert_eq!(note(of("64", 0.64), None), None);
        assert_eq!(note(of("12.5%", 0.12), None), None, "whole tokens");
        assert_eq!(note(of("200", 1.0), None), None, "a whole prompt");
        let paper = note(of("64", 0.6), Some("its allocator rounds")).unwrap();
        assert!(paper == "snapkv keeps 60.0 % at 64, which allows 64.0 %: its allocator rounds.", "{paper}");
        assert_eq!(note(of("64", 0.6), None).unwrap(), "snapkv keeps 60.0 % at 64, which allows 64.0 %.");
    }

    #[test]
    fn incomplete_cells_and_sizes_of_samples_are_said() {
        let of = |method: &str, record: u32| Row { method: method.into(), record: record.to_string(), ..row("x") };
        let rows = vec![of("a", 1), of("a", 2), of("b", 1)];
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: None, kept: Vec::new() };
        let tables = of_model(&model);
        let budgets: Vec<&str> = tables[0].rows.iter().map(|row| row[1].text.as_str()).collect();
        assert_eq!(budgets, ["64", "64 (1 of 2 records)"]);
        assert_eq!(tables[1].header[2], "t (n = 2)");
        let metrics = metrics_of(&["passkey", "t", "needle", "qasper"]);
        assert_eq!(metrics, ": qa_f1_score of passkey, qasper; string_match_all of needle");
    }
}
