//! The tables at the end of a run.

use super::cells::{Cell, Measure, cells};
use super::store::Row;
use crate::machine::memory::mebibytes;
use crate::markdown;

/// Two Markdown tables: damage and memory of every cell with the score's 95 % interval, and its score on every task.
pub fn tables(rows: &[Row]) -> String {
    let cells = cells(rows);
    let several = cells.iter().any(|cell| cell.model != cells[0].model);
    let names = |cell: &Cell<'_>| -> Vec<String> {
        let model = several.then(|| cell.model.to_owned());
        model.into_iter().chain([cell.method.to_owned(), cell.budget.to_string()]).collect()
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
        header(&[["kept", "cache", "score", "95 %"].as_slice(), &measures.map(Measure::name)].concat()),
        1 + usize::from(several),
    );
    for cell in &cells {
        let memory = [
            format!("{:.1} %", 100.0 * cell.mean(|row| row.kept_share)),
            mebibytes(cell.mean(|row| row.cache_bytes as f64) as u64),
            number(Measure::Score, cell.mean_of_tasks(Measure::Score)),
            Measure::Score.interval(cell.estimate(Measure::Score)),
        ];
        let damage = measures.map(|measure| number(measure, cell.mean_of_tasks(measure)));
        main.add_row(names(cell).into_iter().chain(memory).chain(damage));
    }

    let tasks: Vec<&str> =
        cells.first().map(|cell| cell.tasks.iter().map(|(task, _)| *task).collect()).unwrap_or_default();
    let mut by_task = markdown::table(header(&tasks), 1 + usize::from(several));
    for cell in &cells {
        let scores = tasks.iter().map(|task| number(Measure::Score, cell.mean_of_task(task, Measure::Score)));
        by_task.add_row(names(cell).into_iter().chain(scores));
    }
    format!("{}\n\nScore by task (0 to 100)\n\n{}\n", markdown::text(&main), markdown::text(&by_task))
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::row;
    use super::*;

    #[test]
    fn models_are_named_where_there_are_several() {
        let first = Row { score: 0.625, divergence: Some(0.5), ..row("x") };
        let second = Row { record: "2".into(), ..first.clone() };
        let text = tables(&[first.clone(), second]);
        assert!(
            text.starts_with("| method ") && text.contains(" 62.5 |") && !text.contains("…"),
            "equal records have no interval: {text}"
        );
        let text = tables(&[first.clone(), Row { record: "2".into(), score: 0.5, ..first.clone() }]);
        assert!(text.contains("50.0 … 62.5"), "{text}");
        let text = tables(std::slice::from_ref(&first));
        assert!(!text.contains("…"), "one record has no interval: {text}");
        let text = tables(&[first, Row { model: "n".into(), ..row("y") }]);
        assert!(text.starts_with("| model ") && text.contains("| n "), "{text}");
    }
}
