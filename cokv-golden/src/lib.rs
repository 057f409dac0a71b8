//! Published data that tests need and that are too large for the repository, or are not ours to copy into it.
//!
//! `cargo xtask fetch --golden` puts the files that `SHA256SUMS` lists into [`folder`]; a test asks [`find`] for them.
//! A test that cannot run says so by [`skip`], so that `cargo xtask test` can count them.

use std::io::Write;
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The file that lines of skipped tests are added to, where this variable names one.
pub const SKIPPED: &str = "COKV_SKIPPED";

/// A digest and a name in each line, as `sha256sum` writes them.
const SUMS: &str = include_str!("../SHA256SUMS");

/// Where fetched files lie: `golden` in cokv's cache (`FetchOptions::from_env` of cokv-models).
pub fn folder() -> PathBuf {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user_cache = || path("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
    let cache = path("COKV_CACHE").or_else(|| user_cache().map(|cache| cache.join("cokv")));
    cache.unwrap_or_else(|| env::temp_dir().join("cokv")).join("golden")
}

/// The folder beside the project that developers may have all of it in.
pub fn beside_the_project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared")
}

/// A published file or folder by its name in `SHA256SUMS`; where it is not here, the test is [skipped](skip).
#[track_caller]
pub fn find(name: &str) -> Option<PathBuf> {
    let found = [folder(), beside_the_project()].map(|folder| folder.join(name)).into_iter().find(|path| path.exists());
    if found.is_none() {
        skip(&format!("{name} is not here: cargo xtask fetch --golden"));
    }
    found
}

/// Says that the test which calls this cannot run, in the one form that `cargo xtask test` counts.
#[track_caller]
pub fn skip(reason: &str) {
    let place = Location::caller().to_string();
    // With one thread for all tests, that is the main one.
    let this = thread::current();
    let test = this.name().filter(|name| *name != "main").unwrap_or(&place);
    let line = format!("skipped: {test} ({reason})\n");
    print!("{line}");
    if let Some(file) = env::var_os(SKIPPED) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(file).expect("the file of skipped tests");
        file.write_all(line.as_bytes()).expect("the file of skipped tests");
    }
}

/// Copies what `SHA256SUMS` lists out of a folder into another, unless it is there. Every file is held against its digest
/// before it is written; the first that is missing or differs ends it.
pub fn fetch(from: &Path, into: &Path) -> Result<()> {
    for (digest, name) in SUMS.lines().filter_map(|line| line.split_once("  ")) {
        let target = into.join(name);
        if fs::read(&target).is_ok_and(|bytes| digest_of(&bytes) == digest) {
            continue;
        }
        let source = from.join(name);
        let bytes = fs::read(&source).with_context(|| {
            format!("{}: no such published file; cokv-golden/README.md says where it comes from", source.display())
        })?;
        let found = digest_of(&bytes);
        if found != digest {
            bail!("{}: its SHA-256 is {found}, not {digest}: another version of the file", source.display());
        }
        let folder = target.parent().unwrap_or(into);
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        // Written whole under another name, so that a test never meets a half.
        let partial = target.with_extension("partial");
        fs::write(&partial, bytes).with_context(|| partial.display().to_string())?;
        fs::rename(&partial, &target).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

fn digest_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_digest_is_refused() {
        let [from, into] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let missing = fetch(from.path(), into.path()).unwrap_err().to_string();
        assert!(missing.contains("no such published file"), "{missing}");
        let first = SUMS.lines().next().unwrap().split_once("  ").unwrap().1;
        let path = from.path().join(first);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "another").unwrap();
        let other = fetch(from.path(), into.path()).unwrap_err().to_string();
        assert!(other.contains("another version of the file"), "{other}");
        assert!(!into.path().join(first).exists());
    }

    #[test]
    fn published_files_are_fetched_once() {
        let Some(golden) = find("golden") else { return };
        let into = tempfile::tempdir().unwrap();
        fetch(golden.parent().unwrap(), into.path()).unwrap();
        let nothing = tempfile::tempdir().unwrap();
        fetch(nothing.path(), into.path()).expect("everything is there already");
    }
}
