//! What can be wrong with a score file.

use std::path::{Path, PathBuf};

use cokv_core::{LayoutError, ScoresError};
use thiserror::Error;

use super::pickle::PickleError;

/// A score file that cannot be read, written or used.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub struct ScoreFileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a score file.
#[derive(Debug, Error)]
pub enum Problem {
    /// The file could not be read or written.
    #[error("{0}{hint}", hint = missing(.0))]
    Io(#[from] std::io::Error),
    /// The file is too large to hold head scores.
    #[error("the file has more than {limit} bytes; files of head scores are far smaller")]
    TooLarge {
        /// Bytes that a score file may have.
        limit: u64,
    },
    /// The text is not JSON, or not of our format.
    #[error("not a cokv score file: {0}")]
    Json(#[from] serde_json::Error),
    /// The text is not that of the format that it is imported from.
    #[error("not a {format} file: {message}")]
    Foreign {
        /// The format expected.
        format: &'static str,
        /// What was found.
        message: String,
    },
    /// A pickle holds what no score file needs.
    #[error("{0}")]
    Pickle(#[from] PickleError),
    /// The heads of the model named in the file cannot exist.
    #[error("`model`: {0}")]
    Layout(#[from] LayoutError),
    /// A table of the file has not the model's shape.
    #[error("`{table}` has {found}, its model has {expected}")]
    Shape {
        /// Name of the table.
        table: &'static str,
        /// Layers, or KV heads of one layer, in the table.
        found: String,
        /// The same of the model.
        expected: String,
    },
    /// A number that makes no sense.
    #[error("`{field}` is {value}{place}: expected {expected}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// The number.
        value: f64,
        /// Its head where it belongs to one, behind a blank.
        place: String,
        /// What makes sense there.
        expected: &'static str,
    },
    /// A list names a head that the model has not.
    #[error(
        "`{field}` names head {head} of layer {layer}; the model has {layers} layers of {kv_heads} KV heads, \
         counted from 0"
    )]
    NoSuchHead {
        /// Name of the list.
        field: &'static str,
        /// Layer named.
        layer: usize,
        /// KV head named.
        head: usize,
        /// Layers of the model.
        layers: usize,
        /// KV heads of a layer.
        kv_heads: usize,
    },
    /// Scores of one model were asked for another of a different shape.
    #[error("scores of {scored} do not fit {model}; measure or import scores of this model")]
    OtherShape {
        /// The model that was scored, with its shape.
        scored: String,
        /// The model to be scored, with its shape.
        model: String,
    },
    /// Only some heads were scored.
    #[error("only {scored} of the {heads} heads were scored, the others kept the whole prompt; score all of them")]
    SomeHeads {
        /// Heads that were scored.
        scored: usize,
        /// Heads of the model.
        heads: usize,
    },
    /// The scores cannot be used as head scores.
    #[error("{0}")]
    Scores(#[from] ScoresError),
    /// Two files are about different numbers of heads.
    #[error("its model {first} cannot be compared with {second}: the shapes differ")]
    Incomparable {
        /// One model, with its shape.
        first: String,
        /// The other.
        second: String,
    },
    /// A head was in no coalition, so nothing is known about it.
    #[error("head {head} was in none of the {samples} coalitions, so its mean is not defined")]
    NeverSampled {
        /// Flat index of the head.
        head: usize,
        /// Coalitions drawn.
        samples: u64,
    },
    /// The files to be imported do not belong together, or there are none.
    #[error("{0}")]
    Set(String),
}

impl Problem {
    /// The problem of the file at `path`.
    pub fn at(self, path: &Path) -> ScoreFileError {
        ScoreFileError { path: path.into(), problem: self }
    }
}

/// How to make a file that is not there.
fn missing(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            "; cokv estimate --task passkey --out FILE makes a score file, and cokv scores import reads published ones"
        }
        _ => "",
    }
}
