//! The digest that the hub states of large files.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::source::SourceError;

/// Compares a file of the cache with its SHA-256, which is the name that the hub gives to the blob of a large file; small
/// files have names of another kind. A file that differs is thrown away.
pub(super) fn check(path: &Path) -> Result<(), SourceError> {
    let blob = fs::canonicalize(path).map_err(SourceError::io("find", path))?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name.len() != 64 || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut reader = BufReader::with_capacity(1 << 18, File::open(&blob).map_err(SourceError::io("open", &blob))?);
    let mut hasher = Sha256::new();
    loop {
        let bytes = reader.fill_buf().map_err(SourceError::io("read", &blob))?;
        if bytes.is_empty() {
            break;
        }
        hasher.update(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found.eq_ignore_ascii_case(&name) {
        return Ok(());
    }
    for file in [path, &blob] {
        // On systems without links both are one file.
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SourceError::io("remove the damaged", file)(error));
            }
            _ => {}
        }
    }
    Err(SourceError::unusable(
        path,
        format!("what was downloaded has the sha256 {found}, and the hub states {name}"),
        "it was thrown away: run again",
    ))
}
