//! The tables of a report.

use std::collections::HashSet;

use super::columns::{self, Column, above_full, intervals, key, key_of, means};
use super::content::plain;
use super::run::{LoadedRun, ModelRun};
use super::{Heading, Table, TableCell, pairwise};
use crate::data::longbench;
use crate::data::synthetic::Task;
use crate::machine::memory::mebibytes;
use crate::metrics::{self, BUCKETS, Bucket, Metric, by_length};
use crate::run::{Cell, CellBudget, Manifest, ManifestMethod, Measure, Row, cells};
use crate::statistics::Comparisons;

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
    let header = header.map(|text| Heading::new(text, key(text))).into();
    Table { header, names: 2, rows, id: "runs".into(), ..Table::default() }
}

/// All tables of a run on one model.
pub fn of_model(model: &ModelRun) -> Vec<Table> {
    let in_order = cells(&model.rows);
    let cells = by_budget(in_order.clone());
    let methods = model.methods();
    let mut tables = vec![scores(&cells, methods), by_task(&cells, methods), damage(&cells, methods)];
    tables.extend(lengths(&cells, methods));
    let whole = model.records();
    tables.iter_mut().for_each(|table| mark_incomplete(table, &cells, whole));
    let pairwise = pairwise::tables(&in_order, methods);
    tables.splice(1..1, pairwise);
    tables.extend(model.manifest.as_ref().map(of_methods));
    tables.push(cost(&model.rows));
    tables
}

/// Puts side by side what is to be compared: the methods at one budget, in the order in which budgets and methods first come.
pub fn by_budget(mut cells: Vec<Cell<'_>>) -> Vec<Cell<'_>> {
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

/// Category of a task in LongBench's tables; others are generated, or records of one's own.
fn category(task: &str) -> &'static str {
    match longbench::category(task) {
        Some(category) => category.name(),
        None if task.parse::<Task>().is_ok() => "generated",
        None => "own",
    }
}

/// Tokens and bytes that cells keep.
fn memory(cells: &[Cell<'_>]) -> [Column; 2] {
    let kept = |cell: &Cell<'_>| {
        let share = cell.mean(|row| row.kept_share);
        TableCell::new(format!("{:.1} %", 100.0 * share), [share])
    };
    let cache = |cell: &Cell<'_>| {
        let bytes = cell.mean(|row| row.cache_bytes as f64);
        TableCell::new(mebibytes(bytes as u64), [bytes])
    };
    [
        Column { heading: Heading::new("kept", "kept_share"), cells: cells.iter().map(kept).collect() },
        Column { heading: Heading::new("cache", "cache_bytes"), cells: cells.iter().map(cache).collect() },
    ]
}

/// What all marks mean.
fn comparisons_to_full(comparisons: Comparisons) -> Vec<String> {
    vec![format!("To the full cache: {comparisons}.")]
}

fn scores(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Table {
    let mut categories: Vec<&'static str> = Vec::new();
    for (task, _) in cells.first().map_or(&[][..], |cell| &cell.tasks) {
        if !categories.contains(&category(task)) {
            categories.push(category(task));
        }
    }
    let score = Heading::new("score", "score");
    let mut columns = vec![means(cells, methods, score, Measure::Score, &|_| true), intervals(cells, Measure::Score)];
    let (above_full, notes) = match above_full(cells, "difference to full (95 %)", Measure::Score) {
        Some((column, comparisons)) => (Some(column), comparisons_to_full(comparisons)),
        None => (None, Vec::new()),
    };
    columns.extend(above_full);
    if categories.len() > 1 {
        let of = |name: &&'static str| {
            let heading = Heading::new(*name, format!("score_{}", key(name)));
            means(cells, methods, heading, Measure::Score, &|task| category(task) == *name)
        };
        columns.extend(categories.iter().map(of));
        columns.push(of_categories(cells, &categories));
    }
    columns.extend(memory(cells));
    Table {
        id: "scores".into(),
        title: "Scores".into(),
        caption: "Each task's metric from 0 to 100, and means in which tasks (or categories) weigh the same, with their 95 % \
                  intervals over records. Of a budget's methods the best is bold where the interval of its difference to \
                  the one that comes next, record by record, excludes zero. Intervals of two methods may overlap where they \
                  surely differ: they are compared in the next table. docs/statistics.md says how."
            .into(),
        notes,
        ..columns::table(cells, methods, columns)
    }
}

/// The mean in which categories weigh the same. Nothing is bold: what its difference to another may be is not known.
fn of_categories(cells: &[Cell<'_>], categories: &[&str]) -> Column {
    let of = |cell: &Cell<'_>| {
        let of_one = |name: &&str| cell.mean_over(Measure::Score, |task| category(task) == *name);
        match crate::run::mean(categories.iter().filter_map(of_one)) {
            Some(mean) => TableCell::new(Measure::Score.write(mean), [mean]),
            None => TableCell::new("–", [f64::NAN]),
        }
    };
    Column {
        heading: Heading::new("mean of categories", "score_mean_of_categories"),
        cells: cells.iter().map(of).collect(),
    }
}

/// Scores task by task, and their mean.
pub fn task_columns(cells: &[Cell<'_>], methods: &[ManifestMethod], heading: &dyn Fn(&str) -> String) -> Vec<Column> {
    let tasks: Vec<&str> = cells.first().map_or(&[][..], |cell| &cell.tasks).iter().map(|(task, _)| *task).collect();
    let of = |task: &&str| {
        let heading = Heading::new(heading(task), format!("score_{}", key(task)));
        means(cells, methods, heading, Measure::Score, &|name| name == *task)
    };
    let mean = Heading::new("mean", "score");
    tasks.iter().map(of).chain([means(cells, methods, mean, Measure::Score, &|_| true)]).collect()
}

fn by_task(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Table {
    let tasks: Vec<&str> = cells.first().map_or(&[][..], |cell| &cell.tasks).iter().map(|(task, _)| *task).collect();
    let columns = task_columns(cells, methods, &|task| with_size(cells, task));
    Table {
        id: "tasks".into(),
        title: "Score by task".into(),
        caption: format!("Each task's own metric, from 0 to 100{}. Bold as above.", metrics_of(cells, &tasks)),
        ..columns::table(cells, methods, columns)
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

/// Which metric each of the tasks has that are known, behind a colon: as rows say, or where they are of builds that did not
/// write it, as the task is known.
fn metrics_of(cells: &[Cell<'_>], tasks: &[&str]) -> String {
    let mut of_metrics: Vec<(&str, Vec<&str>)> = Vec::new();
    for &task in tasks {
        let mut rows = cells.iter().flat_map(|cell| cell.rows()).filter(|row| row.task == task);
        let written = rows.next().map(|row| row.metric.as_str()).filter(|metric| !metric.is_empty());
        let generated = || task.parse().ok().map(Task::metric);
        let known = || metrics::of_task(task).or_else(generated).map(Metric::name);
        let Some(metric) = written.or_else(known) else { continue };
        match of_metrics.iter_mut().find(|(name, _)| *name == metric) {
            Some((_, tasks)) => tasks.push(task),
            None => of_metrics.push((metric, vec![task])),
        }
    }
    let texts: Vec<String> =
        of_metrics.into_iter().map(|(metric, tasks)| format!("{metric} of {}", tasks.join(", "))).collect();
    if texts.is_empty() { String::new() } else { format!(": {}", texts.join("; ")) }
}

fn damage(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Table {
    let measures = [Measure::LogLikelihood, Measure::Divergence, Measure::Agreement];
    let mut columns: Vec<Column> = measures
        .into_iter()
        .flat_map(|measure| {
            let heading = Heading::new(measure.name(), key_of(measure));
            [means(cells, methods, heading, measure, &|_| true), intervals(cells, measure)]
        })
        .collect();
    let mut notes = Vec::new();
    if let Some((column, comparisons)) = above_full(cells, "log-lik. above full (95 %)", Measure::LogLikelihood) {
        columns.push(column);
        notes = comparisons_to_full(comparisons);
    }
    Table {
        id: "damage".into(),
        title: "Damage".into(),
        caption: "Log-likelihood of the reference answer and divergence of the full cache's next-token distributions from \
                  the cell's, in nats per token; share of greedy tokens that are the full cache's, in percent. Tasks weigh \
                  the same. Bold as above."
            .into(),
        notes,
        ..columns::table(cells, methods, columns)
    }
}

/// What stands behind each method, and what its head scores are worth.
fn of_methods(manifest: &Manifest) -> Table {
    let header = [("method", "method"), ("head scores", "head_scores"), ("settings", "settings")];
    let mut header: Vec<Heading> = header.map(|(text, key)| Heading::new(text, key)).into();
    let worth = ["head_scores", "reliability", "records", "evaluations", "halves_apart_share", "unworthy"];
    header[1].keys = worth.map(str::to_owned).into();
    let row = |method: &ManifestMethod| {
        let number = |value: Option<f64>| value.map_or(String::new(), plain);
        let worth = method.head_scores_worth.clone().unwrap_or_default();
        let has = method.head_scores.is_some();
        let text = match (has, worth.to_string()) {
            (false, _) => "–".into(),
            (true, text) if text.is_empty() => "worth not known".into(),
            (true, text) => text,
        };
        let values = vec![
            if has { "yes" } else { "no" }.to_owned(),
            number(worth.reliability),
            number(worth.records.map(|count| count as f64)),
            number(worth.evaluations.map(|count| count as f64)),
            number(worth.halves_apart),
            worth.unworthy.unwrap_or_default(),
        ];
        let settings = method.settings.as_ref().map_or("–".into(), ToString::to_string);
        vec![method.name.as_str().into(), TableCell { text, best: false, values }, settings.into()]
    };
    Table {
        id: "methods".into(),
        title: "Methods".into(),
        caption: "Settings with every default, and how far head scores can be trusted: their estimated squared correlation \
                  with the true values, what they were made from, and by how much budgets differ that come from two halves of \
                  it."
        .into(),
        header,
        names: 3,
        rows: manifest.methods.iter().map(row).collect(),
        ..Table::default()
    }
}

/// LongBench-E's buckets, where its tasks were run.
fn lengths(cells: &[Cell<'_>], methods: &[ManifestMethod]) -> Option<Table> {
    let of_e = |row: &&Row| longbench::task_of_e(&row.task).is_some();
    let means = |cell: &Cell<'_>| {
        let scored = cell.rows().filter(of_e).map(|row| (row.task.as_str(), row.length, row.score));
        let tasks = by_length(scored);
        [0, 1, 2].map(|place| {
            let filled = tasks.values().map(|buckets: &[Bucket; 3]| buckets[place]).filter(|bucket| bucket.rows > 0);
            let (sum, count) = filled.fold((0.0, 0), |(sum, count), bucket| (sum + bucket.score, count + 1));
            let mean = sum / f64::from(count);
            TableCell::new(if count > 0 { Measure::Score.write(mean) } else { "–".into() }, [mean])
        })
    };
    let buckets: Vec<[TableCell; 3]> = cells.iter().map(means).collect();
    let column = |(place, name): (usize, &str)| Column {
        heading: Heading::new(name, format!("score_{}", key(name))),
        cells: buckets.iter().map(|cells| cells[place].clone()).collect(),
    };
    cells.iter().any(|cell| cell.rows().any(|row| of_e(&row))).then(|| Table {
        id: "lengths".into(),
        title: "LongBench-E by length".into(),
        caption: "Means of the tasks' scores over texts of fewer than 4,000, of fewer than 8,000, and of more words."
            .into(),
        ..columns::table(cells, methods, BUCKETS.into_iter().enumerate().map(column).collect())
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
    let rate = |count: f64, seconds: f64| count / seconds.max(1e-9);
    let count = |count: usize| (count.to_string(), count as f64);
    let time = |seconds: f64| (minutes(seconds), seconds);
    let speed = |speed: f64| (format!("{speed:.0}"), speed);
    let facts = [
        ("prefills", "prefills", count(batches.len())),
        ("rows that came from them", "rows", count(rows.len())),
        ("time of prefills", "prefill_seconds", time(prefill)),
        ("tokens/s of prefills", "prefill_tokens_per_second", speed(rate(tokens, prefill))),
        ("time of decoding, all rows of a prompt as one batch", "decode_seconds", time(decode)),
        (
            "tokens/s of decoding, all rows of a batch together",
            "decode_tokens_per_second",
            speed(rate(answers, decode)),
        ),
        ("prefills that sharing spared", "spared_prefills", count(spared)),
        ("time that they would have taken", "spared_seconds", time(spared_seconds)),
    ];
    let row = |(what, key, (text, value)): (&str, &str, (String, f64))| {
        vec![TableCell { text: what.into(), best: false, values: vec![key.into()] }, TableCell::new(text, [value])]
    };
    Table {
        id: "cost".into(),
        title: "Cost".into(),
        caption: "As measured while the rows were made.".into(),
        header: vec![Heading::new("what", "what"), Heading::new("how much", "value")],
        names: 1,
        rows: facts.into_iter().map(row).collect(),
        ..Table::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;

    #[test]
    fn incomplete_cells_and_sizes_of_samples_are_said() {
        let of = |method: &str, record: u32| Row { method: method.into(), record: record.to_string(), ..row("x") };
        let rows = vec![of("a", 1), of("a", 2), of("b", 1)];
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: None, kept: Vec::new() };
        let tables = of_model(&model);
        let budgets: Vec<&str> = tables[0].rows.iter().map(|row| row[1].text.as_str()).collect();
        assert_eq!(budgets, ["64", "64 (1 of 2 records)"]);
        let by_task = tables.iter().find(|table| table.id == "tasks").unwrap();
        assert_eq!(by_task.header[2], Heading::new("t (n = 2)", "score_t"));
        let metrics = metrics_of(&[], &["passkey", "t", "needle", "qasper"]);
        assert_eq!(metrics, ": qa_f1_score of passkey, qasper; string_match_all of needle");
    }

    /// Regression: CSV files had "100.0 %", "11 MiB" and three columns called "95 %".
    #[test]
    fn every_column_has_names_and_values_for_programs() {
        let of = |method: &str, record: u32| Row { method: method.into(), record: record.to_string(), ..row("x") };
        let full = |record| Row { budget: "full".parse().unwrap(), ..of("full", record) };
        let rows = vec![full(1), of("a", 1), of("b", 1), full(2), of("a", 2), of("b", 2)];
        let manifest = Manifest { methods: vec![ManifestMethod::default()], ..Manifest::default() };
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: Some(manifest), kept: Vec::new() };
        for table in of_model(&model) {
            let keys: Vec<&String> = table.header.iter().flat_map(|heading| &heading.keys).collect();
            let unique: HashSet<&&String> = keys.iter().collect();
            assert_eq!(unique.len(), keys.len(), "{keys:?}");
            assert!(
                keys.iter().all(|key| key.chars().all(|letter| letter == '_' || letter.is_alphanumeric())),
                "{keys:?}"
            );
            for row in &table.rows {
                let values: Vec<&String> = row.iter().flat_map(|cell| &cell.values).collect();
                assert_eq!(values.len(), keys.len(), "{}: {values:?}", table.id);
                for value in row[table.names..].iter().flat_map(|cell| &cell.values) {
                    let named = ["", "alone", "corrected"].contains(&value.as_str());
                    assert!(named || value.parse::<f64>().is_ok(), "{}: {value}", table.id);
                }
            }
        }
    }
}
