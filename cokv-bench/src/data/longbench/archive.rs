//! LongBench as its authors distribute it: `data.zip` of the dataset `THUDM/LongBench` on the Hugging Face hub.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use zip::ZipArchive;

use super::DataError;

/// The dataset's repository on the hub.
pub const REPOSITORY: &str = "THUDM/LongBench";

/// The archive in it.
pub const ARCHIVE: &str = "data.zip";

/// Unpacks the archive's JSONL files into `folder/data` and returns how many there are. Files are whole or absent,
/// whenever the process ends.
pub fn unpack(archive: &Path, folder: &Path) -> Result<usize, DataError> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error: io::Error| DataError::Io { path, error, hint: "" }
    };
    let broken = |error: zip::result::ZipError| DataError::File {
        path: archive.display().to_string(),
        message: format!("not a readable archive ({error}); delete it and fetch it again"),
    };
    let data = folder.join("data");
    fs::create_dir_all(&data).map_err(failed(&data))?;
    let mut zip = ZipArchive::new(File::open(archive).map_err(failed(archive))?).map_err(broken)?;
    let mut count = 0;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(broken)?;
        // Only the last part of a name is used, so that no entry can leave the folder.
        let name = entry.enclosed_name().and_then(|path| path.file_name().map(ToOwned::to_owned));
        let Some(name) = name.filter(|name| Path::new(name).extension().is_some_and(|kind| kind == "jsonl")) else {
            continue;
        };
        let target = data.join(&name);
        let part = target.with_extension("jsonl.part");
        let mut out = File::create(&part).map_err(failed(&part))?;
        io::copy(&mut entry, &mut out).and_then(|_| out.sync_all()).map_err(failed(&part))?;
        fs::rename(&part, &target).map_err(failed(&target))?;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    #[test]
    fn only_records_are_unpacked_and_none_leaves_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("data.zip");
        let mut zip = ZipWriter::new(File::create(&archive).unwrap());
        for (name, text) in
            [("data/trec.jsonl", "a"), ("data/lcc_e.jsonl", "b"), ("readme.md", "c"), ("../evil.jsonl", "d")]
        {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let target = folder.path().join("LongBench");
        assert_eq!(unpack(&archive, &target).unwrap(), 2);
        assert_eq!(fs::read_to_string(target.join("data/trec.jsonl")).unwrap(), "a");
        assert!(!folder.path().join("evil.jsonl").exists() && !target.join("evil.jsonl").exists());

        fs::write(&archive, "no archive").unwrap();
        assert!(unpack(&archive, &target).unwrap_err().to_string().contains("fetch it again"));
    }
}
