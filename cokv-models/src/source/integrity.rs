//! Cheap checks that a weight file is whole: they read its header, never its tensors.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::SourceError;

const FETCH_AGAIN: &str = "delete it and download or copy it again";

/// Refuses a file that is no GGUF file or that ends before its last tensor does.
pub(super) fn check_gguf(path: &Path) -> Result<(), SourceError> {
    let (mut reader, length) = open(path)?;
    let mut magic = [0; 4];
    if reader.read_exact(&mut magic).is_err() || &magic != b"GGUF" {
        return Err(SourceError::unusable(
            path,
            "this is no GGUF file (it does not begin with `GGUF`)",
            "name a .gguf file or a folder in the Hugging Face layout",
        ));
    }
    match gguf_length(&mut Gguf { reader, position: 4, length }) {
        Ok(promised) if promised <= length => Ok(()),
        Ok(promised) => Err(incomplete(path, length, promised)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SourceError::unusable(
            path,
            format!("the file is incomplete: its {length} bytes end within the header"),
            FETCH_AGAIN,
        )),
        Err(error) => Err(SourceError::unusable(path, format!("the GGUF header is damaged ({error})"), FETCH_AGAIN)),
    }
}

/// Refuses a safetensors file whose length is not what its header promises.
pub(super) fn check_safetensors(path: &Path) -> Result<(), SourceError> {
    let (mut reader, length) = open(path)?;
    let damaged = |problem: String| SourceError::unusable(path, problem, FETCH_AGAIN);
    let mut header_length = [0; 8];
    reader.read_exact(&mut header_length).map_err(|_| damaged(format!("{length} bytes are no safetensors file")))?;
    let header_length = u64::from_le_bytes(header_length);
    let data_start = match header_length.checked_add(8) {
        Some(data_start) if data_start <= length => data_start,
        _ => return Err(damaged(format!("the file is incomplete: its {length} bytes end within the header"))),
    };
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_reader(reader.take(header_length))
        .map_err(|error| damaged(format!("the safetensors header is damaged ({error})")))?;
    let end = |tensor: &serde_json::Value| tensor.get("data_offsets")?.get(1)?.as_u64();
    let promised = data_start.saturating_add(header.values().filter_map(end).max().unwrap_or(0));
    if promised == length { Ok(()) } else { Err(incomplete(path, length, promised)) }
}

fn open(path: &Path) -> Result<(BufReader<File>, u64), SourceError> {
    let file = File::open(path).map_err(SourceError::io("open", path))?;
    let length = file.metadata().map_err(SourceError::io("read", path))?.len();
    Ok((BufReader::with_capacity(1 << 16, file), length))
}

fn incomplete(path: &Path, length: u64, promised: u64) -> SourceError {
    let problem = if length < promised { "is incomplete" } else { "is longer than it should be" };
    SourceError::unusable(
        path,
        format!("the file {problem}: {length} bytes, but its header promises {promised}"),
        FETCH_AGAIN,
    )
}

/// Reads a GGUF header, counting bytes.
struct Gguf<R> {
    reader: R,
    position: u64,
    length: u64,
}

impl<R: Read> Gguf<R> {
    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.position += N as u64;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A number of things that take at least a byte each, so that a damaged count cannot exhaust time or memory.
    fn count(&mut self) -> io::Result<u64> {
        let count = self.u64()?;
        if count > self.length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }

    fn string(&mut self) -> io::Result<Vec<u8>> {
        let length = self.count()?;
        let mut bytes = Vec::new();
        (&mut self.reader).take(length).read_to_end(&mut bytes)?;
        self.position += length;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads past a metadata value of this type and returns it if it is a `u32`, as `general.alignment` is.
    fn value(&mut self, value_type: u32) -> io::Result<Option<u32>> {
        match value_type {
            4 => return self.u32().map(Some),
            0 | 1 | 7 => drop(self.bytes::<1>()?),
            2 | 3 => drop(self.bytes::<2>()?),
            5 | 6 => drop(self.bytes::<4>()?),
            10..=12 => drop(self.bytes::<8>()?),
            8 => drop(self.string()?),
            9 => {
                let element_type = self.u32()?;
                if element_type == 9 {
                    return Err(io::Error::other("an array of arrays"));
                }
                for _ in 0..self.count()? {
                    self.value(element_type)?;
                }
            }
            unknown => return Err(io::Error::other(format!("metadata of unknown type {unknown}"))),
        }
        Ok(None)
    }
}

/// The length that a GGUF file must at least have, from the header that follows the magic
/// (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
fn gguf_length<R: Read>(gguf: &mut Gguf<R>) -> io::Result<u64> {
    let overflow = || io::Error::other("a tensor beyond all limits");
    let version = gguf.u32()?;
    if !(2..=3).contains(&version) {
        return Err(io::Error::other(format!("version {version}; versions 2 and 3 are known")));
    }
    let tensors = gguf.count()?;
    let mut alignment = 32;
    for _ in 0..gguf.count()? {
        let key = gguf.string()?;
        let value_type = gguf.u32()?;
        let value = gguf.value(value_type)?;
        if let (b"general.alignment", Some(value)) = (key.as_slice(), value) {
            alignment = u64::from(value.max(1));
        }
    }
    let mut data_length = 0;
    for _ in 0..tensors {
        gguf.string()?;
        let mut elements: u64 = 1;
        for _ in 0..gguf.u32()? {
            elements = elements.checked_mul(gguf.u64()?).ok_or_else(overflow)?;
        }
        let (block, block_bytes) = ggml_block(gguf.u32()?);
        let bytes = elements.div_ceil(block).checked_mul(block_bytes).ok_or_else(overflow)?;
        let end = gguf.u64()?.checked_add(bytes).ok_or_else(overflow)?;
        data_length = data_length.max(end);
    }
    gguf.position.next_multiple_of(alignment).checked_add(data_length).ok_or_else(overflow)
}

/// Elements per block and bytes per block of a ggml tensor type. Of a type that is not listed only the offset is
/// checked: it is the loader's business to refuse it.
fn ggml_block(tensor_type: u32) -> (u64, u64) {
    match tensor_type {
        0 => (1, 4),
        1 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        15 => (256, 292),
        _ => (1, 0),
    }
}

#[cfg(test)]
pub(super) mod samples {
    /// The smallest honest safetensors file: one tensor of four bytes.
    pub(crate) fn safetensors() -> Vec<u8> {
        let header = br#"{"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&[0; 4]);
        bytes
    }

    /// A GGUF file with metadata of several types and one Q4_0 tensor of 64 elements (36 bytes).
    pub(crate) fn gguf() -> Vec<u8> {
        fn string(bytes: &mut Vec<u8>, text: &str) {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        let mut bytes = b"GGUF".to_vec();
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        bytes.extend_from_slice(&3u64.to_le_bytes());
        string(&mut bytes, "general.alignment");
        bytes.extend_from_slice(&4u32.to_le_bytes());
        bytes.extend_from_slice(&64u32.to_le_bytes());
        string(&mut bytes, "general.architecture");
        bytes.extend_from_slice(&8u32.to_le_bytes());
        string(&mut bytes, "llama");
        string(&mut bytes, "tokenizer.ggml.tokens");
        bytes.extend_from_slice(&9u32.to_le_bytes());
        bytes.extend_from_slice(&8u32.to_le_bytes());
        bytes.extend_from_slice(&2u64.to_le_bytes());
        string(&mut bytes, "a");
        string(&mut bytes, "b");
        string(&mut bytes, "blk.0.weight");
        bytes.extend_from_slice(&2u32.to_le_bytes());
        bytes.extend_from_slice(&32u64.to_le_bytes());
        bytes.extend_from_slice(&2u64.to_le_bytes());
        bytes.extend_from_slice(&2u32.to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(64) + 36, 0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], check: fn(&Path) -> Result<(), SourceError>) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, bytes).unwrap();
        check(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn whole_files_pass_and_every_shorter_one_is_refused() {
        for (bytes, check_file) in
            [(samples::gguf(), check_gguf as fn(&Path) -> _), (samples::safetensors(), check_safetensors)]
        {
            check(&bytes, check_file).unwrap();
            for length in 0..bytes.len() {
                check(&bytes[..length], check_file).unwrap_err();
            }
        }
    }

    #[test]
    fn the_message_tells_the_two_lengths() {
        let bytes = samples::gguf();
        let message = check(&bytes[..bytes.len() - 1], check_gguf).unwrap_err();
        let expected = format!("{} bytes, but its header promises {}", bytes.len() - 1, bytes.len());
        assert!(message.contains(&expected), "{message}");
    }

    #[test]
    fn damaged_headers_are_errors_not_panics() {
        let mut bytes = samples::gguf();
        bytes[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        check(&bytes, check_gguf).unwrap_err();
        check(b"<html>404</html>", check_gguf).unwrap_err();
        check(&u64::MAX.to_le_bytes(), check_safetensors).unwrap_err();
        check(b"\x02\0\0\0\0\0\0\0[]", check_safetensors).unwrap_err();
        for position in 4..100 {
            let mut bytes = samples::gguf();
            bytes[position] ^= 0xff;
            let _ = check(&bytes, check_gguf);
        }
    }
}
