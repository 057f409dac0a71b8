//! HeadKV's score files (Fu et al., arXiv 2410.19258): one JSON object from `"layer-head"` to the scores of a query head
//! in every test.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serializer;

use super::Imported;
use crate::scores::storage::{read_bytes, write_bytes};
use crate::scores::{ModelStamp, Problem, ScoreFile, ScoreFileError};

/// The score of a query head is its mean over the tests, that of a KV head the mean over its group. A file that has as
/// many heads as the model has KV heads is taken to be of KV heads.
pub fn import_headkv(path: &Path, model: &ModelStamp) -> Result<Imported, ScoreFileError> {
    import(&read_bytes(path)?, path, model).map_err(|problem| problem.at(path))
}

fn import(bytes: &[u8], path: &Path, model: &ModelStamp) -> Result<Imported, Problem> {
    let layout = model.layout()?;
    let lists: BTreeMap<String, Vec<f64>> =
        serde_json::from_slice(bytes).map_err(|error| foreign(format!("{error}; expected lists of numbers")))?;
    let mut means = BTreeMap::new();
    for (key, list) in &lists {
        let wrong = |what| foreign(format!("{what} under the key `{key}`"));
        let parsed = key.split_once('-').map(|(layer, head)| (layer.parse::<usize>(), head.parse::<usize>()));
        let Some((Ok(layer), Ok(head))) = parsed else { return Err(wrong("no `layer-head`")) };
        let mean = list.iter().sum::<f64>() / list.len() as f64;
        if !mean.is_finite() {
            return Err(wrong("no scores"));
        }
        means.insert((layer, head), mean);
    }
    let per_layer = means.keys().map(|&(_, head)| head).max().map_or(0, |head| head.saturating_add(1));
    let layers = means.keys().map(|&(layer, _)| layer).max().map_or(0, |layer| layer.saturating_add(1));
    // `0-1` and `0-01` are two keys of one head.
    if layers.checked_mul(per_layer) != Some(means.len()) || means.len() != lists.len() {
        let message = format!("{} keys cannot be {layers} layers of {per_layer} heads", lists.len());
        return Err(foreign(message));
    }
    let group = match per_layer {
        heads if layers == layout.layers && heads == layout.query_heads => layout.group(),
        heads if layers == layout.layers && heads == layout.kv_heads => 1,
        _ => {
            let scored = format!("{layers} layers of {per_layer} heads");
            return Err(Problem::OtherShape {
                scored,
                model: format!("{model}, which has {} query heads in a layer", layout.query_heads),
            });
        }
    };
    // The map's order is layer-major, and the query heads of a group follow each other.
    let means: Vec<f64> = means.into_values().collect();
    let scores: Vec<f64> = means.chunks(group).map(|group| group.iter().sum::<f64>() / group.len() as f64).collect();
    let tests = lists.values().map(Vec::len).max().unwrap_or(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut notices = Vec::new();
    if lists.values().any(|list| list.len() != tests) {
        notices.push(format!("heads were scored in different numbers of tests, at most {tests}"));
    }
    let file = ScoreFile {
        samples: Some(tests as u64),
        source: Some(format!("HeadKV: {name}")),
        ..ScoreFile::new(model.clone(), "headkv", &scores)
    };
    Ok(Imported { file, notices })
}

fn foreign(message: String) -> Problem {
    Problem::Foreign { format: "HeadKV", message }
}

/// Writes a file for HeadKV's program: every query head has a list of one, the score of its KV head.
pub fn export_headkv(file: &ScoreFile, path: &Path) -> Result<(), ScoreFileError> {
    write_bytes(path, &export(file).map_err(|problem| problem.at(path))?)
}

fn export(file: &ScoreFile) -> Result<Vec<u8>, Problem> {
    let scores = file.head_scores(&file.model)?;
    let layout = file.model.layout()?;
    let entry = |flat: usize| {
        let (layer, head) = (flat / layout.query_heads, flat % layout.query_heads);
        let score = scores.values()[layout.flat(layer, head / layout.group())];
        (format!("{layer}-{head}"), [score])
    };
    let mut text = Vec::new();
    serde_json::Serializer::new(&mut text).collect_map((0..layout.layers * layout.query_heads).map(entry))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scores::file::tests::model;
    use crate::scores::statistics::descending;

    fn read(text: &str, model: &ModelStamp) -> Result<Imported, Problem> {
        import(text.as_bytes(), Path::new("heads.json"), model)
    }

    #[test]
    fn groups_are_averaged() {
        let stamp = model("toy", 1, 2, 2);
        let text = r#"{"0-0": [1, 3], "0-1": [4, 4], "0-3": [0, 1], "0-2": [0, 0]}"#;
        let imported = read(text, &stamp).unwrap();
        assert_eq!(imported.file.scores, [[3.0, 0.25]]);
        assert_eq!((imported.file.samples, imported.notices), (Some(2), vec![]));
        assert_eq!(read(r#"{"0-0": [1], "0-1": [4]}"#, &stamp).unwrap().file.scores, [[1.0, 4.0]]);
    }

    #[test]
    fn wrong_files_are_refused() {
        for (text, message) in [
            (r#"{"0-0": [1], "0-1": [4], "0-2": [1]}"#, "scores of 1 layers of 3 heads do not fit toy"),
            (r#"{"0-0": [1], "0-2": [4]}"#, "2 keys cannot be 1 layers of 3 heads"),
            (r#"{"0-0": [1], "0-00": [1], "0-2": [4]}"#, "3 keys cannot be 1 layers of 3 heads"),
            (r#"{"0-0": [1], "0-1": [1], "0-01": [4]}"#, "3 keys cannot be 1 layers of 2 heads"),
            (r#"{"0-0": [1], "18446744073709551615-9": [4]}"#, "keys cannot be"),
            (r#"{"0-0": [], "0-1": [4]}"#, "no scores under the key `0-0`"),
            (r#"{"0": [1]}"#, "no `layer-head` under the key `0`"),
            ("{}", "scores of 0 layers of 0 heads"),
            (r#"{"0-0": 1}"#, "expected lists of numbers"),
        ] {
            let error = read(text, &model("toy", 1, 2, 2)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn published_values() {
        let Some(published) = cokv_golden::find("scores/headkv") else { return };
        // With one query head per KV head the scores are the means of the query heads.
        let query = model("published", 32, 1, 32);
        let grouped = model("published", 32, 4, 8);
        for (name, tests, zeros) in [
            ("Meta-Llama-3-8B-Instruct_retrieval_heads", 107, Some(728)),
            ("Meta-Llama-3-8B-Instruct_retrieval_reasoning_heads", 74, Some(2)),
            ("Mistral-7B-Instruct-v0.2_retrieval_heads", 148, None),
            ("Mistral-7B-Instruct-v0.2_retrieval_reasoning_heads", 76, None),
        ] {
            let path = published.join(format!("{name}.json"));
            let file = import_headkv(&path, &query).unwrap().file;
            let means = file.flat();
            assert_eq!(file.samples, Some(tests));
            if let Some(zeros) = zeros {
                assert_eq!(means.iter().filter(|&&mean| mean == 0.0).count(), zeros, "{name}");
            }
            if name == "Meta-Llama-3-8B-Instruct_retrieval_reasoning_heads" {
                let best: Vec<_> =
                    descending(&means).into_iter().take(3).map(|flat| (flat / 32, flat % 32, means[flat])).collect();
                let expected = [(15, 30, 0.344), (8, 11, 0.329), (16, 1, 0.301)];
                for (found, expected) in best.iter().zip(expected) {
                    assert_eq!((found.0, found.1), (expected.0, expected.1));
                    assert!((found.2 - expected.2).abs() < 5e-4, "{found:?}");
                }
            }
            let kv_heads = import_headkv(&path, &grouped).unwrap().file.flat();
            assert_eq!(kv_heads.len(), 256);
            assert!((kv_heads[9] - means[36..40].iter().sum::<f64>() / 4.0).abs() < 1e-15);
        }
    }

    proptest! {
        #[test]
        fn exported_scores_come_back(scores in prop::collection::vec(-1.0..1.0, 6), group in 1usize..8) {
            let file = ScoreFile::new(model("toy", 3, group, 2), "test", &scores);
            let back = import(&export(&file).unwrap(), Path::new("a"), &file.model).unwrap().file.flat();
            for (score, back) in scores.iter().zip(back) {
                prop_assert!((score - back).abs() <= 1e-15);
            }
        }
    }
}
