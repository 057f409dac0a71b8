//! What identifies a model: a hash of all its bytes, which is kept, so that a start does not read all weights a second time.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cokv_core::HeadScores;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::ModelError;
use crate::source::{FetchOptions, ModelFiles};

/// Identifies everything that a model is made of: a hash of all bytes of its weights and of the configuration and tokenizer
/// files beside them.
///
/// It is kept in cokv's cache under the files' names, lengths and times of change, and read from there as long as all of them
/// fit. What is kept and does not fit, or cannot be read, is computed anew.
pub fn fingerprint(files: &ModelFiles) -> Result<String, ModelError> {
    kept_or_computed(&identifying(files)?, &digests())
}

/// The same where it is kept, so that nothing large is read; none where it would have to be computed, or where not all files
/// are there.
pub fn known_fingerprint(files: &ModelFiles) -> Option<String> {
    kept(&identifying(files).ok()?, &digests()).ok()?.1
}

/// Identifies head scores: the SHA-256 of all their numbers.
pub fn scores_fingerprint(scores: &HeadScores) -> String {
    let all = scores.values().iter().chain(scores.query_heads().unwrap_or_default());
    let bytes: Vec<u8> = all.flat_map(|score| score.to_le_bytes()).collect();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where digests are kept.
fn digests() -> PathBuf {
    FetchOptions::from_env().cache.join("digests")
}

/// The files that make a model what it is.
fn identifying(files: &ModelFiles) -> Result<Vec<PathBuf>, ModelError> {
    let mut paths = files.weight_files()?;
    let folder = match files {
        ModelFiles::Gguf(path) => path.parent(),
        ModelFiles::Folder(folder) | ModelFiles::Random(folder) => Some(folder.as_path()),
    };
    if let Some(folder) = folder {
        let beside = [
            "config.json",
            "generation_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "special_tokens_map.json",
            "added_tokens.json",
        ];
        paths.extend(beside.iter().map(|name| folder.join(name)).filter(|path| path.is_file()));
    }
    Ok(paths)
}

/// A digest as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    files: Vec<Stamp>,
    digest: String,
}

/// What tells that a file is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    path: PathBuf,
    bytes: u64,
    /// Since 1970.
    changed_nanoseconds: u128,
}

/// Files that were changed this recently may change again within one tick of the file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

fn kept_or_computed(paths: &[PathBuf], folder: &Path) -> Result<String, ModelError> {
    let (stamps, known) = kept(paths, folder)?;
    if let Some(digest) = known {
        return Ok(digest);
    }
    let digest = computed(paths)?;
    if stamps.iter().all(Stamp::is_settled) {
        // A cache that cannot be written costs time at the next start, and nothing else.
        let _ = keep(&place(paths, folder), &Kept { files: stamps, digest: digest.clone() });
    }
    Ok(digest)
}

/// What the files are like now, and the digest that is kept of them as they are.
fn kept(paths: &[PathBuf], folder: &Path) -> Result<(Vec<Stamp>, Option<String>), ModelError> {
    let stamps = paths.iter().map(|path| Stamp::of(path)).collect::<Result<Vec<_>, _>>()?;
    let kept: Option<Kept> =
        std::fs::read(place(paths, folder)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let digest = kept.filter(|kept| kept.files == stamps).map(|kept| kept.digest);
    Ok((stamps, digest))
}

fn place(paths: &[PathBuf], folder: &Path) -> PathBuf {
    folder.join(format!("{}.json", hex(Sha256::new_with_prefix(format!("{paths:?}")))))
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, ModelError> {
        let metadata = path.metadata().map_err(ModelError::io(path))?;
        let changed = metadata.modified().map_err(ModelError::io(path))?;
        let since = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let path = path.canonicalize().map_err(ModelError::io(path))?;
        Ok(Self { path, bytes: metadata.len(), changed_nanoseconds: since.as_nanos() })
    }

    fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_nanos().saturating_sub(self.changed_nanoseconds) > SETTLED.as_nanos()
    }
}

/// Whole or not at all.
fn keep(file: &Path, kept: &Kept) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension(format!("part{}", std::process::id()));
    std::fs::write(&part, serde_json::to_vec(kept)?)?;
    std::fs::rename(part, file)
}

fn computed(paths: &[PathBuf]) -> Result<String, ModelError> {
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    for path in paths {
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        hash.update(file.metadata().map_err(ModelError::io(path))?.len().to_le_bytes());
        loop {
            match file.read(&mut block).map_err(ModelError::io(path))? {
                0 => break,
                read => hash.update(&block[..read]),
            }
        }
    }
    Ok(hex(hash))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, seconds: u64) {
        std::fs::write(path, text).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn a_digest_is_kept_as_long_as_it_fits() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, weights) = (folder.path().join("cache"), folder.path().join("weights"));
        let paths = [weights.clone()];
        let digest = || kept_or_computed(&paths, &cache).unwrap();
        let known = || kept(&paths, &cache).unwrap().1;
        write(&weights, "abc", 1000);
        assert_eq!(known(), None);
        let first = digest();
        assert_eq!(known().as_ref(), Some(&first));
        assert_eq!(first, computed(&paths).unwrap());
        // Kept: a change that length and time do not show is not seen.
        write(&weights, "abd", 1000);
        assert_eq!(digest(), first);
        write(&weights, "abd", 1001);
        assert_eq!(known(), None, "nothing is computed to know it");
        assert_ne!(digest(), first);
        let second = digest();
        write(&weights, "abcd", 1001);
        assert_ne!(digest(), second);

        // A damaged one, and one that is somebody else's, are computed anew.
        let kept = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        for text in ["not json", "{\"files\":[],\"digest\":\"x\"}"] {
            std::fs::write(&kept, text).unwrap();
            assert_eq!(digest(), computed(&paths).unwrap());
        }
    }

    #[test]
    fn what_may_still_change_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        std::fs::write(&weights, "abc").unwrap();
        kept_or_computed(&[weights], &folder.path().join("cache")).unwrap();
        assert!(!folder.path().join("cache").exists());
    }
}
