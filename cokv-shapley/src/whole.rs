//! Files that are whole or absent, whenever the process ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::lock::Holder;

/// Writes a file beside its place and puts it there when it is on disk: whoever reads meanwhile sees the old one or the new
/// one. Its folder is made. Several processes, of several machines, may write the same file at the same time. What is no
/// file, such as `/dev/stdout`, is written to as it is.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return fs::write(path, bytes);
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let Holder { host, process } = Holder::this();
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{host}-{process}.part"));
    let part = Path::new(&part);
    let put = || {
        let mut file = File::create(part)?;
        file.write_all(bytes.as_ref())?;
        file.sync_all()?;
        fs::rename(part, path)
    };
    put().inspect_err(|_| {
        // What stopped the writing is what the user has to hear, not that a rest of it stays.
        let _ = fs::remove_file(part);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_and_nothing_stays_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inner/a");
        write(&path, "old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // A folder cannot be replaced by a file.
        fs::create_dir(folder.path().join("b")).unwrap();
        assert!(write(&folder.path().join("b"), "new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(folder.path().join("inner")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_device_stays_one() {
        write(Path::new("/dev/null"), "text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
