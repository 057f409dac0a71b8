//! LongBench as its authors distribute it: `data.zip` of the dataset `THUDM/LongBench` on the Hugging Face hub.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use cokv_shapley::whole;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::data::DataError;

/// A ZIP archive whose files are known by the last part of their names.
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

    /// The full name of the file with this last part.
    pub fn find(&self, file_name: &str) -> Option<&str> {
        let mut entries = self.entries.iter().map(String::as_str);
        entries.find(|entry| last_part(entry) == file_name)
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
        for entry in self.entries.iter().filter(|entry| entry.ends_with(".jsonl")) {
            // Only the last part of a name is used, so that no entry can leave the folder.
            let path = folder.join(last_part(entry));
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

fn last_part(entry: &str) -> &str {
    entry.rsplit(['/', '\\']).next().unwrap_or(entry)
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| broken(path, error))
}

fn broken(path: &Path, error: ZipError) -> DataError {
    file_error(path, &format!("not a readable archive ({error}); delete it and fetch it again"))
}

fn damaged(path: &Path, entry: &str, error: io::Error) -> DataError {
    file_error(path, &format!("`{entry}` in it is damaged ({error}); delete the archive and fetch it again"))
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
            assert!(error.contains("data.zip: ") && error.contains("fetch it again"), "{error}");
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
}
