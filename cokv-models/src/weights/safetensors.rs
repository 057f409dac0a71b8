//! Safetensors: a JSON header and raw tensors, in one file or in shards.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use serde::Deserialize;

use super::Stored;
use crate::error::ModelError;

/// The tensors of one or several safetensors files.
pub struct Safetensors {
    files: Vec<PathBuf>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    file: usize,
    dtype: String,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

#[derive(Deserialize)]
struct HeaderEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Larger headers than this are damage, not models.
const LARGEST_HEADER: u64 = 100 << 20;

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
                tensors.insert(name, entry);
            }
        }
        Ok(Self { files, tensors })
    }

    /// Whether any file has a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor as it is stored.
    pub(super) fn stored(&self, name: &str) -> Result<Stored, ModelError> {
        let path = self.path_of(name);
        let missing = || ModelError::missing_tensor(path, name);
        let entry = self.tensors.get(name).ok_or_else(missing)?;
        let kind = match entry.dtype.as_str() {
            "F32" => GgmlDType::F32,
            "F16" => GgmlDType::F16,
            "BF16" => GgmlDType::BF16,
            other => {
                let message = format!("tensor `{name}` is stored as {other} (known: F32, F16, BF16)");
                return Err(ModelError::unsupported(path, message));
            }
        };
        let bytes = entry.shape.iter().try_fold(kind.type_size(), |bytes, &size| bytes.checked_mul(size));
        if bytes != Some(entry.bytes) {
            return Err(ModelError::malformed(
                path,
                format!("tensor `{name}` has {} bytes, not those of its shape", entry.bytes),
            ));
        }
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        let mut data = vec![0; entry.bytes];
        file.seek(SeekFrom::Start(entry.start)).map_err(ModelError::io(path))?;
        file.read_exact(&mut data).map_err(ModelError::io(path))?;
        Ok(Stored::new(&entry.shape, kind, data))
    }

    /// The file that holds a tensor, or the first one.
    pub fn path_of(&self, name: &str) -> &Path {
        let file = self.tensors.get(name).map_or(0, |entry| entry.file);
        self.files.get(file).map_or(Path::new("safetensors"), PathBuf::as_path)
    }
}
