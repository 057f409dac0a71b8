//! Whose a run's folder is: the configuration that made it, and no other.

use std::fs;
use std::path::{Path, PathBuf};

use cokv_shapley::whole;
use serde::{Deserialize, Serialize};

use super::folder::{StoreError, io};

/// The file that says so.
const FILE: &str = "origin.json";

/// The configuration of a run, as it was written.
pub const CONFIGURATION: &str = "config.toml";

#[derive(Serialize, Deserialize)]
struct Origin {
    /// The configuration's file, with its folder.
    configuration: PathBuf,
}

/// Takes a run's folder for a configuration, by its file and its text. A file that was changed since is the same
/// configuration, and so is a copy of the text elsewhere, and what lies in the folder itself. Folders of builds that kept no
/// note are anybody's.
///
/// # Errors
/// [`StoreError::Foreign`] where another file has made what lies there.
pub fn claim(folder: &Path, configuration: &Path, text: &str) -> Result<(), StoreError> {
    check(folder, configuration, text)?;
    let path = folder.join(FILE);
    if path.exists() {
        return Ok(());
    }
    let origin = Origin { configuration: absolute(configuration) };
    let text = serde_json::to_string(&origin).map_err(|error| io(&path)(error.into()))?;
    whole::write(&path, text + "\n").map_err(io(&path))
}

/// Refuses a folder of another configuration, and changes nothing.
pub fn check(folder: &Path, configuration: &Path, text: &str) -> Result<(), StoreError> {
    let path = folder.join(FILE);
    let origin: Option<Origin> = fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok());
    let Some(Origin { configuration: origin }) = origin else { return Ok(()) };
    let here = absolute(configuration);
    let same_text = || fs::read_to_string(folder.join(CONFIGURATION)).is_ok_and(|written| written == text);
    if here == origin || here.parent() == Some(&absolute(folder)) || same_text() {
        return Ok(());
    }
    Err(StoreError::Foreign { folder: folder.display().to_string(), origin: origin.display().to_string() })
}

/// A path that does not depend on where the program runs; as it is where nothing lies there.
fn absolute(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a second configuration replaced the tables and deleted the predictions of the first.
    #[test]
    fn a_folder_is_of_one_configuration() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("runs/x");
        fs::create_dir_all(&folder).unwrap();
        let configuration = |name: &str, text: &str| {
            let path = place.path().join(name);
            fs::write(&path, text).unwrap();
            (path, text.to_owned())
        };
        let claimed = |(path, text): &(PathBuf, String)| claim(&folder, path, text).map_err(|error| error.to_string());
        let first = configuration("first.toml", "budgets = [1]");
        claimed(&first).unwrap();
        fs::write(folder.join(CONFIGURATION), &first.1).unwrap();
        let other = configuration("other.toml", "budgets = [2]");
        let error = claimed(&other).unwrap_err();
        assert!(
            error.contains("holds the results of another configuration") && error.contains("first.toml"),
            "{error}"
        );
        claimed(&configuration("copy.toml", "budgets = [1]")).unwrap();
        claimed(&configuration("first.toml", "budgets = [1, 2]")).unwrap();
        claimed(&configuration("runs/x/resolved.toml", "budgets = [1]\nname = 'x'")).unwrap();
    }
}
