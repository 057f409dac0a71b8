//! Scores of published predictions against those of upstream's own Python code.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use cokv_bench::metrics;
use serde::Deserialize;

const TOLERANCE: f64 = 1e-9;
const TASKS: usize = 21;
const RECORDS: usize = 237;

#[derive(Deserialize)]
struct Prediction {
    #[serde(rename = "_id")]
    id: String,
    pred: String,
    answers: Vec<String>,
    all_classes: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Expected {
    average: f64,
    scores: BTreeMap<String, f64>,
}

#[test]
fn scores_equal_upstream() -> Result<(), Box<dyn Error>> {
    let Some(folder) = cokv_golden::find("longbench-mini") else { return Ok(()) };
    let expected = include_str!("data/longbench-mini/expected_scores.json");
    let expected: BTreeMap<String, Expected> = serde_json::from_str(expected)?;
    assert_eq!(expected.len(), TASKS);

    let mut records = 0;
    for (task, expected) in &expected {
        let scores = scores_of_task(&folder, task)?;
        assert_eq!(scores.len(), expected.scores.len(), "{task}");
        for (id, score) in &scores {
            let wanted = expected.scores[id];
            assert!((score - wanted).abs() <= TOLERANCE, "{task} {id}: {score}, not {wanted}");
        }
        let scores: Vec<f64> = scores.into_iter().map(|(_, score)| score).collect();
        assert_eq!(average_percent(&scores), expected.average, "{task}");
        records += scores.len();
    }
    assert_eq!(records, RECORDS);
    Ok(())
}

/// Scores by record, in the order of the file.
fn scores_of_task(folder: &Path, task: &str) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let metric = metrics::of_task(task).ok_or_else(|| format!("no metric for {task}"))?;
    let lines = fs::read_to_string(folder.join(format!("predictions/{task}.jsonl")))?;
    lines
        .lines()
        .map(|line| {
            let Prediction { id, pred, answers, all_classes } = serde_json::from_str(line)?;
            let classes = all_classes.unwrap_or_default();
            Ok((id, metrics::score_prediction(metric, metrics::first_line_only(task), &pred, &answers, &classes)))
        })
        .collect()
}

/// The mean in percent with two decimals, as `eval.py` prints it. Formatting rounds the exact
/// binary value, as Python's `round` does; multiplying by 100 first would not.
fn average_percent(scores: &[f64]) -> f64 {
    let average = 100.0 * scores.iter().sum::<f64>() / scores.len() as f64;
    format!("{average:.2}").parse().expect("a formatted number")
}
