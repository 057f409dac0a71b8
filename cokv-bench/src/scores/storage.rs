//! Reading and writing small files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cokv_shapley::whole;

use super::{Problem, ScoreFileError};

/// Bytes that a file of head scores may have; published ones have up to 1.5 MB.
const BYTES_LIMIT: u64 = 64 << 20;

/// The bytes of a file of reasonable size.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, ScoreFileError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_LIMIT + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > BYTES_LIMIT => Err(Problem::TooLarge { limit: BYTES_LIMIT }.at(path)),
        Ok(_) => Ok(bytes),
        Err(error) => Err(Problem::Io(error).at(path)),
    }
}

/// Replaces a file at once: whoever reads it meanwhile sees the old one or the new one.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<(), ScoreFileError> {
    whole::write(path, bytes).map_err(|error| Problem::Io(error).at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        File::create(&path).unwrap().set_len(BYTES_LIMIT + 1).unwrap();
        assert!(matches!(read_bytes(&path).unwrap_err().problem, Problem::TooLarge { limit: BYTES_LIMIT }));
    }
}
