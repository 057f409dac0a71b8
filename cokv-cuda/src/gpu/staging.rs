//! Small uploads that wait for nothing: tables are made while the card still works on what was asked for before.

use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, PinnedHostSlice};

/// Bytes of one half.
const HALF: usize = 4 << 20;

/// Memory that the card reads by itself, in two halves: one is filled while the other is read.
pub struct Staging {
    halves: [Half; 2],
    filling: usize,
    filled: usize,
}

struct Half {
    memory: PinnedHostSlice<u8>,
    /// When it was last read.
    read: Option<CudaEvent>,
}

impl Staging {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let half = || -> Result<Half, DriverError> {
            // SAFETY: nothing is read of it that was not written.
            Ok(Half { memory: unsafe { context.alloc_pinned_with_flags(HALF, 0) }?, read: None })
        };
        Ok(Self { halves: [half()?, half()?], filling: 0, filled: 0 })
    }

    /// A copy of some bytes that stays until the stream has passed this point; nothing where they are too many.
    pub fn place(&mut self, bytes: &[u8], stream: &CudaStream) -> Result<Option<&[u8]>, DriverError> {
        if bytes.len() > HALF / 4 {
            return Ok(None);
        }
        if self.filled + bytes.len() > HALF {
            self.halves[self.filling].read = Some(stream.record_event(None)?);
            self.filling = 1 - self.filling;
            self.filled = 0;
            if let Some(read) = self.halves[self.filling].read.take() {
                read.synchronize()?;
            }
        }
        let start = self.filled;
        // Copies on the card want a multiple of some bytes.
        self.filled += bytes.len().next_multiple_of(256);
        let place = self.halves[self.filling].memory.as_mut_slice()?;
        let place = &mut place[start..start + bytes.len()];
        place.copy_from_slice(bytes);
        Ok(Some(place))
    }
}
