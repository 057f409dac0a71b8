//! `cokv score`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;

use super::output::print;
use crate::data::longbench::read_jsonl;
use crate::{markdown, metrics};

/// Score prediction files in LongBench's layout
///
/// FOLDER holds one <task>.jsonl per task (or <task>_e.jsonl of LongBench-E), each line with pred, answers, all_classes
/// and length, as LongBench's pred.py and cokv bench (in RUN/pred/METHOD@BUDGET) write them. Scores equal those of LongBench's
/// eval.py.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of prediction files
    folder: PathBuf,
    /// Print JSON: {task: score}, or {task: {"0-4k": …, "4-8k": …, "8k+": …}} for LongBench-E
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Prediction {
    pred: String,
    answers: Vec<String>,
    #[serde(default)]
    all_classes: Option<Vec<String>>,
    #[serde(default)]
    length: Option<u64>,
}

/// Means of one file, in percent, rounded to two digits.
struct TaskScore {
    task: String,
    rows: usize,
    all: f64,
    /// Below 4,000, below 8,000, and above, for LongBench-E; NaN for an empty bucket.
    buckets: Option<[f64; 3]>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let scores = score_folder(&arguments.folder)?;
    if arguments.json {
        let entry = |score: &TaskScore| match score.buckets {
            Some([short, medium, long]) => json!({"0-4k": short, "4-8k": medium, "8k+": long}),
            None => json!(score.all),
        };
        let all: serde_json::Map<_, _> = scores.iter().map(|score| (score.task.clone(), entry(score))).collect();
        return print(&serde_json::to_string_pretty(&all)?);
    }
    let mut table = markdown::table(["task", "metric", "rows", "score", "0-4k", "4-8k", "8k+"], 2);
    for score in &scores {
        let metric = metrics::of_task(&score.task).map_or("", |metric| metric.name());
        let buckets =
            score.buckets.map_or([String::new(), String::new(), String::new()], |buckets| buckets.map(percent));
        let [short, medium, long] = buckets;
        table.add_row([
            score.task.clone(),
            metric.into(),
            score.rows.to_string(),
            percent(score.all),
            short,
            medium,
            long,
        ]);
    }
    let mean = scores.iter().map(|score| score.all).sum::<f64>() / scores.len() as f64;
    table.add_row(["mean of tasks", "", "", &percent(mean), "", "", ""]);
    print(&markdown::text(&table))
}

fn percent(score: f64) -> String {
    if score.is_nan() { "–".into() } else { format!("{score:.2}") }
}

fn score_folder(folder: &Path) -> Result<Vec<TaskScore>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let mut scores = Vec::new();
    for file in files {
        let task = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        if metrics::of_task(&task).is_none() {
            eprintln!("{}: `{task}` is no LongBench task; skipped", file.display());
            continue;
        }
        scores.push(score_file(&file, task)?);
    }
    if scores.is_empty() {
        bail!("{}: there is no <task>.jsonl of a LongBench task", folder.display());
    }
    Ok(scores)
}

fn score_file(file: &Path, task: String) -> Result<TaskScore> {
    let metric = metrics::of_task(&task).with_context(|| format!("`{task}` is no LongBench task"))?;
    let predictions: Vec<Prediction> = read_jsonl(file, usize::MAX, "")?;
    if predictions.is_empty() {
        bail!("{}: there is no prediction in it", file.display());
    }
    let name = task.strip_suffix("_e").unwrap_or(&task);
    // eval.py takes the classes of the last row for the whole file.
    let classes = predictions.last().and_then(|last| last.all_classes.clone()).unwrap_or_default();
    let row_scores: Vec<(u64, f64)> = predictions
        .iter()
        .map(|row| {
            let score = metrics::score_prediction(name, metric, &row.pred, &row.answers, &classes);
            (row.length.unwrap_or(0), score)
        })
        .collect();
    let mean = |keep: &dyn Fn(u64) -> bool| {
        let kept = || row_scores.iter().filter(|(length, _)| keep(*length));
        two_decimals(100.0 * kept().map(|(_, score)| score).sum::<f64>() / kept().count() as f64)
    };
    let buckets = task.ends_with("_e").then(|| {
        [mean(&|length| length < 4000), mean(&|length| (4000..8000).contains(&length)), mean(&|length| length >= 8000)]
    });
    Ok(TaskScore { rows: row_scores.len(), all: mean(&|_| true), buckets, task })
}

/// Python's `round(x, 2)`: the decimal number nearest to the exact value. Scaling by 100 would round a first time.
fn two_decimals(x: f64) -> f64 {
    format!("{x:.2}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_python_s() {
        for (x, rounded) in [(2.675, 2.67), (50.005, 50.01), (0.125, 0.12), (66.666, 66.67)] {
            assert_eq!(two_decimals(x), rounded);
        }
        assert!(two_decimals(f64::NAN).is_nan());
    }

    #[test]
    fn longbench_e_has_three_buckets() {
        let folder = tempfile::tempdir().unwrap();
        let line = |pred: &str, length: u64| {
            format!("{{\"pred\":\"{pred}\",\"answers\":[\"a b\"],\"all_classes\":null,\"length\":{length}}}\n")
        };
        let text = [line("a b", 3999), line("x", 4000), line("a b", 7999)].concat();
        std::fs::write(folder.path().join("qasper_e.jsonl"), text).unwrap();
        let scores = score_folder(folder.path()).unwrap();
        let [short, medium, long] = scores[0].buckets.unwrap();
        assert_eq!((short, medium), (100.0, 50.0));
        assert!(long.is_nan());
        assert_eq!(scores[0].all, 66.67);
    }

    #[test]
    fn a_folder_without_predictions_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(score_folder(folder.path()).err().unwrap().to_string().contains("no <task>.jsonl"));
    }
}
