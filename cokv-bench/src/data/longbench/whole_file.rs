//! Files that are whole or absent, whenever the process ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::data::DataError;

/// Writes a file beside its place, and puts it there when it is on disk. Its folder is made.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(DataError::io(folder))?;
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = File::create(part).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    if let Err(error) = written {
        // What cannot be removed is overwritten next time.
        let _ = fs::remove_file(part);
        return Err(DataError::io(part)(error));
    }
    fs::rename(part, path).map_err(DataError::io(path))
}
