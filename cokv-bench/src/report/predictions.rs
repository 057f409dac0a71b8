//! What the model said, method beside method.

use std::collections::HashMap;

use super::run::{LoadedRun, ModelRun};
use super::{Predicted, Prediction, Predictions, ReportError, content, forms};
use crate::run::{Measure, Row};

/// Records that a page shows of a run on a model; all are in predictions.csv.
const SHOWN: usize = 24;

/// Letters of an answer that a page shows.
const LETTERS: usize = 300;

/// The first records of every task, as many of each as the page has room for.
pub fn of_model(model: &ModelRun) -> Predictions {
    let mut tasks: Vec<(&str, Vec<Vec<&Row>>)> = Vec::new();
    let mut place_of_record: HashMap<(&str, &str), usize> = HashMap::new();
    for row in &model.rows {
        let at = tasks.iter().position(|(task, _)| *task == row.task).unwrap_or_else(|| {
            tasks.push((&row.task, Vec::new()));
            tasks.len() - 1
        });
        let records = &mut tasks[at].1;
        let place = *place_of_record.entry((&row.task, &row.record)).or_insert(records.len());
        match records.get_mut(place) {
            Some(rows) => rows.push(row),
            None => records.push(vec![row]),
        }
    }
    let of = place_of_record.len();
    let of_each = SHOWN.div_ceil(tasks.len().max(1));
    let records = tasks.iter().flat_map(|(_, records)| records.iter().take(of_each)).map(|rows| predicted(rows));
    Predictions { of, records: records.collect() }
}

fn predicted(rows: &[&Row]) -> Predicted {
    let Row { task, record, prompt_tokens, question, answers, .. } = rows[0];
    let prediction = |row: &&Row| Prediction {
        method: row.method.clone(),
        budget: row.budget.to_string(),
        score: Measure::Score.write(100.0 * row.score),
        text: shortened(row.prediction.trim()),
    };
    let (full, others): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.budget.is_full());
    Predicted {
        title: format!("{task} · {record} · {prompt_tokens} tokens"),
        question: shortened(question),
        answers: shortened(&answers.join(" | ")),
        predictions: full.iter().chain(&others).map(prediction).collect(),
    }
}

/// A text's first letters, on one line.
fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// All predictions of all runs, one a line.
pub fn predictions_csv(runs: &[LoadedRun]) -> Result<String, ReportError> {
    let header =
        ["run", "model", "task", "record", "method", "budget", "score", "prompt_tokens", "prediction", "answers"];
    let lines = runs.iter().flat_map(|run| run.models.iter().flat_map(|model| &model.rows).map(move |row| (run, row)));
    let line = |(run, row): (&LoadedRun, &Row)| {
        let answers = serde_json::Value::from(row.answers.clone()).to_string();
        vec![
            run.name.clone(),
            row.model.clone(),
            row.task.clone(),
            row.record.clone(),
            row.method.clone(),
            row.budget.to_string(),
            content::plain(100.0 * row.score),
            row.prompt_tokens.to_string(),
            row.prediction.clone(),
            answers,
        ]
    };
    forms::written(header.map(str::to_owned).into(), lines.map(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;

    #[test]
    fn every_task_shows_its_first_records_and_the_full_cache_first() {
        let of = |task: &str, record: usize, budget: &str| Row {
            task: task.into(),
            record: record.to_string(),
            budget: budget.parse().unwrap(),
            prediction: "word\n".repeat(200),
            ..row("x")
        };
        let mut rows = Vec::new();
        for record in 0..30 {
            for task in ["a", "b"] {
                rows.extend([of(task, record, "64"), of(task, record, "full")]);
            }
        }
        let model = ModelRun { model: "m".into(), rows, missing: 0, manifest: None, kept: Vec::new() };
        let Predictions { of, records } = of_model(&model);
        assert_eq!((of, records.len()), (60, SHOWN));
        assert!(records[0].title.starts_with("a · 0 ·") && records[SHOWN - 1].title.starts_with("b · 11 ·"));
        let first = &records[0].predictions[0];
        assert_eq!((first.budget.as_str(), first.score.as_str()), ("full", "30.0"));
        assert_eq!(first.text.chars().count(), LETTERS + 1);
    }
}
