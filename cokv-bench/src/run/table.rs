//! The tables at the end of a run.

use super::cells::{Cell, Measure, cells};
use super::manifest::{Manifest, ManifestMethod};
use super::notes::{name, notes};
use super::store::Row;
use crate::machine::memory::mebibytes;
use crate::markdown;

/// Two Markdown tables: the score of every cell with its 95 % interval, memory and damage, and its score on every task;
/// under them what has to be known of tasks and methods, as far as the models' manifests say.
pub fn tables(rows: &[Row], manifests: &[Manifest]) -> String {
    let cells = cells(rows);
    let methods = |model: &str| -> &[ManifestMethod] {
        manifests.iter().find(|manifest| manifest.model == model).map_or(&[], |manifest| &manifest.methods)
    };
    let several = cells.iter().any(|cell| cell.model != cells[0].model);
    let names = |cell: &Cell<'_>| -> Vec<String> {
        let model = several.then(|| cell.model.to_owned());
        model.into_iter().chain([name(methods(cell.model), cell.method), cell.budget.to_string()]).collect()
    };
    let header = |rest: &[&str]| -> Vec<String> {
        several
            .then_some("model")
            .into_iter()
            .chain(["method", "budget"])
            .chain(rest.iter().copied())
            .map(str::to_owned)
            .collect()
    };
    let number = |measure: Measure, value: Option<f64>| value.map_or("–".into(), |value| measure.write(value));

    let measures = [Measure::LogLikelihood, Measure::Divergence, Measure::Agreement];
    let mut main = markdown::table(
        header(&[["score", "95 %", "kept", "cache"].as_slice(), &measures.map(Measure::name)].concat()),
        1 + usize::from(several),
    );
    for cell in &cells {
        let score = [
            number(Measure::Score, cell.mean_of_tasks(Measure::Score)),
            Measure::Score.interval(cell.estimate(Measure::Score)),
            format!("{:.1} %", 100.0 * cell.mean(|row| row.kept_share)),
            mebibytes(cell.mean(|row| row.cache_bytes as f64) as u64),
        ];
        let damage = measures.map(|measure| number(measure, cell.mean_of_tasks(measure)));
        main.add_row(names(cell).into_iter().chain(score).chain(damage));
    }

    let tasks: Vec<&str> =
        cells.first().map(|cell| cell.tasks.iter().map(|(task, _)| *task).collect()).unwrap_or_default();
    let mut by_task = markdown::table(header(&tasks), 1 + usize::from(several));
    for cell in &cells {
        let scores = tasks.iter().map(|task| number(Measure::Score, cell.mean_of_task(task, Measure::Score)));
        by_task.add_row(names(cell).into_iter().chain(scores));
    }
    let notes: String = cells
        .chunk_by(|a, b| a.model == b.model)
        .flat_map(|cells| {
            let of_model = if several { format!("{}: ", cells[0].model) } else { String::new() };
            notes(cells, methods(cells[0].model)).into_iter().map(move |note| format!("\n{of_model}{note}\n"))
        })
        .collect();
    format!("{}\n\nScore by task (0 to 100)\n\n{}\n{notes}", markdown::text(&main), markdown::text(&by_task))
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::row;
    use super::*;
    use crate::scores::HeadScoresWorth;

    #[test]
    fn models_are_named_where_there_are_several() {
        let first = Row { score: 0.625, divergence: Some(0.5), ..row("x") };
        let second = Row { record: "2".into(), ..first.clone() };
        let text = tables(&[first.clone(), second], &[]);
        assert!(
            text.starts_with("| method ") && text.contains(" 62.5 |") && !text.contains("…"),
            "equal records have no interval: {text}"
        );
        let text = tables(&[first.clone(), Row { record: "2".into(), score: 0.5, ..first.clone() }], &[]);
        assert!(text.contains(" 0.0 … 100.0 "), "two records say next to nothing: {text}");
        let text = tables(std::slice::from_ref(&first), &[]);
        assert!(!text.contains("…"), "one record has no interval: {text}");
        let text = tables(&[first, Row { model: "n".into(), ..row("y") }], &[]);
        assert!(text.starts_with("| model ") && text.contains("| n "), "{text}");
    }

    /// Regression: that a method leaves budget unspent, and that a task is a floor, was only said in the report.
    #[test]
    fn what_has_to_be_known_stands_under_the_tables() {
        let full = Row { method: "full".into(), budget: "full".parse().unwrap(), score: 0.0, ..row("y") };
        let worth = HeadScoresWorth { unworthy: Some("reliability 0.04".into()), ..HeadScoresWorth::default() };
        let method =
            ManifestMethod { name: "snapkv".into(), head_scores_worth: Some(worth), ..ManifestMethod::default() };
        let manifest = Manifest { model: "m".into(), methods: vec![method], ..Manifest::default() };
        let text = tables(&[full, Row { kept_share: 0.5, score: 0.0, ..row("x") }], &[manifest]);
        let (_, notes) = text.split_once("Score by task").unwrap();
        assert!(notes.contains("\nt is a floor: "), "{text}");
        assert!(text.contains("| snapkv † |") && notes.contains("\n† Head scores of snapkv are noise: "), "{text}");
        assert!(notes.contains("\nsnapkv keeps 50.0 % at 64, which allows 64.0 %.\n"), "{text}");
    }
}
