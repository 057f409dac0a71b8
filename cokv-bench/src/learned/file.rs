//! What was learned, in a file: safetensors, so that Python reads it too.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use cokv_core::{HeadLayout, Learned, LearnedLayer, QueryStatistics};
use cokv_shapley::whole;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use thiserror::Error;

use crate::scores::ModelStamp;

/// What was learned, and of which model.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedFile {
    /// The model.
    pub model: ModelStamp,
    /// Texts that it was learned from.
    pub texts: usize,
    /// What was learned.
    pub learned: Learned,
}

/// What the header of every such file says that it is.
const FORMAT: &str = "cokv-learned 1";

/// Tensors of a layer's number, each with how many numbers it has.
const TENSORS: [&str; 5] = ["queries.mean", "queries.covariance", "queries.lengths", "queries.directions", "guess"];

/// Why what was learned cannot be read or used.
#[derive(Debug, Error)]
pub enum LearnedFileError {
    /// Of the file system.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What happened.
        error: io::Error,
    },
    /// It is no such file, or a damaged one.
    #[error("{path}: {wrong}; `cokv learn` writes such files")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong.
        wrong: String,
    },
    /// It is of a model of another shape.
    #[error("{path} was learned of {of}, and the model is {model}: learn this one (`cokv learn`)")]
    OtherModel {
        /// The file.
        path: String,
        /// Its model.
        of: String,
        /// The model at hand.
        model: String,
    },
}

impl LearnedFile {
    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self, path: &Path) -> Result<(), LearnedFileError> {
        let unreadable = |wrong: String| LearnedFileError::Unreadable { path: path.display().to_string(), wrong };
        let metadata = HashMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("texts".to_owned(), self.texts.to_string()),
            ("fingerprint".to_owned(), self.learned.fingerprint.clone()),
            ("model".to_owned(), serde_json::to_string(&self.model).map_err(|error| unreadable(error.to_string()))?),
        ]);
        let mut bytes = Vec::new();
        for (name, part) in TENSORS.into_iter().zip(0..) {
            let numbers: Vec<f32> = self.learned.layers.iter().flat_map(|layer| parts(layer)[part]).copied().collect();
            if !numbers.is_empty() {
                let little_endian: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                bytes.push((name, numbers.len(), little_endian));
            }
        }
        let mut tensors = Vec::new();
        for (name, count, bytes) in &bytes {
            let shape = vec![self.learned.layers.len(), count / self.learned.layers.len().max(1)];
            let view = TensorView::new(Dtype::F32, shape, bytes).map_err(|error| unreadable(error.to_string()))?;
            tensors.push((*name, view));
        }
        let file = safetensors::serialize(tensors, Some(metadata)).map_err(|error| unreadable(error.to_string()))?;
        whole::write(path, file).map_err(|error| LearnedFileError::Io { path: path.display().to_string(), error })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it is not there, is none of these, or is damaged.
    pub fn read(path: &Path) -> Result<Self, LearnedFileError> {
        let shown = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| LearnedFileError::Io { path: shown.clone(), error })?;
        decode(&bytes).map_err(|wrong| LearnedFileError::Unreadable { path: shown, wrong })
    }

    /// What a file says of a model; what a user should know of it, if anything.
    ///
    /// # Errors
    /// As of [`read`](Self::read), and where it is of a model of another shape.
    pub fn read_for(path: &Path, model: &ModelStamp) -> Result<(Learned, Option<String>), LearnedFileError> {
        let Self { model: of, learned, .. } = Self::read(path)?;
        let shape = |stamp: &ModelStamp| (stamp.layers, stamp.query_heads, stamp.kv_heads, stamp.head_dim);
        if shape(&of) != shape(model) {
            let path = path.display().to_string();
            return Err(LearnedFileError::OtherModel { path, of: of.to_string(), model: model.to_string() });
        }
        let notice = of
            .notice(model)
            .map(|notice| format!("{}: {}", path.display(), notice.replace("scores", "what was learned")));
        Ok((learned, notice))
    }
}

fn decode(bytes: &[u8]) -> Result<LearnedFile, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let said = |key: &str| metadata.get(key).cloned().ok_or_else(|| format!("its header has no `{key}`"));
    if said("format")? != FORMAT {
        return Err(format!("it holds `{}` and not `{FORMAT}`", said("format")?));
    }
    let model: ModelStamp = serde_json::from_str(&said("model")?).map_err(|error| error.to_string())?;
    let layout = model.layout().map_err(|problem| problem.to_string())?;
    let texts = said("texts")?.parse().map_err(|_| "`texts` is no number".to_owned())?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut layers = vec![LearnedLayer::default(); layout.layers];
    for (name, part) in TENSORS.into_iter().zip(0..) {
        let tensor = match tensors.tensor(name) {
            Ok(tensor) => tensor,
            Err(_) if name == "guess" => continue,
            Err(error) => return Err(error.to_string()),
        };
        let numbers: Vec<f32> = tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        let of_layer = numbers.len() / layout.layers;
        let fits = expected(layout, part).map_or(of_layer.is_multiple_of(layout.kv_heads), |count| count == of_layer);
        if tensor.dtype() != Dtype::F32 || !fits || numbers.iter().any(|number| !number.is_finite()) {
            return Err(format!("`{name}` is not what a model of {model} has, or holds numbers that are none"));
        }
        for (layer, numbers) in layers.iter_mut().zip(numbers.chunks_exact(of_layer.max(1))) {
            *parts_mut(layer)[part] = numbers.to_vec();
        }
    }
    Ok(LearnedFile { model, texts, learned: Learned { fingerprint: said("fingerprint")?, layers } })
}

/// Numbers that a layer has of each of [`TENSORS`]; none of the guess, which depends on the width of the model.
fn expected(layout: HeadLayout, part: usize) -> Option<usize> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let counts =
        [query_heads * head_dim, query_heads * head_dim * head_dim, query_heads * (head_dim / 2), kv_heads * head_dim];
    counts.get(part).copied()
}

fn parts(layer: &LearnedLayer) -> [&Vec<f32>; 5] {
    let LearnedLayer { queries: QueryStatistics { mean, covariance }, lengths, directions, guess } = layer;
    [mean, covariance, lengths, directions, guess]
}

fn parts_mut(layer: &mut LearnedLayer) -> [&mut Vec<f32>; 5] {
    let LearnedLayer { queries: QueryStatistics { mean, covariance }, lengths, directions, guess } = layer;
    [mean, covariance, lengths, directions, guess]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> LearnedFile {
        let layout = HeadLayout::new(2, 4, 2, 4).unwrap();
        let numbers = |count: usize| (0..count).map(|at| at as f32 / 3.0).collect::<Vec<f32>>();
        let layer = LearnedLayer {
            queries: QueryStatistics { mean: numbers(16), covariance: numbers(64) },
            lengths: numbers(8),
            directions: numbers(8),
            guess: numbers(14),
        };
        let learned = Learned { fingerprint: "abc".into(), layers: vec![layer.clone(), layer] };
        LearnedFile { model: ModelStamp::of("some", Some("f"), layout), texts: 3, learned }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.learned");
        file().write(&path).unwrap();
        assert_eq!(LearnedFile::read(&path).unwrap(), file());
        let mut without = file();
        without.learned.layers.iter_mut().for_each(|layer| layer.guess.clear());
        without.write(&path).unwrap();
        assert_eq!(LearnedFile::read(&path).unwrap(), without);
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let error = LearnedFile::read(&path).unwrap_err().to_string();
            assert!(error.contains("x.learned") && error.contains("cokv learn"), "{error}");
        }
        let other = ModelStamp::of("other", Some("g"), HeadLayout::new(3, 4, 2, 4).unwrap());
        without.write(&path).unwrap();
        let error = LearnedFile::read_for(&path, &other).unwrap_err().to_string();
        assert!(error.contains("was learned of some (2 layers × 2 KV heads)"), "{error}");
        let same_shape = ModelStamp { name: "tuned".into(), fingerprint: Some("h".into()), ..file().model };
        let notice = LearnedFile::read_for(&path, &same_shape).unwrap().1.unwrap();
        assert!(notice.contains("what was learned of some (fingerprint f) are used for tuned"), "{notice}");
    }
}
