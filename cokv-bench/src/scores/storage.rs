//! Reading and writing small files.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

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
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = Path::new(&partial);
    let write = || {
        let mut file = File::create(partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial, path)
    };
    write().map_err(|error| {
        // What stopped the writing is what the user has to hear, not that a rest of it stays.
        fs::remove_file(partial).ok();
        Problem::Io(error).at(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_bytes(&path, b"old").unwrap();
        write_bytes(&path, b"new").unwrap();
        assert_eq!(read_bytes(&path).unwrap(), b"new");
        // A folder cannot be replaced by a file.
        let inner = folder.path().join("b");
        fs::create_dir(&inner).unwrap();
        let error = write_bytes(&inner, b"new").unwrap_err();
        assert!(matches!(error.problem, Problem::Io(_)) && error.path == inner);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        File::create(&path).unwrap().set_len(BYTES_LIMIT + 1).unwrap();
        assert!(matches!(read_bytes(&path).unwrap_err().problem, Problem::TooLarge { limit: BYTES_LIMIT }));
    }
}
