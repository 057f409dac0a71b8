//! Memory of the device: that of the host, between guards.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use cokv_cuda::device::Buffer;

/// What addresses are multiples of, and bytes before and behind a buffer that nobody may write.
const ALIGNMENT: usize = 256;

/// New memory and guards are full of it: NaN in all types.
pub const FILL: u8 = 0xff;

/// Buffers that there are.
#[derive(Debug, Default)]
pub struct Memory {
    live: Mutex<BTreeMap<u64, usize>>,
}

/// Beginnings and ends of buffers, in order.
#[derive(Debug)]
pub struct Ranges(Vec<(u64, u64)>);

/// Memory with a guard on either side, given back when it is dropped.
#[derive(Debug)]
pub struct HostBuffer {
    memory: Arc<Memory>,
    address: u64,
    bytes: usize,
}

impl Memory {
    pub fn allocate(self: &Arc<Self>, bytes: usize) -> HostBuffer {
        let layout = layout(bytes);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: within the allocation.
        unsafe { start.write_bytes(FILL, layout.size()) };
        let address = start.expose_provenance() as u64 + ALIGNMENT as u64;
        self.live().insert(address, bytes);
        HostBuffer { memory: self.clone(), address, bytes }
    }

    /// Those of now.
    pub fn ranges(&self) -> Ranges {
        Ranges(self.live().iter().map(|(&address, &bytes)| (address, address + bytes as u64)).collect())
    }

    /// The place of `bytes` bytes, which must lie within a buffer.
    pub fn at(&self, address: u64, bytes: usize, what: &str) -> *mut u8 {
        let found = self.live().range(..=address).next_back().map(|(&at, &length)| (at, length));
        let inside = found.is_some_and(|(at, length)| address - at + bytes as u64 <= length as u64);
        assert!(
            inside || bytes == 0,
            "{what}: {bytes} bytes at {address:#x} are not within a buffer ({found:x?} before it)"
        );
        std::ptr::with_exposed_provenance_mut(address as usize)
    }

    /// A buffer that was written past one of its ends.
    pub fn damaged(&self) -> Option<String> {
        self.live().iter().find_map(|(&address, &bytes)| damage(address, bytes))
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ranges {
    /// Whether these bytes are all of one buffer.
    pub fn has(&self, address: u64, bytes: u64) -> bool {
        let after = self.0.partition_point(|&(begin, _)| begin <= address);
        after > 0 && address + bytes <= self.0[after - 1].1
    }
}

impl Buffer for HostBuffer {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let damage = damage(self.address, self.bytes);
        self.memory.live().remove(&self.address);
        let start = std::ptr::with_exposed_provenance_mut(self.address as usize - ALIGNMENT);
        // SAFETY: allocated with this layout.
        unsafe { dealloc(start, layout(self.bytes)) };
        if let Some(damage) = damage
            && !thread::panicking()
        {
            panic!("{damage}");
        }
    }
}

/// Of a buffer and its guards.
fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes + 2 * ALIGNMENT, ALIGNMENT).expect("no more than there is memory")
}

fn damage(address: u64, bytes: usize) -> Option<String> {
    let guard = |from: u64| {
        let from: *const [u8; ALIGNMENT] = std::ptr::with_exposed_provenance(from as usize);
        // SAFETY: `allocate` wrote it, and the buffer is alive.
        unsafe { (*from).iter().position(|&byte| byte != FILL) }
    };
    let end = address + bytes as u64;
    let before = guard(address - ALIGNMENT as u64).map(|at| format!("{} bytes before it", ALIGNMENT - at));
    let place = before.or_else(|| guard(end).map(|at| format!("{at} bytes past its end")))?;
    Some(format!("a buffer of {bytes} bytes at {address:#x} was written {place}"))
}
