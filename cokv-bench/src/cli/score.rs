//! `cokv score`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::output::print;
use crate::data::json_lines;
use crate::metrics::{BUCKETS, Bucket, by_length, mean_percent};
use crate::{markdown, metrics};

/// Score prediction files in LongBench's layout
///
/// FOLDER holds one <task>.jsonl per task, each line with pred, answers, all_classes and length, as LongBench's pred.py and
/// cokv bench (in RUN/pred/MODEL__METHOD@BUDGET) write them. Scores equal those of LongBench's eval.py. LongBench-E, whose scores
/// are shown by length, is what lies in a folder pred_e (as cokv bench writes RUN/pred_e/…), files called
/// <task>_e.jsonl, and everything with --e.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of prediction files
    folder: PathBuf,
    /// The files are of LongBench-E
    #[arg(long)]
    e: bool,
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
    /// By length, for LongBench-E.
    buckets: Option<[Bucket; 3]>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let scores = score_folder(&arguments.folder, arguments.e)?;
    if arguments.json {
        let entry = |score: &TaskScore| match score.buckets {
            Some(buckets) => {
                let named =
                    BUCKETS.into_iter().zip(buckets).map(|(name, bucket)| (name.to_owned(), json!(bucket.score)));
                Json::Object(named.collect())
            }
            None => json!(score.all),
        };
        let all: serde_json::Map<_, _> = scores.iter().map(|score| (score.task.clone(), entry(score))).collect();
        return print(&serde_json::to_string_pretty(&all)?);
    }
    let mut table = {
        let [short, medium, long] = BUCKETS;
        markdown::table(["task", "metric", "rows", "score", short, medium, long], 2)
    };
    for score in &scores {
        let metric = metrics::of_task(&score.task).map_or("", |metric| metric.name());
        let [short, medium, long] =
            score.buckets.map(|buckets| buckets.map(|bucket| percent(bucket.score))).unwrap_or_default();
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

fn score_folder(folder: &Path, e: bool) -> Result<Vec<TaskScore>> {
    let e = e || in_pred_e(folder);
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
        scores.push(score_file(&file, task, e)?);
    }
    if scores.is_empty() {
        bail!("{}: there is no <task>.jsonl of a LongBench task", folder.display());
    }
    Ok(scores)
}

/// Whether upstream's `pred.py` would keep predictions of LongBench-E here, under the plain names of the tasks.
fn in_pred_e(folder: &Path) -> bool {
    let parent = folder.canonicalize().ok().and_then(|folder| folder.parent().map(Path::to_owned));
    parent.is_some_and(|parent| parent.ends_with("pred_e"))
}

fn score_file(file: &Path, task: String, e: bool) -> Result<TaskScore> {
    let metric = metrics::of_task(&task).with_context(|| format!("`{task}` is no LongBench task"))?;
    let predictions: Vec<Prediction> = json_lines::read(file)?;
    // eval.py takes the classes of the last row for the whole file.
    let Some(classes) = predictions.last().map(|last| last.all_classes.clone().unwrap_or_default()) else {
        bail!("{}: there is no prediction in it", file.display());
    };
    let e = e || task.ends_with("_e");
    let mut scores = Vec::with_capacity(predictions.len());
    for (index, row) in predictions.iter().enumerate() {
        let length = match row.length {
            None if e => bail!("{}: prediction {} has no `length`", file.display(), index + 1),
            length => length.unwrap_or(0),
        };
        scores.push((length, metrics::score_prediction(&task, metric, &row.pred, &row.answers, &classes)));
    }
    let buckets = e.then(|| by_length(scores.iter().map(|(length, score)| (task.as_str(), *length, *score))));
    let buckets = buckets.and_then(|mut tasks| tasks.remove(task.as_str()));
    let all: Vec<f64> = scores.into_iter().map(|(_, score)| score).collect();
    Ok(TaskScore { rows: all.len(), all: mean_percent(&all), buckets, task })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longbench_e_is_known_by_its_folder_by_its_names_and_by_the_flag() {
        let folder = tempfile::tempdir().unwrap();
        let line = |pred: &str, length: u64| {
            format!("{{\"pred\":\"{pred}\",\"answers\":[\"a b\"],\"all_classes\":null,\"length\":{length}}}\n")
        };
        let text = [line("a b", 3999), line("x", 4000), line("a b", 7999)].concat();
        for (place, name, e) in [
            ("pred_e/model", "qasper", false),
            ("any", "qasper_e", false),
            ("any2", "qasper", true),
            ("pred", "qasper", false),
        ] {
            let place = folder.path().join(place);
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(name).with_extension("jsonl"), &text).unwrap();
            let scores = score_folder(&place, e).unwrap();
            assert_eq!(scores[0].all, 66.67);
            let Some([short, medium, long]) = scores[0].buckets else {
                assert!(place.ends_with("pred"), "{}", place.display());
                continue;
            };
            assert_eq!((short.score, medium.score, long.rows), (100.0, 50.0, 0));
        }
        let bare = "{\"pred\":\"x\",\"answers\":[]}\n";
        std::fs::write(folder.path().join("any/qasper_e.jsonl"), bare).unwrap();
        let error = score_folder(&folder.path().join("any"), false).err().unwrap().to_string();
        assert!(error.contains("prediction 1 has no `length`"), "{error}");
    }

    #[test]
    fn a_folder_without_predictions_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(score_folder(folder.path(), false).err().unwrap().to_string().contains("no <task>.jsonl"));
    }
}
