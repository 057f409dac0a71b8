//! Append-only files of JSON lines, which whatever ends their process leaves readable.

use std::fs;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lock::{Lock, LockError, Means, Mode};

/// The lines of a file as it lies on disk.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Bytes up to the last line break.
    whole: usize,
}

impl Lines {
    /// Reads a file without locking or changing it; one that is not there has no lines.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            read => read?,
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        Ok(Self { bytes, whole })
    }

    /// The finished lines, without their line breaks, counted from 1.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let lines = self.bytes[..self.whole].split_inclusive(|&byte| byte == b'\n');
        (1..).zip(lines.map(|line| &line[..line.len() - 1]))
    }

    /// What stands behind the last line break: a line that was being written when its process ended.
    pub fn torn(&self) -> &[u8] {
        &self.bytes[self.whole..]
    }

    /// All lines that are a `T`, and the others with what is wrong with them. Blank ones are neither.
    pub fn parse<T: DeserializeOwned>(&self) -> (Vec<T>, Vec<(usize, serde_json::Error)>) {
        let (mut values, mut damaged) = (Vec::new(), Vec::new());
        for (number, line) in self.iter().filter(|(_, line)| !line.trim_ascii().is_empty()) {
            match serde_json::from_slice(line) {
                Ok(value) => values.push(value),
                Err(error) => damaged.push((number, error)),
            }
        }
        (values, damaged)
    }
}

/// A file that only we append to.
#[derive(Debug)]
pub struct LineLog {
    path: PathBuf,
    lock: Lock,
    /// Bytes of the file.
    end: u64,
}

impl LineLog {
    /// Opens a file or makes it, locked against everybody. `read` makes of its lines what they mean, or refuses a file that
    /// is somebody else's, which then stays as it is. Afterwards an unfinished last line is cut off.
    pub fn open<T, E: From<LockError>>(path: &Path, read: impl FnOnce(&Lines) -> Result<T, E>) -> Result<(Self, T), E> {
        let mut lock = Lock::take(path, Mode::Exclusive, Means::Best)?;
        let lines = Lines::read(path).map_err(LockError::io(path))?;
        let meaning = read(&lines)?;
        let end = lines.whole as u64;
        if !lines.torn().is_empty() {
            lock.file().set_len(end).map_err(LockError::io(path))?;
        }
        lock.file().seek(SeekFrom::Start(end)).map_err(LockError::io(path))?;
        Ok((Self { path: path.into(), lock, end }, meaning))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends values, a line each. They survive the process, and once [`sync`](Self::sync) returns the machine.
    pub fn append<T: Serialize>(&mut self, values: impl IntoIterator<Item = T>) -> io::Result<()> {
        let mut text = Vec::new();
        for value in values {
            serde_json::to_writer(&mut text, &value)?;
            text.push(b'\n');
        }
        if let Err(error) = self.lock.file().write_all(&text) {
            // A full disk leaves a torn line; taking it back keeps the file whole for whoever reads it now.
            let _ = self.lock.file().set_len(self.end).and_then(|()| self.lock.file().seek(SeekFrom::Start(self.end)));
            return Err(error);
        }
        self.end += text.len() as u64;
        Ok(())
    }

    /// Has the system write everything to the disk.
    pub fn sync(&mut self) -> io::Result<()> {
        self.lock.file().sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<(LineLog, Vec<u32>), LockError> {
        LineLog::open(path, |lines| Ok(lines.parse().0))
    }

    #[test]
    fn what_was_appended_is_read_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/log.jsonl");
        let (mut log, values) = open(&path).unwrap();
        assert!(values.is_empty());
        log.append([1, 2]).unwrap();
        log.sync().unwrap();
        assert!(matches!(open(&path), Err(LockError::Held(_))));
        drop(log);
        fs::write(&path, "1\n2\n34").unwrap();
        assert_eq!(Lines::read(&path).unwrap().torn(), b"34");
        let (mut log, values) = open(&path).unwrap();
        assert_eq!(values, [1, 2]);
        log.append([5]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n5\n");
    }

    #[test]
    fn damaged_lines_are_numbered_and_blank_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "1\n\nx\n3\n").unwrap();
        let (values, damaged) = Lines::read(&path).unwrap().parse::<u32>();
        assert_eq!(values, [1, 3]);
        assert_eq!(damaged.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn a_file_that_is_refused_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "1\nthes").unwrap();
        let refuse = |_: &Lines| -> Result<(), LockError> { Err(LockError::Held("x".into())) };
        assert!(LineLog::open(&path, refuse).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\nthes");
    }
}
