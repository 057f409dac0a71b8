//! Where tensors are read to, one after another.
//!
//! Memory that is new for each tensor has to be cleared by the system first, which takes longer than reading it.

use std::io::{self, Read};
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of the largest buffer that is kept: few tensors are larger, and what is kept is held until all are read.
const KEPT: usize = 64 << 20;

/// The buffer of one file, while nobody has it.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<u8>>>);

impl Buffers {
    /// Reads so many bytes.
    pub fn read(&self, from: &mut impl Read, len: usize) -> io::Result<Buffer> {
        let mut bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if bytes.len() < len {
            // What it holds need not be copied.
            bytes.clear();
            bytes.resize(len, 0);
        }
        let mut buffer = Buffer { bytes, len, home: Some(self.clone()) };
        from.read_exact(&mut buffer.bytes[..len])?;
        Ok(buffer)
    }
}

/// A tensor's bytes.
pub(super) struct Buffer {
    /// At least as many as the tensor's.
    bytes: Vec<u8>,
    len: usize,
    home: Option<Buffers>,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(Buffers(home)) = &self.home {
            let mut spare = home.lock().unwrap_or_else(PoisonError::into_inner);
            if (spare.len()..=KEPT).contains(&self.bytes.len()) {
                *spare = std::mem::take(&mut self.bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_shows_its_own_bytes_only() {
        let buffers = Buffers::default();
        let read = |bytes: &[u8]| buffers.read(&mut { bytes }, bytes.len()).unwrap();
        let first = read(&[1, 2, 3, 4]);
        let (place, second) = (first.as_ptr(), read(&[5, 6]));
        assert_eq!((&first[..], &second[..]), (&[1, 2, 3, 4][..], &[5, 6][..]));
        drop((first, second));
        let third = read(&[7]);
        assert_eq!((&third[..], third.as_ptr()), (&[7][..], place));
        assert!(buffers.read(&mut &[0u8; 3][..], 9).is_err());
    }
}
