//! Import of the scores that CoKV's authors published.

use std::fs;
use std::path::{Path, PathBuf};

use super::Imported;
use super::cokv_npy::{Contributions, FileName, read_contributions};
use crate::scores::{ModelStamp, Problem, ScoreFile, ScoreFileError};

/// Score of a head for a task: the mean over coalition sizes of its mean contribution, SSV of CoKV (arXiv 2502.17501,
/// section 4), from all files of the task in a folder.
///
/// The authors' program sums over the sizes, which gives the same budgets: their allocation does not change when all
/// scores are multiplied by one number. It also counts a published file twice where the same data was published under
/// two sizes. Here data counts once; in each such set all data is there twice, so the mean and the budgets are
/// the same.
///
/// Without a model it is told from the names and the number of heads, which works for the published files.
pub fn import_cokv(folder: &Path, task: &str, model: Option<&ModelStamp>) -> Result<Imported, ScoreFileError> {
    let paths = task_files(folder, task)?;
    let files = paths.iter().map(|path| read_contributions(path)).collect::<Result<Vec<_>, _>>()?;
    combine(&paths, files, task, model).map_err(|problem| problem.at(folder))
}

/// The `.npy` files of a task in a folder, sorted by name.
fn task_files(folder: &Path, task: &str) -> Result<Vec<PathBuf>, ScoreFileError> {
    let listed = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = listed().map_err(|error| Problem::Io(error).at(folder))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "npy"));
    paths.sort();
    let task_of = |path: &PathBuf| FileName::parse(&file_name(&path.with_extension(""))).task.to_owned();
    let mut tasks: Vec<String> = paths.iter().map(task_of).collect();
    paths.retain(|path| task_of(path) == task);
    if paths.is_empty() {
        tasks.sort();
        tasks.dedup();
        let known = if tasks.is_empty() { "no .npy files at all".into() } else { tasks.join(", ") };
        return Err(Problem::Set(format!("no files `cc_{task}_<size>.npy`; there are {known}")).at(folder));
    }
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn combine(
    paths: &[PathBuf],
    files: Vec<Contributions>,
    task: &str,
    model: Option<&ModelStamp>,
) -> Result<Imported, Problem> {
    let mut notices = Vec::new();
    let mut distinct: Vec<(String, Contributions)> = Vec::new();
    for (name, read) in paths.iter().map(|path| file_name(path)).zip(files) {
        notices.extend(read.notices.iter().map(|notice| format!("{name}: {notice}")));
        match distinct.iter().find(|(_, other)| other.same_data(&read)) {
            Some((other, _)) => notices.push(format!("{name} holds the same data as {other}; it counts once")),
            None => distinct.push((name, read)),
        }
    }
    distinct.sort_by_key(|(_, read)| read.size);

    let first = distinct.first().map(|(_, read)| read).ok_or_else(|| Problem::Set("there are no files".into()))?;
    let heads = first.left.len();
    if let Some((name, other)) =
        distinct.iter().find(|(_, read)| (&read.model, read.left.len()) != (&first.model, heads))
    {
        return Err(Problem::Set(format!(
            "{name} is of {} ({} heads), others are of {} ({heads} heads); put the files of each model into a folder",
            other.model,
            other.left.len(),
            first.model
        )));
    }
    let model = match model {
        Some(model) if model.layout()?.heads() == heads => model.clone(),
        Some(model) => {
            return Err(Problem::OtherShape {
                scored: format!("a model of {heads} KV heads"),
                model: model.to_string(),
            });
        }
        None => published_model(&first.model, heads).ok_or_else(|| {
            Problem::Set(format!(
                "{heads} KV heads of a model `{}`: name the model with its layers, query heads and KV heads",
                first.model
            ))
        })?,
    };

    let mut scores = vec![0.0; heads];
    for (_, read) in &distinct {
        scores.iter_mut().zip(read.left_means()).for_each(|(score, mean)| *score += mean / distinct.len() as f64);
    }
    let samples: u64 = distinct.iter().map(|(_, read)| read.sampling_count).sum();
    let sizes: Vec<String> = distinct.iter().map(|(_, read)| read.size.to_string()).collect();
    let names: Vec<&str> = distinct.iter().map(|(name, _)| name.as_str()).collect();
    let file = ScoreFile {
        samples: Some(samples),
        evaluations: Some(2 * samples),
        source: Some(format!("CoKV, {task}, coalitions of {} heads: {}", sizes.join(", "), names.join(", "))),
        ..ScoreFile::new(model, "ssv", &scores)
    };
    Ok(Imported { file, notices })
}

/// The models whose scores the authors published, by their names in file names.
fn published_model(name: &str, heads: usize) -> Option<ModelStamp> {
    let (name, layers, query_heads) = match (name, heads) {
        ("llama", 256) => ("Meta-Llama-3-8B-Instruct", 32, 32),
        ("mistral", 256) => ("Mistral-7B-Instruct-v0.2", 32, 32),
        ("qwen3", 512) => ("Qwen3-32B", 64, 64),
        _ => return None,
    };
    Some(ModelStamp { name: name.into(), fingerprint: None, layers, query_heads, kv_heads: 8, head_dim: 128 })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::cokv_npy::tests::npy;
    use super::*;
    use crate::scores::file::tests::model;

    /// Two heads; the only coalition of `size` 1 or 2 has the contribution `sum`.
    fn write(folder: &Path, name: &str, size: usize, sum: f64) {
        let bytes = match size {
            1 => npy(&[sum, sum / 2.0], &[0.0, -sum / 2.0], &[1.0, 1.0], &[1.0, 1.0], 2),
            _ => npy(&[sum, sum], &[0.0, 0.0], &[1.0, 1.0], &[0.0, 0.0], 1),
        };
        fs::write(folder.join(name), bytes).unwrap();
    }

    #[test]
    fn sizes_are_averaged_and_copies_count_once() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "cc_toy_1.npy", 1, 4.0);
        write(folder.path(), "cc_toy_2.npy", 2, 1.0);
        write(folder.path(), "cc_toy_3.npy", 1, 4.0);
        write(folder.path(), "cc_other_1.npy", 1, 9.0);
        let stamp = model("toy", 2, 1, 1);
        let Imported { file, notices } = import_cokv(folder.path(), "toy", Some(&stamp)).unwrap();
        assert_eq!(file.scores, [[2.5], [1.5]]);
        assert_eq!((file.samples, file.evaluations), (Some(3), Some(6)));
        assert_eq!(
            notices,
            [
                "cc_toy_3.npy: its name says coalitions of 3 heads, its counts say 1",
                "cc_toy_3.npy holds the same data as cc_toy_1.npy; it counts once"
            ]
        );
        assert_eq!(file.source.as_deref(), Some("CoKV, toy, coalitions of 1, 2 heads: cc_toy_1.npy, cc_toy_2.npy"));
    }

    #[test]
    fn sets_that_cannot_be_combined_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = |model: Option<&ModelStamp>, task| import_cokv(folder.path(), task, model).unwrap_err().to_string();
        assert!(error(None, "toy").contains("there are no .npy files at all"));
        write(folder.path(), "cc_toy_1.npy", 1, 4.0);
        assert!(error(None, "other").contains("there are toy"));
        assert!(error(None, "toy").contains("2 KV heads of a model `llama`: name the model"));
        let wrong = model("wrong", 3, 1, 1);
        assert!(error(Some(&wrong), "toy").contains("a model of 2 KV heads do not fit wrong (3 layers × 1 KV heads)"));
        write(folder.path(), "cc_mistral_toy_2.npy", 2, 4.0);
        assert!(error(None, "toy").contains("others are of"));
    }

    /// Extra slots of each head by the authors' rule, in their 32-bit numbers: what a score is above the `drop`-th lowest
    /// is its part of `pool`.
    fn authors_budgets(scores: &[f64], drop: usize, pool: usize) -> Vec<u64> {
        let scores: Vec<f32> = scores.iter().map(|&score| score as f32).collect();
        let mut sorted = scores.clone();
        sorted.sort_by(f32::total_cmp);
        let above: Vec<f32> = scores.iter().map(|score| (score - sorted[drop - 1]).max(0.0)).collect();
        let sum: f32 = above.iter().sum();
        above.iter().map(|value| (value / sum * pool as f32) as u64).collect()
    }

    #[test]
    fn the_authors_budgets_follow_from_imported_scores() {
        let Some(folder) = cokv_golden::find("scores/cokv") else { return };
        let plans: Value =
            serde_json::from_str(include_str!("../../../tests/data/cokv-scores/expected_plans.json")).unwrap();
        let mut compared = 0;
        for (model, tasks) in plans.as_object().unwrap().iter().filter(|(_, tasks)| tasks.is_object()) {
            for (task, bases) in tasks.as_object().unwrap() {
                let Imported { file, notices } = import_cokv(&folder.join(model), task, None).unwrap();
                // Both tasks have their data twice and are among the plans; the authors' sum has it twice as well.
                assert_eq!(notices.len(), if ["trec", "passage_count"].contains(&task.as_str()) { 4 } else { 0 });
                for (base, expected) in bases.as_object().unwrap() {
                    let pool = (base.parse::<usize>().unwrap() - 8) * 256;
                    let expected = expected.as_array().unwrap().iter().map(|budget| budget.as_u64().unwrap());
                    let budgets = authors_budgets(&file.flat(), 20, pool);
                    let far = budgets.iter().zip(expected).filter(|(found, expected)| found.abs_diff(*expected) > 1);
                    assert_eq!(far.collect::<Vec<_>>(), [], "{model} {task} {base}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, 30);
    }

    #[test]
    fn published_borders() {
        let Some(published) = cokv_golden::find("scores/cokv") else { return };
        let scores = import_cokv(&published.join("llama3-8b"), "qasper", None).unwrap().file.flat();
        let mut sums: Vec<f64> = scores.iter().map(|score| 4.0 * score).collect();
        sums.sort_by(f64::total_cmp);
        // The lowest, 10th and 40th lowest and the largest sum of the four sizes.
        for (rank, expected) in [(0, -0.251586), (9, -0.223676), (39, -0.211416), (255, -0.125675)] {
            assert!((sums[rank] - expected).abs() < 1e-6, "{rank}: {}", sums[rank]);
        }
    }

    #[test]
    fn data_published_twice_weighs_the_same_as_once() {
        let Some(published) = cokv_golden::find("scores/cokv") else { return };
        for (folder, prefix, task) in [
            ("llama3-8b", "cc_", "trec"),
            ("llama3-8b", "cc_", "passage_count"),
            ("mistral-7b", "cc_mistral_", "gov_report"),
            ("mistral-7b", "cc_mistral_", "musique"),
            ("mistral-7b", "cc_mistral_", "passage_count"),
            ("mistral-7b", "cc_mistral_", "passage_retrieval_en"),
            ("mistral-7b", "cc_mistral_", "qasper"),
        ] {
            let folder = published.join(folder);
            let once = import_cokv(&folder, task, None).unwrap().file.flat();
            let means = [32, 64, 96, 128].map(|size| {
                read_contributions(&folder.join(format!("{prefix}{task}_{size}.npy"))).unwrap().left_means()
            });
            for (head, score) in once.iter().enumerate() {
                let as_shipped = means.iter().map(|means| means[head]).sum::<f64>() / 4.0;
                assert!((score - as_shipped).abs() < 1e-15, "{task} {head}");
            }
        }
    }
}
