//! Files that are whole or absent, whenever the process ends.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use crate::lock::Holder;

/// Writes a file beside its place and puts it there when it is on disk: whoever reads meanwhile sees the old one or the new
/// one. Its folder is made. Several processes, of several machines, may write the same file at the same time. What is no
/// file, such as `/dev/stdout`, is written to as it is.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    put(path, bytes.as_ref(), File::options().write(true).create(true).truncate(true), |_| Ok(()))
}

/// The same for what took long to make and is its owner's alone: it is read back before it takes its place, its folder is on disk
/// too when this returns, and where the system knows owners nobody else may read it.
pub fn write_private(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let bytes = bytes.as_ref();
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    put(path, bytes, &options, |part| same(&mut File::open(part)?, bytes))?;
    #[cfg(unix)]
    if let Some(folder) = path.parent().filter(|_| fs::metadata(path).is_ok_and(|there| there.is_file())) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn put(
    path: &Path,
    bytes: &[u8],
    options: &OpenOptions,
    check: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
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
        let mut file = options.open(part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        check(part)?;
        fs::rename(part, path)
    };
    put().inspect_err(|_| {
        // What stopped the writing is what the user has to hear, not that a rest of it stays.
        let _ = fs::remove_file(part);
    })
}

/// Holds what a file has to what was written to it.
fn same(file: &mut impl Read, mut bytes: &[u8]) -> io::Result<()> {
    let other = || io::Error::new(ErrorKind::InvalidData, "what was written is not what is read back");
    let mut block = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut block)?;
        match bytes.strip_prefix(&block[..read]) {
            Some([]) if read == 0 => return Ok(()),
            Some(rest) if read > 0 => bytes = rest,
            _ => return Err(other()),
        }
    }
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
    fn what_is_private_is_its_owner_s() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("inner/a");
        for text in ["old", "new"] {
            write_private(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(folder.path().join("inner")).unwrap().count(), 1);
        write_private(Path::new("/dev/null"), "text").unwrap();
    }

    #[test]
    fn what_is_read_back_is_compared_to_its_end() {
        let bytes = vec![7; (1 << 20) + 3];
        assert!(same(&mut &bytes[..], &bytes).is_ok() && same(&mut &[][..], &[]).is_ok());
        for other in [&bytes[1..], &[&bytes[..], b"x"].concat(), &vec![8; bytes.len()], &[]] {
            assert!(same(&mut &other[..], &bytes).is_err());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_device_stays_one() {
        write(Path::new("/dev/null"), "text").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
