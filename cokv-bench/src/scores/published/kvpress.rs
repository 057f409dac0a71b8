//! Head scores for Python, where a press of `docs/python.md` reads them: an object with the model's name and `scores`, a list of a
//! layer's KV heads for each layer. kvpress itself has no such file.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Serializer;

use super::Imported;
use crate::scores::row_format::RowFormatter;
use crate::scores::storage::{read_bytes, write_bytes};
use crate::scores::{ModelStamp, Problem, ScoreFile, ScoreFileError};

/// What the file holds; whatever else somebody wrote into it is theirs.
#[derive(Serialize, Deserialize)]
struct Heads {
    /// For people.
    #[serde(default)]
    model: String,
    /// What found them, for people.
    #[serde(default)]
    estimator: String,
    /// `[layers][kv_heads]`
    scores: Vec<Vec<f64>>,
}

/// Reads what a press measured, or what [`export_kvpress`] wrote.
pub fn import_kvpress(path: &Path, model: &ModelStamp) -> Result<Imported, ScoreFileError> {
    import(&read_bytes(path)?, path, model).map_err(|problem| problem.at(path))
}

fn import(bytes: &[u8], path: &Path, model: &ModelStamp) -> Result<Imported, Problem> {
    let layout = model.layout()?;
    let foreign = |message| Problem::Foreign { format: "kvpress", message };
    let heads: Heads = serde_json::from_slice(bytes).map_err(|error| {
        foreign(format!("{error}; expected an object whose `scores` are lists of a layer's KV heads"))
    })?;
    if heads.scores.len() != layout.layers || heads.scores.iter().any(|layer| layer.len() != layout.kv_heads) {
        let per_layer = heads.scores.iter().map(Vec::len).find(|&length| length != layout.kv_heads);
        let per_layer = per_layer.unwrap_or(layout.kv_heads);
        let scored = format!("{} layers, one of them with {per_layer} KV heads,", heads.scores.len());
        return Err(Problem::OtherShape { scored, model: model.to_string() });
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let estimator = if heads.estimator.is_empty() { "kvpress" } else { &heads.estimator };
    let file = ScoreFile {
        source: Some(format!("kvpress: {name}")),
        ..ScoreFile::new(model.clone(), estimator, &heads.scores.concat())
    };
    Ok(Imported { file, notices: Vec::new() })
}

/// Writes a file for the press of `docs/python.md`, a layer a line; numbers keep all their bits.
pub fn export_kvpress(file: &ScoreFile, path: &Path) -> Result<(), ScoreFileError> {
    write_bytes(path, &export(file).map_err(|problem| problem.at(path))?)
}

fn export(file: &ScoreFile) -> Result<Vec<u8>, Problem> {
    file.head_scores(&file.model)?;
    let heads =
        Heads { model: file.model.name.clone(), estimator: file.estimator.clone(), scores: file.scores.clone() };
    let mut text = Vec::new();
    heads.serialize(&mut Serializer::with_formatter(&mut text, RowFormatter::default()))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scores::file::tests::model;

    fn read(text: &str) -> Result<Imported, Problem> {
        import(text.as_bytes(), Path::new("heads.json"), &model("toy", 2, 2, 2))
    }

    #[test]
    fn lists_of_layers_are_enough() {
        let file = read(r#"{"scores": [[0.5, 1], [2, -3.5]], "measured": "today"}"#).unwrap().file;
        assert_eq!(file.scores, [[0.5, 1.0], [2.0, -3.5]]);
        assert_eq!((file.estimator.as_str(), file.source.as_deref()), ("kvpress", Some("kvpress: heads.json")));
    }

    #[test]
    fn wrong_files_are_refused() {
        for (text, message) in [
            ("[[0.5, 1], [2, 3]]", "expected an object whose `scores`"),
            (r#"{"scores": [[0.5, 1]]}"#, "1 layers, one of them with 2 KV heads, do not fit toy"),
            (r#"{"scores": [[0.5, 1], [2, 3, 4]]}"#, "2 layers, one of them with 3 KV heads, do not fit toy"),
            (r#"{"scores": [[0.5, 1], [2, "3"]]}"#, "expected an object whose `scores`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    proptest! {
        #[test]
        fn exported_scores_come_back(scores in prop::collection::vec(-1.0..1.0, 6), group in 1usize..8) {
            let file = ScoreFile::new(model("toy", 3, group, 2), "scpr", &scores);
            let back = import(&export(&file).unwrap(), Path::new("a"), &file.model).unwrap().file;
            prop_assert_eq!((back.flat(), back.estimator.as_str()), (scores, "scpr"));
        }
    }
}
