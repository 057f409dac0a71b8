//! Models that lie on this machine, and the checks that every fetched model passes.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{ModelFiles, SourceError, integrity};
use crate::architecture::{self, Architecture};

pub(super) const CONFIG: &str = "config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// A leading `~/` means the home folder, as it does in a shell.
pub(super) fn expand_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// Checks the GGUF file or Hugging Face folder at `path`.
pub(super) fn open(path: &Path) -> Result<ModelFiles, SourceError> {
    open_by(path, check_folder)
}

/// The same of a folder that may lack its weights.
pub(super) fn open_outline(path: &Path) -> Result<ModelFiles, SourceError> {
    open_by(path, check_outline)
}

fn open_by(path: &Path, check: impl Fn(&Path) -> Result<(), SourceError>) -> Result<ModelFiles, SourceError> {
    let path = &expand_home(path);
    let metadata = std::fs::metadata(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => SourceError::unusable(
            path,
            "no such file or folder",
            "check the path (a relative one starts at the folder that the program runs in)",
        ),
        _ => SourceError::io("read", path)(cause),
    })?;
    if metadata.is_dir() {
        return check(path).map(|()| ModelFiles::Folder(path.clone()));
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("safetensors") => Err(SourceError::unusable(
            path,
            "safetensors weights alone are no model",
            "name the folder that holds them with config.json and tokenizer.json",
        )),
        _ => integrity::check_gguf(path).map(|()| ModelFiles::Gguf(path.clone())),
    }
}

/// Names of all files below a folder, with slashes between their parts.
pub(super) fn relative_files(folder: &Path) -> Result<Vec<String>, SourceError> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(prefix) = folders.pop() {
        let here = folder.join(&prefix);
        for entry in std::fs::read_dir(&here).map_err(SourceError::io("list", &here))? {
            let entry = entry.map_err(SourceError::io("list", &here))?;
            let Some(name) = entry.file_name().to_str().map(|name| format!("{prefix}{name}")) else { continue };
            // The cache's files are links.
            if entry.path().is_dir() { folders.push(name + "/") } else { files.push(name) }
        }
    }
    files.sort();
    Ok(files)
}

/// Checks that a Hugging Face folder has what a model needs and that no weight file is cut short.
pub(super) fn check_folder(folder: &Path) -> Result<(), SourceError> {
    check_config(folder)?;
    weight_files(folder)?.iter().try_for_each(|weights| integrity::check_safetensors(weights))?;
    check_tokenizer(folder)
}

/// The same where weights may be missing; those that are there are not cut short.
pub(super) fn check_outline(folder: &Path) -> Result<(), SourceError> {
    check_config(folder)?;
    let weights = weight_files(folder).unwrap_or_default();
    weights.iter().try_for_each(|weights| integrity::check_safetensors(weights))?;
    check_tokenizer(folder)
}

fn check_config(folder: &Path) -> Result<(), SourceError> {
    if folder.join(CONFIG).exists() {
        return check_architecture(folder);
    }
    Err(match first_gguf(folder) {
        Some(file) => SourceError::unusable(
            folder,
            "the folder has no config.json",
            format!("for the GGUF file in it, write path:{}", file.display()),
        ),
        None => SourceError::unusable(
            folder,
            "the folder has no config.json",
            "name a folder in the Hugging Face layout (config.json, tokenizer.json, model.safetensors) or a .gguf file",
        ),
    })
}

fn check_tokenizer(folder: &Path) -> Result<(), SourceError> {
    if folder.join(TOKENIZER).exists() {
        return Ok(());
    }
    Err(SourceError::unusable(
        folder,
        "the folder has no tokenizer.json",
        "copy it from the model's repository, or write it with the Python `transformers`: \
         AutoTokenizer.from_pretrained(…).save_pretrained(…)",
    ))
}

/// Refuses a model that the decoder does not know before anybody fetches its weights. A config.json that does not say is
/// refused when it is read.
pub(super) fn check_architecture(folder: &Path) -> Result<(), SourceError> {
    let path = folder.join(CONFIG);
    let text = std::fs::read_to_string(&path).map_err(SourceError::io("read", &path))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        SourceError::unusable(&path, format!("this is no valid JSON ({error})"), "download it again")
    })?;
    match json["model_type"].as_str().filter(|name| Architecture::of_model_type(name).is_none()) {
        Some(name) => {
            Err(SourceError::unusable(&path, format!("architecture `{name}` is not implemented"), architecture::KNOWN))
        }
        None => Ok(()),
    }
}

/// The safetensors files of a Hugging Face folder, all of which exist.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let single = folder.join(WEIGHTS);
    if single.exists() {
        return Ok(vec![single]);
    }
    let index = folder.join(WEIGHTS_INDEX);
    if !index.exists() {
        let advice = if folder.join("pytorch_model.bin").exists() {
            "only PyTorch weights are there; convert them with the Python `transformers`: \
             AutoModelForCausalLM.from_pretrained(…).save_pretrained(…)"
        } else {
            "copy model.safetensors, or model.safetensors.index.json with all its shards, into it"
        };
        return Err(SourceError::unusable(folder, "the folder has no safetensors weights", advice));
    }
    let shards: Vec<PathBuf> = shard_names(&index)?.iter().map(|name| folder.join(name)).collect();
    match shards.iter().find(|shard| !shard.exists()) {
        None => Ok(shards),
        Some(missing) => Err(SourceError::unusable(
            missing,
            format!("this shard is listed in {WEIGHTS_INDEX} but missing"),
            "copy or download it into the folder",
        )),
    }
}

/// The names of the shards that an index file lists, each once, in order.
pub(super) fn shard_names(index: &Path) -> Result<BTreeSet<String>, SourceError> {
    let text = std::fs::read_to_string(index).map_err(SourceError::io("read", index))?;
    let damaged = |problem: String| SourceError::unusable(index, problem, "download it again");
    let json: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| damaged(format!("this is no valid JSON ({error})")))?;
    let weight_map = json
        .get("weight_map")
        .and_then(|map| map.as_object())
        .filter(|map| !map.is_empty())
        .ok_or_else(|| damaged("it has no `weight_map` that names the shards".to_owned()))?;
    weight_map
        .iter()
        .map(|(tensor, shard)| match shard.as_str() {
            // An index comes from a stranger: it must not point outside of its folder.
            Some(name) if is_plain_relative(name) => Ok(name.to_owned()),
            _ => Err(damaged(format!("`{tensor}` is mapped to {shard}, which is no file name"))),
        })
        .collect()
}

/// Whether `path` is relative, not empty, and stays below the folder that it starts from.
pub(super) fn is_plain_relative(path: &str) -> bool {
    !path.is_empty()
        && !path.ends_with('/')
        && !path.contains(['\\', ':'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn first_gguf(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .min()
}

#[cfg(test)]
mod tests {
    use super::super::integrity::samples;
    use super::*;
    use std::fs;

    fn problem(path: &Path) -> String {
        open(path).unwrap_err().to_string()
    }

    fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    #[test]
    fn a_whole_folder_and_a_whole_gguf_file_are_accepted() {
        let folder = folder_with(&[
            (CONFIG, b"{}"),
            (TOKENIZER, b"{}"),
            (WEIGHTS, &samples::safetensors()),
            ("tiny.gguf", &samples::gguf()),
        ]);
        let files = open(folder.path()).unwrap();
        assert_eq!(files, ModelFiles::Folder(folder.path().to_owned()));
        assert_eq!(files.weight_files().unwrap(), [folder.path().join(WEIGHTS)]);
        let gguf = folder.path().join("tiny.gguf");
        assert_eq!(open(&gguf).unwrap(), ModelFiles::Gguf(gguf));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(problem(Path::new("/no/such/model")).contains("/no/such/model: no such file or folder"));

        let folder = folder_with(&[("x.gguf", b"GGUF")]);
        assert!(problem(folder.path()).contains(&format!("path:{}", folder.path().join("x.gguf").display())));

        let folder = folder_with(&[(CONFIG, b"{}"), ("pytorch_model.bin", b"")]);
        assert!(problem(folder.path()).contains("convert them"));

        let folder = folder_with(&[(CONFIG, b"{}"), (WEIGHTS, &samples::safetensors())]);
        assert!(problem(folder.path()).contains("no tokenizer.json"));
    }

    #[test]
    fn an_unknown_architecture_is_named_before_its_weights_are_asked_for() {
        let folder = folder_with(&[(CONFIG, br#"{"model_type": "gpt2"}"#)]);
        let message = problem(folder.path());
        assert!(message.contains("config.json: architecture `gpt2` is not implemented"), "{message}");
        assert!(message.contains("llama"), "{message}");
        fs::write(folder.path().join(CONFIG), r#"{"model_type": "llama"}"#).unwrap();
        assert!(problem(folder.path()).contains("no safetensors weights"));
        fs::write(folder.path().join(CONFIG), r#"{"model_type": "#).unwrap();
        assert!(problem(folder.path()).contains("config.json: this is no valid JSON"));
    }

    #[test]
    fn missing_and_hostile_shards_are_refused() {
        let index =
            br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
        let folder = folder_with(&[
            (CONFIG, b"{}"),
            (TOKENIZER, b"{}"),
            (WEIGHTS_INDEX, index),
            ("model-1.safetensors", &samples::safetensors()),
        ]);
        assert!(problem(folder.path()).contains("model-2.safetensors: this shard is listed"));

        fs::write(folder.path().join("model-2.safetensors"), samples::safetensors()).unwrap();
        assert_eq!(open(folder.path()).unwrap().weight_files().unwrap().len(), 2);

        fs::write(folder.path().join(WEIGHTS_INDEX), r#"{"weight_map": {"a": "../elsewhere"}}"#).unwrap();
        assert!(problem(folder.path()).contains("which is no file name"));
    }

    #[test]
    fn a_cut_weight_file_is_refused_by_name() {
        let mut bytes = samples::safetensors();
        bytes.pop();
        let folder = folder_with(&[(CONFIG, b"{}"), (TOKENIZER, b"{}"), (WEIGHTS, &bytes)]);
        let message = problem(folder.path());
        assert!(message.contains(WEIGHTS) && message.contains("incomplete"), "{message}");
    }
}
