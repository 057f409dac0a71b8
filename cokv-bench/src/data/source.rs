//! What kind of data a `source` names.

use std::path::Path;

/// The `source` of generated data.
pub const SYNTHETIC: &str = "synthetic";

/// Where records come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Nowhere: they are generated.
    Generated,
    /// LongBench's files: an archive, a folder with `data/` or `config/`, a dataset called LongBench.
    LongBench,
    /// Another file or folder, or another dataset of the hub.
    Own,
}

impl SourceKind {
    /// What a source is by its name, and by what lies there.
    pub fn of(source: &str) -> Self {
        let longbench = match source.strip_prefix("hub:") {
            Some(dataset) => {
                let repository = dataset.split(['@', ':']).next().unwrap_or(dataset);
                repository.rsplit('/').next().is_some_and(|name| name.eq_ignore_ascii_case("longbench"))
            }
            None => {
                let path = Path::new(source);
                let is_archive = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
                is_archive || ["config/dataset2prompt.json", "data"].iter().any(|name| path.join(name).exists())
            }
        };
        match longbench {
            _ if source == SYNTHETIC => Self::Generated,
            true => Self::LongBench,
            false => Self::Own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longbench_is_known_by_its_name_and_its_folders() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |name: &str| SourceKind::of(&folder.path().join(name).display().to_string());
        std::fs::create_dir_all(folder.path().join("lb/data")).unwrap();
        std::fs::write(folder.path().join("my.jsonl"), "").unwrap();
        assert_eq!(
            [kind("lb"), kind("data.zip"), kind("my.jsonl"), kind("")],
            [SourceKind::LongBench, SourceKind::LongBench, SourceKind::Own, SourceKind::Own]
        );
        assert_eq!(
            ["hub:THUDM/LongBench", "hub:x/longbench@v1", "hub:THUDM/LongBench-v2", "synthetic"].map(SourceKind::of),
            [SourceKind::LongBench, SourceKind::LongBench, SourceKind::Own, SourceKind::Generated]
        );
    }
}
