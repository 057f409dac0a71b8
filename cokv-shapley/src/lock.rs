//! Who may write: one process, or several that share the work.
//!
//! The system's own lock (`flock`) goes with its process, however that ends. Some file systems of clusters have none; then
//! a file beside the one that is locked says who holds it. A dead process of the same machine is found out; one of
//! another machine has to be by people, whom the message tells what to remove.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use thiserror::Error;

/// Against whom a lock holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Against everybody.
    Exclusive,
    /// Against those who want it for themselves.
    Shared,
}

/// How a lock is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// The system's, or a file where the file system has no locks.
    Best,
    /// A file, whatever the system can do.
    File,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name of the machine.
    pub host: String,
    /// Id of the process.
    pub process: u32,
}

/// Why a file is not ours to write.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is locked: another process is writing to it", .0.display())]
    Held(PathBuf),
    /// Another process has said so in a file.
    #[error(
        "{} is locked: process {} of {} is writing to it; if there is no such process any more, remove {}",
        path.display(), holder.process, holder.host, mark.display()
    )]
    Marked {
        /// What is locked.
        path: PathBuf,
        /// By whom.
        holder: Holder,
        /// The file that says so.
        mark: PathBuf,
    },
    /// The file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl LockError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |error| Self::Io { path, error }
    }
}

/// A file that is ours until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    /// Where the system has no locks.
    _mark: Option<Mark>,
}

/// Times that a lock is asked for before it counts as held by another.
const HELD_FOR_A_MOMENT: usize = 10;

impl Lock {
    /// Opens or makes a file, and its folder, and locks it, or says who has it.
    pub fn take(path: &Path, mode: Mode, means: Means) -> Result<Self, LockError> {
        let file = open(path)?;
        let ask = || match mode {
            _ if means == Means::File => Err(TryLockError::Error(ErrorKind::Unsupported.into())),
            Mode::Exclusive => file.try_lock(),
            Mode::Shared => file.try_lock_shared(),
        };
        let mut system = ask();
        // A process that another thread is just starting holds all files of this one until it runs.
        for _ in 0..HELD_FOR_A_MOMENT {
            if !matches!(system, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
            system = ask();
        }
        match system {
            Ok(()) => Ok(Self { file, _mark: None }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path.into())),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => {
                Ok(Self { file, _mark: Some(Mark::set(path, mode)?) })
            }
            Err(TryLockError::Error(error)) => Err(LockError::io(path)(error)),
        }
    }

    /// As [`take`](Self::take) for ourselves alone, but waits for whoever has it.
    pub fn wait(path: &Path, means: Means) -> Result<Self, LockError> {
        loop {
            match Self::take(path, Mode::Exclusive, means) {
                Err(LockError::Held(_)) => {
                    let file = open(path)?;
                    file.lock().map_err(LockError::io(path))?;
                    return Ok(Self { file, _mark: None });
                }
                Err(LockError::Marked { .. }) => thread::sleep(Duration::from_millis(200)),
                taken => return taken,
            }
        }
    }

    /// The file that is locked, open for reading and writing.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

fn open(path: &Path) -> Result<File, LockError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(LockError::io(folder))?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(LockError::io(path))
}

/// Whether a file system says that it cannot lock, rather than that it failed to.
fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    let by_number = {
        use rustix::io::Errno;
        let number = error.raw_os_error().map(Errno::from_raw_os_error);
        number.is_some_and(|number| [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOTSUP, Errno::NOSYS].contains(&number))
    };
    #[cfg(not(unix))]
    let by_number = false;
    by_number || error.kind() == ErrorKind::Unsupported
}

/// A file that says who holds another, removed when it is dropped: `NAME.held`, or `NAME.shared-HOST-PROCESS-NUMBER` of each
/// who shares it. Everybody first sets a mark and then looks for those that exclude it, so that of two who come at the
/// same time both may be refused, but never both be let in.
#[derive(Debug)]
struct Mark(PathBuf);

impl Mark {
    fn set(path: &Path, mode: Mode) -> Result<Self, LockError> {
        let alone = beside(path, ".held");
        match mode {
            Mode::Exclusive => {
                let mark = Self::create(path, alone)?;
                let shared = beside(path, ".shared-").file_name().unwrap_or_default().to_owned();
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                for entry in fs::read_dir(folder).map_err(LockError::io(folder))? {
                    let other = entry.map_err(LockError::io(folder))?.path();
                    let name = other.file_name().unwrap_or_default();
                    if name.as_encoded_bytes().starts_with(shared.as_encoded_bytes()) {
                        refuse_living(path, &other)?;
                    }
                }
                Ok(mark)
            }
            Mode::Shared => {
                let Holder { host, process } = Holder::this();
                // A process may share a lock with itself.
                let free = |number: &u32| beside(path, &format!(".shared-{host}-{process}-{number}"));
                let own = (0..).map(|number| free(&number)).find(|own| !own.exists()).unwrap_or_default();
                let mark = Self::create(path, own)?;
                refuse_living(path, &alone)?;
                Ok(mark)
            }
        }
    }

    /// Makes the file, in the place of a dead process's.
    fn create(path: &Path, mark: PathBuf) -> Result<Self, LockError> {
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&mark) {
                Ok(mut file) => {
                    let made = Self(mark);
                    let written = write!(file, "{}", Holder::this()).and_then(|()| file.sync_all());
                    return written.map(|()| made).map_err(LockError::io(path));
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => refuse_living(path, &mark)?,
                Err(error) => return Err(LockError::io(&mark)(error)),
            }
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // One that stays is found to be a dead process's.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes the mark of a dead process, and refuses where the mark is a living one's.
fn refuse_living(path: &Path, mark: &Path) -> Result<(), LockError> {
    let read = || Some(Holder::parse(&fs::read_to_string(mark).ok()?));
    let Some(holder) = read() else { return Ok(()) };
    let marked = |holder: Option<Holder>| {
        // A mark that is being written has no name in it yet.
        let holder = holder.unwrap_or(Holder { host: "an unknown machine".into(), process: 0 });
        Err(LockError::Marked { path: path.into(), holder, mark: mark.into() })
    };
    match holder {
        Some(holder) if !holder.is_alive() => {
            // Another process may have come first, and the mark be its own by now.
            let aside = beside(mark, &format!(".{}", std::process::id()));
            if fs::rename(mark, &aside).is_err() {
                return Ok(());
            }
            let moved = fs::read_to_string(&aside).ok().and_then(|text| Holder::parse(&text));
            if moved.as_ref() == Some(&holder) {
                let _ = fs::remove_file(&aside);
                return Ok(());
            }
            let _ = fs::rename(&aside, mark);
            marked(moved)
        }
        other => marked(other),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Holder {
    /// This process.
    pub fn this() -> Self {
        #[cfg(unix)]
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        #[cfg(not(unix))]
        let host = std::env::var("COMPUTERNAME").unwrap_or_default();
        Self { host: host.replace(['/', '\\', ' '], "-"), process: std::process::id() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, process) = text.split_once(' ')?;
        Some(Self { host: host.into(), process: process.parse().ok()? })
    }

    /// Whether there may be such a process: of another machine nobody can tell.
    fn is_alive(&self) -> bool {
        #[cfg(unix)]
        if self.host == Self::this().host {
            let process = i32::try_from(self.process).ok().and_then(rustix::process::Pid::from_raw);
            // Of another user's process the system says that it may not be asked.
            return process.is_some_and(|process| {
                !matches!(rustix::process::test_kill_process(process), Err(rustix::io::Errno::SRCH))
            });
        }
        true
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.host, self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As by a process that a thread beside starts: until it runs, it holds copies of all files.
    #[test]
    fn what_is_held_for_a_moment_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let first = Lock::take(&path, Mode::Exclusive, Means::Best).unwrap();
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take(&path, Mode::Exclusive, Means::Best));
            thread::sleep(Duration::from_millis(2));
            drop(first);
            assert!(second.join().unwrap().is_ok());
        });
    }

    #[test]
    fn one_writes_or_several_share_by_either_means() {
        for means in [Means::Best, Means::File] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("new/lock");
            let take = |mode| Lock::take(&path, mode, means);
            let alone = take(Mode::Exclusive).unwrap();
            for mode in [Mode::Exclusive, Mode::Shared] {
                let refused = take(mode).unwrap_err().to_string();
                assert!(refused.contains("lock is locked: "), "{refused}");
            }
            drop(alone);
            let both = (take(Mode::Shared).unwrap(), take(Mode::Shared).unwrap());
            assert!(take(Mode::Exclusive).is_err());
            drop(both);
            drop(take(Mode::Exclusive).unwrap());
            let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().flatten().collect();
            assert_eq!(left.len(), 1, "{means:?}: no mark stays behind: {left:?}");
        }
    }

    #[test]
    fn what_is_in_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "text").unwrap();
        for means in [Means::Best, Means::File] {
            drop(Lock::take(&path, Mode::Exclusive, means).unwrap());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }

    #[test]
    fn whoever_waits_gets_it_next() {
        for means in [Means::Best, Means::File] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("lock");
            let first = Lock::wait(&path, means).unwrap();
            thread::scope(|scope| {
                let second = scope.spawn(|| Lock::wait(&path, means).map(drop));
                thread::sleep(Duration::from_millis(50));
                assert!(!second.is_finished());
                drop(first);
                assert!(second.join().unwrap().is_ok());
            });
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_dead_process_of_this_machine_holds_nothing() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = Holder { process: child.id(), ..Holder::this() };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        for name in ["lock.held", "lock.shared-x-1-0"] {
            fs::write(folder.path().join(name), dead.to_string()).unwrap();
        }
        let lock = Lock::take(&path, Mode::Exclusive, Means::File).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("lock.held")).unwrap(), Holder::this().to_string());
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_process_of_another_machine_is_named_with_what_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(folder.path().join("lock.held"), "node7 4242").unwrap();
        for mode in [Mode::Exclusive, Mode::Shared] {
            let refused = Lock::take(&path, mode, Means::File).unwrap_err().to_string();
            assert!(refused.contains("process 4242 of node7 is writing to it"), "{refused}");
            assert!(refused.ends_with("remove ") || refused.ends_with("lock.held"), "{refused}");
        }
        assert!(Lock::take(&path, Mode::Exclusive, Means::Best).is_ok(), "the system's locks need no marks");
    }

    #[cfg(unix)]
    #[test]
    fn file_systems_without_locks_are_told_from_failures() {
        let error = |number: rustix::io::Errno| io::Error::from_raw_os_error(number.raw_os_error());
        assert!(has_no_locks(&error(rustix::io::Errno::NOLCK)) && has_no_locks(&error(rustix::io::Errno::OPNOTSUPP)));
        assert!(has_no_locks(&ErrorKind::Unsupported.into()) && !has_no_locks(&error(rustix::io::Errno::IO)));
    }
}
