//! Predictions in LongBench's layout.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cokv_shapley::whole;

use super::folder::{StoreError, io};
use super::store::Row;
use crate::data::longbench::task_of_e;
use crate::names::file_name;

/// Writes the predictions of a run's folder, instead of those of an earlier run, in LongBench's layout,
/// `pred/<model>__<method>@<budget>/<task>.jsonl` and for LongBench-E `pred_e/…`, for `cokv score` and for LongBench's
/// own `eval.py`. Shards that come to their end at the same time write the same.
pub fn write_predictions(folder: &Path, rows: &[Row]) -> Result<(), StoreError> {
    let mut files: BTreeMap<PathBuf, String> = BTreeMap::new();
    for row in rows {
        let budget = row.budget.to_string().replace(' ', "");
        let model = file_name(&row.model);
        let prediction = serde_json::json!({
            "pred": row.prediction,
            "answers": row.answers,
            // As upstream writes it where a task has no classes.
            "all_classes": Some(&row.all_classes).filter(|classes| !classes.is_empty()),
            "length": row.length,
            "_id": row.record,
        });
        let (place, task) = match task_of_e(&row.task) {
            Some(task) => ("pred_e", task),
            None => ("pred", row.task.as_str()),
        };
        let name = folder.join(format!("{place}/{model}__{}@{budget}/{task}.jsonl", row.method));
        files.entry(name).or_default().push_str(&format!("{prediction}\n"));
    }
    for (path, text) in &files {
        whole::write(path, text).map_err(io(path))?;
    }
    let kept: BTreeSet<&PathBuf> = files.keys().collect();
    for place in ["pred", "pred_e"].map(|name| folder.join(name)) {
        remove_others(&place, &kept).map_err(io(&place))?;
    }
    Ok(())
}

/// Removes predictions that are none of `kept`, and folders that are left empty. What is gone already is no error.
fn remove_others(folder: &Path, kept: &BTreeSet<&PathBuf>) -> std::io::Result<()> {
    let gone = |removed: std::io::Result<()>| match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) && path.extension().is_some_and(|ending| ending == "jsonl") {
            gone(fs::remove_file(&path))?;
        }
    }
    // One that is not empty stays.
    let _ = fs::remove_dir(folder);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::store::tests::row;
    use super::*;

    #[test]
    fn predictions_of_longbench_e_lie_where_eval_py_looks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let of = |task: &str| Row { task: task.into(), ..row(task) };
        write_predictions(folder.path(), &[of("qasper"), of("qasper_e"), of("narrativeqa_e")]).unwrap();
        let there = |name: &str| folder.path().join(name).is_file();
        assert!(there("pred/m__snapkv@64/qasper.jsonl") && there("pred_e/m__snapkv@64/qasper.jsonl"));
        // No task of LongBench-E.
        assert!(there("pred/m__snapkv@64/narrativeqa_e.jsonl") && !there("pred_e/m__snapkv@64/narrativeqa.jsonl"));
        write_predictions(folder.path(), &[of("qasper")]).unwrap();
        assert!(!folder.path().join("pred_e").exists(), "those of an earlier run");
    }
}
