//! JSONL files: a document a line.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;

use super::DataError;

/// All lines of a file; blank ones are skipped.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DataError> {
    let text = fs::read_to_string(path).map_err(DataError::io(path))?;
    parse(&path.display().to_string(), &text, usize::MAX)
}

/// The first `limit` lines of a text; blank ones are skipped. `path` is what errors call it.
pub fn parse<T: DeserializeOwned>(path: &str, text: &str, limit: usize) -> Result<Vec<T>, DataError> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(limit)
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| DataError::Line {
                path: path.to_owned(),
                line: index + 1,
                // Every line is a document of its own to the parser.
                message: error.to_string().replace(" at line 1 column ", " at column "),
            })
        })
        .collect()
}
