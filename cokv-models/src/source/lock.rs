//! One fetch at a time, across processes.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::{FetchEvent, Observer, SourceError};

/// Waits until no other process holds `path`, then holds it until the returned file is dropped (or the process ends).
/// The lock file itself stays: removing it would let two processes lock two different files of one name.
pub(super) fn acquire(path: &Path, observer: &Observer) -> Result<File, SourceError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(SourceError::io("create the folder", folder))?;
    }
    let file = File::create(path).map_err(SourceError::io("create the lock file", path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => observer.tell(FetchEvent::Waiting(path)),
        Err(_) => {}
    }
    file.lock().map_err(SourceError::io("lock", path))?;
    Ok(file)
}
