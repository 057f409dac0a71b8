//! LongBench as its authors distribute it: `data.zip` of the dataset `THUDM/LongBench` on the Hugging Face hub.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use cokv_shapley::whole;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::data::DataError;

/// A ZIP archive whose files are known by their names within LongBench, in whatever folder they lie.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    entries: Vec<String>,
}

impl Archive {
    /// Reads the list of files.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let zip = open(path)?;
        let entries = zip.file_names().map(|name| name.map(Cow::into_owned)).collect::<Result<_, _>>();
        Ok(Self { path: path.to_owned(), entries: entries.map_err(|error| broken(path, error))? })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The full name of the file that is meant by a name such as `data/trec.jsonl`: the one whose last parts are most alike, and
    /// of those the one in fewer folders.
    pub fn find(&self, name: &str) -> Option<&str> {
        let candidates = self.entries.iter().filter(|entry| parts(entry).next() == parts(name).next());
        let order = |entry: &&String| (common_parts(entry, name), std::cmp::Reverse(parts(entry).count()));
        candidates.max_by_key(order).map(String::as_str)
    }

    /// Refuses a name that [`find`](Self::find) could take for two entries alike.
    pub fn check_unique(&self, name: &str) -> Result<(), DataError> {
        let rank = |entry: &str| (common_parts(entry, name), parts(entry).count());
        let Some(found) = self.find(name) else { return Ok(()) };
        let alike = |entry: &&String| entry.as_str() != found && rank(entry) == rank(found);
        match self.entries.iter().find(alike) {
            None => Ok(()),
            Some(other) => {
                let message = format!("both `{found}` and `{other}` may be meant by `{name}`; leave one of them out");
                Err(file_error(&self.path, &message))
            }
        }
    }

    /// The text of an entry. It is checked against the archive's checksum.
    pub fn read(&self, entry: &str) -> Result<String, DataError> {
        let mut zip = open(&self.path)?;
        let mut text = String::new();
        let mut file = zip.by_name(entry).map_err(|error| broken(&self.path, error))?;
        file.read_to_string(&mut text).map_err(|error| damaged(&self.path, entry, error))?;
        Ok(text)
    }

    /// Unpacks the JSONL files into `folder` and returns how many there are. Files are whole or absent, whenever
    /// the process ends.
    pub fn unpack(&self, folder: &Path) -> Result<usize, DataError> {
        let mut count = 0;
        let files: BTreeSet<&str> = self.entries.iter().filter_map(|entry| parts(entry).next()).collect();
        for file in files.into_iter().filter(|file| file.ends_with(".jsonl") && !file.starts_with("._")) {
            // Only the last part of a name is used, so that no entry can leave the folder.
            let (path, entry) = (folder.join(file), self.find(&format!("data/{file}")).unwrap_or(file));
            whole::write(&path, self.read(entry)?).map_err(DataError::io(&path))?;
            count += 1;
        }
        if count == 0 {
            let message = "there is no .jsonl file in it; LongBench's data.zip holds data/<task>.jsonl";
            return Err(file_error(&self.path, message));
        }
        Ok(count)
    }
}

/// The parts of a name, the last first.
fn parts(entry: &str) -> impl Iterator<Item = &str> {
    entry.rsplit(['/', '\\'])
}

/// How many of their last parts two names share.
fn common_parts(entry: &str, name: &str) -> usize {
    parts(entry).zip(parts(name)).take_while(|(one, other)| one == other).count()
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| broken(path, error))
}

fn broken(path: &Path, error: ZipError) -> DataError {
    file_error(path, &format!("not a readable archive ({error}); LongBench's data.zip is meant, whole"))
}

fn damaged(path: &Path, entry: &str, error: io::Error) -> DataError {
    file_error(path, &format!("`{entry}` in it is damaged ({error}); LongBench's data.zip is meant, whole"))
}

fn file_error(path: &Path, message: &str) -> DataError {
    DataError::File { path: path.display().to_string(), message: message.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::{Cursor, Write};

    use zip::write::SimpleFileOptions;
    use zip::{CompressionMethod, ZipWriter};

    use super::*;

    /// The bytes of an archive, stored as they are so that a test can damage them.
    pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, text) in files {
            zip.start_file(*name, options).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    /// The archive with the first occurrence of a letter sequence changed in it.
    pub fn damage(mut bytes: Vec<u8>, text: &str) -> Vec<u8> {
        let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        bytes[at] ^= 1;
        bytes
    }

    #[test]
    fn only_records_are_unpacked_and_none_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.zip");
        let files = [("data/trec.jsonl", "a"), ("data/lcc_e.jsonl", "b"), ("readme.md", "c"), ("../evil.jsonl", "d")];
        fs::write(&path, archive(&files)).unwrap();
        let target = folder.path().join("LongBench/data");
        assert_eq!(Archive::open(&path).unwrap().unpack(&target).unwrap(), 3);
        assert_eq!(fs::read_to_string(target.join("trec.jsonl")).unwrap(), "a");
        assert!(!folder.path().join("LongBench/evil.jsonl").exists() && target.join("evil.jsonl").exists());
    }

    #[test]
    fn a_broken_archive_is_named_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.zip");
        let whole = archive(&[("data/trec.jsonl", "sixteen letters.")]);
        for broken in [b"no archive".to_vec(), whole[..whole.len() - 10].to_vec(), Vec::new()] {
            fs::write(&path, broken).unwrap();
            let error = Archive::open(&path).unwrap_err().to_string();
            assert!(error.contains("data.zip: ") && error.contains("LongBench's data.zip is meant"), "{error}");
        }
        fs::write(&path, damage(whole, "letters")).unwrap();
        let archive = Archive::open(&path).unwrap();
        for error in
            [archive.read("data/trec.jsonl").unwrap_err(), archive.unpack(&folder.path().join("data")).unwrap_err()]
        {
            assert!(error.to_string().contains("`data/trec.jsonl` in it is damaged"), "{error}");
        }
        assert!(!folder.path().join("data").exists());
    }

    /// Regression: the first of several entries with the same last part was read, whatever its folder.
    #[test]
    fn the_file_that_longbench_names_is_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data.zip");
        let open = |files: &[(&str, &str)]| {
            fs::write(&path, archive(files)).unwrap();
            Archive::open(&path).unwrap()
        };
        let files = [
            ("backup/qasper.jsonl", "old"),
            ("LongBench/data/qasper.jsonl", "new"),
            ("__MACOSX/data/._qasper.jsonl", "x"),
        ];
        let both = open(&files);
        assert_eq!(both.find("data/qasper.jsonl"), Some("LongBench/data/qasper.jsonl"));
        let target = folder.path().join("unpacked");
        assert_eq!(both.unpack(&target).unwrap(), 1);
        assert_eq!(fs::read_to_string(target.join("qasper.jsonl")).unwrap(), "new");
        assert_eq!(open(&[("qasper.jsonl", "flat")]).find("data/qasper.jsonl"), Some("qasper.jsonl"));
        let unclear = open(&[("a/qasper.jsonl", "1"), ("b/qasper.jsonl", "2")]);
        let error = unclear.check_unique("data/qasper.jsonl").unwrap_err().to_string();
        assert!(error.contains("may be meant by"), "{error}");
    }
}
