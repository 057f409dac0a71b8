//! Safetensors: a JSON header and raw tensors, in one file or in shards.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use serde::Deserialize;

use super::Stored;
use super::buffer::Buffers;
use crate::error::ModelError;

/// The tensors of one or several safetensors files.
pub struct Safetensors {
    files: Vec<PathBuf>,
    tensors: HashMap<String, Entry>,
    buffers: Buffers,
}

struct Entry {
    file: usize,
    dtype: String,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

impl Entry {
    /// None for what is not read.
    fn kind(&self) -> Option<GgmlDType> {
        match self.dtype.as_str() {
            "F32" => Some(GgmlDType::F32),
            "F16" => Some(GgmlDType::F16),
            "BF16" => Some(GgmlDType::BF16),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Larger headers than this are damage, not models.
const LARGEST_HEADER: u64 = 100 << 20;

/// What the names of all tensors but the output layer's begin with.
const BASE: &str = "model.";

impl Safetensors {
    /// Reads the headers of all files and checks that no tensor lies beyond the end of its file.
    pub fn open(files: Vec<PathBuf>) -> Result<Self, ModelError> {
        let mut tensors = HashMap::new();
        for (index, path) in files.iter().enumerate() {
            let mut file = File::open(path).map_err(ModelError::io(path))?;
            let length = file.metadata().map_err(ModelError::io(path))?.len();
            let mut size = [0; 8];
            file.read_exact(&mut size).map_err(ModelError::io(path))?;
            let size = u64::from_le_bytes(size);
            if size > LARGEST_HEADER.min(length.saturating_sub(8)) {
                return Err(ModelError::malformed(path, "not a safetensors file, or truncated; fetch it again"));
            }
            let mut header = vec![0; size as usize];
            file.read_exact(&mut header).map_err(ModelError::io(path))?;
            let header: HashMap<String, serde_json::Value> =
                serde_json::from_slice(&header).map_err(|error| ModelError::malformed(path, error))?;
            let mut places = Vec::new();
            for (name, entry) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
                let wrong =
                    |error: &dyn std::fmt::Display| ModelError::malformed(path, format!("tensor `{name}`: {error}"));
                let entry: HeaderEntry = serde_json::from_value(entry).map_err(|error| wrong(&error))?;
                let (start, end) = entry.data_offsets;
                if end < start || (8 + size).saturating_add(end) > length {
                    return Err(wrong(&"ends beyond the file, which is truncated; fetch it again"));
                }
                let entry = Entry {
                    file: index,
                    dtype: entry.dtype,
                    shape: entry.shape,
                    start: 8 + size + start,
                    bytes: (end - start) as usize,
                };
                places.push((start, end, name.clone()));
                if tensors.insert(name.clone(), entry).is_some() {
                    return Err(wrong(&"it is in an earlier file too; keep the files of one model in the folder"));
                }
            }
            check_places(path, places)?;
        }
        // Saved from the model without its output layer, as transformers reads it too.
        if tensors.contains_key("embed_tokens.weight") && !tensors.keys().any(|name| name.starts_with(BASE)) {
            let with_base = |name: String| if name.starts_with("lm_head.") { name } else { format!("{BASE}{name}") };
            tensors = tensors.into_iter().map(|(name, entry)| (with_base(name), entry)).collect();
        }
        Ok(Self { files, tensors, buffers: Buffers::default() })
    }

    /// Names of all tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Says that a tensor is missing, and where it is under the name of something around the model.
    pub(super) fn missing(&self, name: &str) -> ModelError {
        let path = self.path_of(name);
        match self.names().find(|other| other.ends_with(&format!(".{name}"))) {
            Some(other) => ModelError::malformed(
                path,
                format!(
                    "tensor `{name}` is there as `{other}`: the model was saved with a wrapper; save what it wraps"
                ),
            ),
            None => ModelError::missing_tensor(path, name),
        }
    }

    /// Whether any file has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// What a tensor's numbers are.
    pub(super) fn kind(&self, name: &str) -> Option<GgmlDType> {
        self.tensors.get(name)?.kind()
    }

    /// A tensor as it is stored.
    pub(super) fn stored(&self, name: &str) -> Result<Stored, ModelError> {
        let path = self.path_of(name);
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        let kind = entry.kind().ok_or_else(|| {
            let message = format!("tensor `{name}` is stored as {} (known: F32, F16, BF16)", entry.dtype);
            ModelError::unsupported(path, message)
        })?;
        let bytes = entry.shape.iter().try_fold(kind.type_size(), |bytes, &size| bytes.checked_mul(size));
        if bytes != Some(entry.bytes) {
            return Err(ModelError::malformed(
                path,
                format!("tensor `{name}` has {} bytes, not those of its shape", entry.bytes),
            ));
        }
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        file.seek(SeekFrom::Start(entry.start)).map_err(ModelError::io(path))?;
        let bytes = self.buffers.read(&mut file, entry.bytes).map_err(ModelError::io(path))?;
        Ok(Stored::new(&entry.shape, kind, bytes))
    }

    /// The file that holds a tensor, or the first one.
    pub fn path_of(&self, name: &str) -> &Path {
        let file = self.tensors.get(name).map_or(0, |entry| entry.file);
        self.files.get(file).map_or(Path::new("safetensors"), PathBuf::as_path)
    }
}

/// The format has tensors one behind another: without this, a name that a header has twice, or a tensor on the bytes of
/// another, would pass.
fn check_places(path: &Path, mut places: Vec<(u64, u64, String)>) -> Result<(), ModelError> {
    places.sort_unstable();
    let mut expected = 0;
    for (start, end, name) in places {
        if start != expected {
            let message = format!(
                "tensor `{name}` begins at byte {start} of the tensors, where byte {expected} comes next: tensors overlap, are \
                 named twice or leave a hole, so that the file is damaged; fetch it again"
            );
            return Err(ModelError::malformed(path, message));
        }
        expected = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(header: &str, bytes: usize) -> Result<Safetensors, ModelError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        std::fs::write(&path, file(header, bytes)).unwrap();
        Safetensors::open(vec![path])
    }

    fn file(header: &str, bytes: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![1; bytes]].concat()
    }

    fn entry(name: &str, start: usize, end: usize) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":[{}],"data_offsets":[{start},{end}]}}"#, (end - start) / 4)
    }

    fn problem(entries: &[String], bytes: usize) -> String {
        open(&format!("{{{}}}", entries.join(",")), bytes).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn tensors_lie_one_behind_another() {
        let metadata = r#""__metadata__":{"format":"pt"}"#.to_owned();
        assert_eq!(problem(&[metadata, entry("b", 4, 12), entry("a", 0, 4)], 12), "");
        assert_eq!(problem(&[entry("a", 0, 4), entry("empty", 4, 4), entry("b", 4, 8)], 8), "");
        for entries in [
            [entry("a", 0, 8), entry("b", 0, 8)],
            [entry("a", 0, 8), entry("b", 4, 8)],
            [entry("a", 0, 4), entry("a", 4, 8)],
            [entry("a", 0, 4), entry("b", 8, 12)],
        ] {
            let problem = problem(&entries, 12);
            assert!(
                problem.contains("model.safetensors: tensor `") && problem.contains("damaged"),
                "{entries:?}: {problem}"
            );
        }
    }

    #[test]
    fn a_name_in_two_shards_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["1", "2"].map(|name| folder.path().join(name)).to_vec();
        for path in &paths {
            std::fs::write(path, file(&format!("{{{}}}", entry("a", 0, 4)), 4)).unwrap();
        }
        assert!(
            Safetensors::open(paths)
                .err()
                .unwrap()
                .to_string()
                .contains("/2: tensor `a`: it is in an earlier file too")
        );
    }

    #[test]
    fn a_model_without_its_output_layer_is_found_under_the_names_of_the_whole() {
        let base =
            [entry("embed_tokens.weight", 0, 4), entry("layers.0.x.weight", 4, 8), entry("lm_head.weight", 8, 12)];
        let base = open(&format!("{{{}}}", base.join(",")), 12).unwrap();
        assert!(
            ["model.embed_tokens.weight", "model.layers.0.x.weight", "lm_head.weight"]
                .iter()
                .all(|name| base.contains(name))
        );

        let wrapped = open(&format!("{{{}}}", entry("_orig_mod.model.norm.weight", 0, 4)), 4).unwrap();
        let problem = wrapped.missing("model.norm.weight").to_string();
        assert!(problem.contains("is there as `_orig_mod.model.norm.weight`"), "{problem}");
    }
}
