//! `cokv score`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::output::print;
use crate::data::{json_lines, values};
use crate::metrics::{BUCKETS, Bucket, by_length, mean_percent};
use crate::{markdown, metrics};

/// Score prediction files in LongBench's layout
///
/// FOLDER holds one <task>.jsonl per task, each line with pred, answers, all_classes and length, as LongBench's pred.py and
/// cokv bench (in RUN/pred/MODEL__METHOD@BUDGET) write them. Scores equal those of LongBench's eval.py. LongBench-E, whose scores
/// are shown by length, is what lies in a folder pred_e (as cokv bench writes RUN/pred_e/…), files called
/// <task>_e.jsonl, and everything with --e. What follows the first dot of a name does not count (qasper.run2.jsonl), and
/// KVCache-Factory's layout, <task>/<METHOD>.json, is read too.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder of prediction files
    folder: PathBuf,
    /// The files are of LongBench-E
    #[arg(long)]
    e: bool,
    /// Whose predictions, where folders of tasks hold those of several methods
    #[arg(long)]
    method: Option<String>,
    /// Print JSON: {task: score}, or {task: {"0-4k": …, "4-8k": …, "8k+": …}} for LongBench-E
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Prediction {
    pred: String,
    #[serde(deserialize_with = "values::any_answers")]
    answers: Vec<String>,
    #[serde(default)]
    all_classes: Option<Vec<String>>,
    /// Read where it counts: for LongBench-E.
    #[serde(default)]
    length: Json,
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
    let scores = score_folder(&arguments.folder, arguments.e, arguments.method.as_deref())?;
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

fn score_folder(folder: &Path, e: bool, method: Option<&str>) -> Result<Vec<TaskScore>> {
    let e = e || in_pred_e(folder);
    let files = match (prediction_files(folder)?, method) {
        (files, None) if !files.is_empty() => files,
        (_, method) => files_of_method(folder, method)?,
    };
    if files.is_empty() {
        bail!("{}: there is no <task>.jsonl of a LongBench task, and no <task>/<METHOD>.json", folder.display());
    }
    files.into_iter().map(|(task, file)| score_file(&file, task, e)).collect()
}

/// Files called by their tasks, with the tasks; others are named and skipped.
fn prediction_files(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    for file in entries(folder)?.into_iter().filter(|file| has_extension(file, &["jsonl"])) {
        let task = before_first_dot(&file);
        if metrics::of_task(&task).is_none() {
            eprintln!("{}: `{task}` is no LongBench task; skipped", file.display());
        } else if let Some(other) = files.insert(task.clone(), file.clone()) {
            bail!(
                "{} and {} both hold predictions for {task}: score one folder for each",
                other.display(),
                file.display()
            );
        }
    }
    Ok(files)
}

/// KVCache-Factory's layout: a folder for each task, a file for each method.
fn files_of_method(folder: &Path, method: Option<&str>) -> Result<BTreeMap<String, PathBuf>> {
    let mut methods: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for of_task in entries(folder)?.into_iter().filter(|path| path.is_dir()) {
        let task = of_task.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if metrics::of_task(&task).is_none() {
            continue;
        }
        for file in entries(&of_task)?.into_iter().filter(|file| has_extension(file, &["json", "jsonl"])) {
            methods.entry(before_first_dot(&file)).or_default().insert(task.clone(), file);
        }
    }
    let names = methods.keys().cloned().collect::<Vec<_>>().join(", ");
    match (method, methods.len()) {
        (Some(method), 1..) => methods
            .remove(method)
            .with_context(|| format!("{}: there are no predictions of `{method}`, but of {names}", folder.display())),
        (None, 2..) => bail!("{}: there are predictions of {names}: choose one with --method", folder.display()),
        _ => Ok(methods.into_values().next().unwrap_or_default()),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| known.contains(&extension))
}

/// The part of a file's name that upstream's `eval.py` takes for the task.
fn before_first_dot(file: &Path) -> String {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').next().unwrap_or_default().to_owned()
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
    let first_line_only = metrics::first_line_only(&task);
    let mut scores = Vec::with_capacity(predictions.len());
    for (index, row) in predictions.iter().enumerate() {
        let prediction = || format!("{}: prediction {}", file.display(), index + 1);
        if let Some(reason) = metric.unscorable(&row.answers, &classes).filter(|_| !row.answers.is_empty()) {
            bail!("{} cannot be scored: {reason}", prediction());
        }
        let length = match values::count(&row.length) {
            None if e && row.length.is_null() => bail!("{} has no `length`", prediction()),
            None if e => bail!("{}: its `length`, {}, is no count", prediction(), row.length),
            length => length.unwrap_or(0),
        };
        let score = metrics::score_prediction(metric, first_line_only, &row.pred, &row.answers, &classes);
        scores.push((length, score));
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
            let scores = score_folder(&place, e, None).unwrap();
            assert_eq!(scores[0].all, 66.67);
            let Some([short, medium, long]) = scores[0].buckets else {
                assert!(place.ends_with("pred"), "{}", place.display());
                continue;
            };
            assert_eq!((short.score, medium.score, long.rows), (100.0, 50.0, 0));
        }
        let bare = "{\"pred\":\"x\",\"answers\":[]}\n";
        std::fs::write(folder.path().join("any/qasper_e.jsonl"), bare).unwrap();
        let error = score_folder(&folder.path().join("any"), false, None).err().unwrap().to_string();
        assert!(error.contains("prediction 1 has no `length`"), "{error}");
    }

    #[test]
    fn a_folder_without_predictions_says_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(score_folder(folder.path(), false, None).err().unwrap().to_string().contains("no <task>.jsonl"));
    }

    /// Regressions: prediction files in the wild that were refused, or scored 0 where upstream stops.
    #[test]
    fn predictions_in_the_wild_are_scored_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let score = |name: &str, text: &str, e: bool| {
            let place = folder.path().join(name.replace(['/', '.'], "-"));
            let file = place.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
            let scores = score_folder(&place, e, None).map_err(|error| error.to_string())?;
            Ok::<_, String>(scores.into_iter().map(|score| (score.task, score.all)).collect::<Vec<_>>())
        };
        let right = Ok(vec![("qasper".to_owned(), 100.0)]);
        for length in ["\"4096\"", "4096.0", "null", "\"many\""] {
            let text = format!("{{\"pred\":\"a b\",\"answers\":[\"a b\"],\"all_classes\":null,\"length\":{length}}}");
            assert_eq!(score("qasper.jsonl", &text, false), right, "{length}");
            assert_eq!(score("qasper.jsonl", &text, true).is_ok(), length.contains("4096"), "{length}");
        }
        let twice = r#"{"pred":"x","pred":"7","answers":[7],"all_classes":null}"#;
        assert_eq!(score("qasper.run2.jsonl", twice, false), right, "the last key, and a number as a text");
        assert_eq!(score("qasper/SnapKV.json", twice, false), right, "KVCache-Factory's layout");
        let classless = r#"{"pred":"x","answers":["x"],"all_classes":null}"#;
        let error = score("trec.jsonl", classless, false).unwrap_err();
        assert!(error.contains("prediction 1 cannot be scored: it has no classes"), "{error}");
        let error = score("passage_retrieval_en.jsonl", classless, false).unwrap_err();
        assert!(error.contains("names no paragraph"), "{error}");
    }

    #[test]
    fn one_of_several_methods_has_to_be_chosen() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("qasper")).unwrap();
        for (method, pred) in [("SnapKV", "a b"), ("H2O", "x")] {
            let text = format!("{{\"pred\":\"{pred}\",\"answers\":[\"a b\"]}}");
            std::fs::write(folder.path().join("qasper").join(method).with_extension("json"), text).unwrap();
        }
        let all = |method: Option<&str>| score_folder(folder.path(), false, method).map(|scores| scores[0].all);
        assert_eq!((all(Some("SnapKV")).unwrap(), all(Some("H2O")).unwrap()), (100.0, 0.0));
        assert!(all(None).unwrap_err().to_string().contains("of H2O, SnapKV: choose one with --method"));
        assert!(all(Some("Snap")).unwrap_err().to_string().contains("no predictions of `Snap`, but of H2O, SnapKV"));
    }
}
