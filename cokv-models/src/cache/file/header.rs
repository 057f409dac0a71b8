//! The header of a saved cache: that of a safetensors file, padded so that the numbers begin where a page of memory does.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Read};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use sha2::{Digest, Sha256};

use super::description::Description;
use super::error::CacheFileError;
use super::identity::Identity;
use super::numbers::dtype;
use super::{FORMAT, VERSION};
use crate::error::ModelError;

/// Bytes that a header may have.
const LARGEST: usize = 1 << 20;
/// The tensors begin at a multiple of this.
const PAGE: usize = 4096;
/// Bytes of the header's length, which stands before it.
const SIZE: usize = size_of::<u64>();

/// Name of the entry with the hash of all others and of all tensors.
const SEAL: &str = "sha256";
/// Tensors that a file may lack.
const OPTIONAL: [&str; 2] = ["biases", "text"];
/// Stands for it until it is known, and is as long.
const NO_SEAL: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What stands before the tensors of a file.
pub(super) struct Header {
    pub description: Description,
    entries: HashMap<String, String>,
    tensors: Metadata,
    /// Bytes before the first tensor.
    pub start: usize,
}

/// A tensor to be written.
pub(super) struct Part {
    pub name: &'static str,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl Header {
    /// Reads the header of a file of so many bytes, and holds the file's length to what it says.
    pub fn read(file: &mut impl Read, length: u64) -> Result<Self, CacheFileError> {
        let mut size = [0; SIZE];
        file.read_exact(&mut size).map_err(|error| cut(error, length))?;
        let size = u64::from_le_bytes(size);
        let size = match usize::try_from(size) {
            Ok(size) if size <= LARGEST => size,
            _ => return Err(CacheFileError::Foreign(format!("its header would have {size} bytes"))),
        };
        let mut text = vec![0; size];
        file.read_exact(&mut text).map_err(|error| cut(error, length))?;
        let foreign = |error: serde_json::Error| CacheFileError::Foreign(format!("its header cannot be read: {error}"));
        let tensors: Metadata = serde_json::from_slice(&text).map_err(foreign)?;
        let entries = tensors.metadata().clone().unwrap_or_default();
        let says = |key: &str| entries.get(key).map(String::as_str);
        if says("format") != Some(FORMAT) {
            return Err(CacheFileError::Foreign("it holds other tensors".into()));
        }
        if says("version") != Some(VERSION) {
            let found = says("version").unwrap_or("none").to_owned();
            return Err(CacheFileError::Version { found, known: VERSION });
        }
        let start = SIZE + size;
        let expected = start as u64 + tensors.data_len() as u64;
        if length != expected {
            let message = format!("the file has {length} bytes where its header says {expected}");
            return Err(CacheFileError::Damaged(message));
        }
        Ok(Self { description: Description::read(&entries)?, entries, tensors, start })
    }

    /// Bytes of all tensors.
    pub fn data_len(&self) -> usize {
        self.tensors.data_len()
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.info(name).is_some()
    }

    /// A tensor, which has as many bytes as kind and shape say; none where there is none of this name.
    pub fn tensor(&self, name: &str, dtype: Dtype) -> Result<Option<&TensorInfo>, CacheFileError> {
        match self.tensors.info(name) {
            Some(info) if info.dtype != dtype => {
                Err(CacheFileError::Damaged(format!("`{name}` is {} instead of {dtype}", info.dtype)))
            }
            found => Ok(found),
        }
    }

    /// Holds the shapes of all tensors to one another, and says how many tokens were seen, and how many all heads keep together.
    pub fn check_shapes(&self) -> Result<(usize, usize), CacheFileError> {
        let Identity { layout, format, .. } = self.description.identity;
        let kind = dtype(format);
        let first = |name| self.tensors.info(name).and_then(|info| info.shape.first().copied()).unwrap_or(0);
        let (seen, rows, letters) = (first("tokens"), first("keys"), first("text"));
        let expected: [(&str, Dtype, &[usize]); 7] = [
            ("keys", kind, &[rows, layout.head_dim]),
            ("values", kind, &[rows, layout.head_dim]),
            ("biases", Dtype::F32, &[rows]),
            ("tokens", Dtype::U32, &[seen]),
            ("lengths", Dtype::U32, &[layout.heads()]),
            ("positions", Dtype::U32, &[rows]),
            ("text", Dtype::U8, &[letters]),
        ];
        for (name, dtype, shape) in expected {
            match self.tensor(name, dtype)? {
                None if OPTIONAL.contains(&name) => {}
                None => return Err(CacheFileError::Damaged(format!("it has no `{name}`"))),
                Some(found) if found.shape == shape => {}
                Some(found) => {
                    let message = format!("`{name}` has the shape {:?} instead of {shape:?}", found.shape);
                    return Err(CacheFileError::Damaged(message));
                }
            }
        }
        let unknown = |name: &String| !expected.iter().any(|(known, ..)| known == name);
        match self.tensors.offset_keys().into_iter().find(unknown) {
            Some(name) => Err(CacheFileError::Damaged(format!("it has a tensor `{name}`, which no cache has"))),
            None => Ok((seen, rows)),
        }
    }

    /// Holds what was read to its hash.
    pub fn check_seal(&self, data: &[u8]) -> Result<(), CacheFileError> {
        match self.entries.get(SEAL) {
            Some(seal) if *seal == self.seal(data) => Ok(()),
            _ => Err(CacheFileError::Damaged("its content does not fit its SHA-256".into())),
        }
    }

    /// Hash of all that the file says: its entries but for the hash, then its tensors, both in the order of their names. Before every
    /// text and every tensor's bytes stands their number, so that nothing can move from one to the next.
    fn seal(&self, data: &[u8]) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (key, value) in BTreeMap::from_iter(&self.entries).into_iter().filter(|(key, _)| *key != SEAL) {
            add(key.as_bytes());
            add(value.as_bytes());
        }
        for (name, info) in BTreeMap::from_iter(self.tensors.tensors()) {
            add(name.as_bytes());
            add(info.dtype.to_string().as_bytes());
            add(&info.shape.iter().flat_map(|&size| (size as u64).to_le_bytes()).collect::<Vec<u8>>());
            add(data.get(info.data_offsets.0..info.data_offsets.1).unwrap_or_default());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Part {
    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// A file that is to hold these tensors, one behind the other: its bytes, of which those of the tensors from `start` on are still to be
/// written and the hash is still to be set.
pub(super) fn begun(description: &Description, parts: &[Part]) -> Result<(Vec<u8>, usize), ModelError> {
    let (mut tensors, mut end) = (Vec::with_capacity(parts.len()), 0);
    for part in parts {
        let data_offsets = (end, end + part.bytes());
        tensors.push((part.name, TensorInfo { dtype: part.dtype, shape: part.shape.clone(), data_offsets }));
        end = data_offsets.1;
    }
    let mut entries = description.entries();
    entries.extend([("format", FORMAT), ("version", VERSION), (SEAL, NO_SEAL)].map(|(key, text)| (key, text.into())));
    let text = |error: serde_json::Error| ModelError::Backend(error.to_string());
    let mut header = format!("{{\"__metadata__\":{}", serde_json::to_string(&entries).map_err(text)?);
    for (name, info) in &tensors {
        header += &format!(",\"{name}\":{}", serde_json::to_string(info).map_err(text)?);
    }
    header.push('}');
    let start = (SIZE + header.len()).next_multiple_of(PAGE);
    if start - SIZE > LARGEST {
        let message = format!("a cache is not saved whose method and model take {} bytes to describe", header.len());
        return Err(ModelError::Backend(message));
    }
    let mut bytes = vec![b' '; start + end];
    bytes[..SIZE].copy_from_slice(&((start - SIZE) as u64).to_le_bytes());
    bytes[SIZE..SIZE + header.len()].copy_from_slice(header.as_bytes());
    Ok((bytes, start))
}

/// Sets the hash of a file that is written otherwise.
pub(super) fn seal(bytes: &mut [u8]) -> Result<(), CacheFileError> {
    let header = Header::read(&mut &bytes[..], bytes.len() as u64)?;
    let seal = header.seal(&bytes[header.start..]);
    let entry = format!("\"{SEAL}\":\"{}", header.entries.get(SEAL).map_or("", String::as_str));
    let at = bytes[..header.start].windows(entry.len()).position(|window| window == entry.as_bytes());
    let end = at.ok_or_else(|| CacheFileError::Damaged("its header has no SHA-256".into()))? + entry.len();
    bytes[end - seal.len()..end].copy_from_slice(seal.as_bytes());
    Ok(())
}

/// A file that ends before its header does.
fn cut(error: std::io::Error, length: u64) -> CacheFileError {
    match error.kind() {
        ErrorKind::UnexpectedEof => CacheFileError::Foreign(format!("it ends after {length} bytes, within its header")),
        _ => error.into(),
    }
}
