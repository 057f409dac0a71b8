//! The emulator as the device that a backend runs on.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cokv_cuda::CudaError;
use cokv_cuda::Result;
use cokv_cuda::device::{Argument, Device, Launch, Product};

use crate::kernels::{Entry, Kernels};
use crate::memory::{HostBuffer, Memory};
use crate::product;
use crate::random::Random;
use crate::schedule::{self, Work};

/// What the smallest of the cards that the kernels are for gives a block (compute capability 8.6: 99 KiB).
const LARGEST_SHARED: usize = 99 << 10;

/// A GPU of this host's making. Everything is done at once.
#[derive(Debug)]
pub struct Emulated {
    kernels: Kernels,
    memory: Arc<Memory>,
    seed: u64,
    launches: AtomicU64,
}

impl Emulated {
    /// One whose launches are run in an order that the seed draws; nothing where there was no C++ compiler to build it.
    pub fn new(seed: u64) -> Option<Self> {
        Kernels::of_this_program().map(|kernels| Self::with_kernels(kernels, seed))
    }

    /// One that has other kernels.
    pub fn with_kernels(kernels: Kernels, seed: u64) -> Self {
        Self { kernels, memory: Arc::default(), seed, launches: AtomicU64::new(0) }
    }

    /// What the kernels are called.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    fn run(&self, launch: &Launch<'_>, arguments: &[Argument]) -> std::result::Result<(), String> {
        let entry = self.kernels.find(launch.kernel).ok_or("there is no kernel of this name")?;
        check(entry, launch, arguments)?;
        let pointers: Vec<*const c_void> = arguments.iter().map(pointer).collect();
        let ranges = self.memory.ranges();
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        schedule::run(Work {
            entry,
            arguments: &pointers,
            blocks: launch.blocks,
            threads: launch.threads,
            shared_bytes: launch.shared_bytes,
            ranges: &ranges,
            random: Random::new(self.seed.wrapping_add(number)),
        })?;
        self.memory.damaged().map_or(Ok(()), Err)
    }
}

impl Device for Emulated {
    type Buffer = HostBuffer;

    fn name(&self) -> &'static str {
        "cuda-emulated"
    }

    fn description(&self) -> String {
        "the emulator".into()
    }

    fn take_peak_bytes(&self) -> Option<u64> {
        None
    }

    fn blocks_at_once(&self) -> usize {
        8
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<HostBuffer> {
        Ok(self.memory.allocate(bytes))
    }

    fn upload(&self, from: &[u8], to: u64) -> Result<()> {
        // SAFETY: within a buffer, which is no memory of Rust's.
        unsafe { self.memory.at(to, from.len(), "upload").copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { to.as_mut_ptr().copy_from_nonoverlapping(self.memory.at(from, to.len(), "download"), to.len()) };
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        let [from, to] = [from, to].map(|address| self.memory.at(address, bytes, "copy"));
        assert!(from.addr().abs_diff(to.addr()) >= bytes, "a copy onto itself, which cuMemcpyDtoD does not define");
        // SAFETY: both are within buffers and apart.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<()> {
        // SAFETY: within a buffer.
        unsafe { self.memory.at(at, bytes, "clear").write_bytes(0, bytes) };
        Ok(())
    }

    fn launch(&self, launch: Launch<'_>, arguments: &[Argument]) -> Result<()> {
        self.run(&launch, arguments)
            .map_err(|error| CudaError::Call { call: "launch", error: format!("{}: {error}", launch.kernel) })
    }

    fn product(&self, product: &Product) -> Result<()> {
        product::multiply(&self.memory, product);
        Ok(())
    }

    fn synchronise(&self) -> Result<()> {
        Ok(())
    }
}

/// Refuses what a GPU would refuse, and arguments that are not what the kernel takes.
fn check(entry: &Entry, launch: &Launch<'_>, arguments: &[Argument]) -> std::result::Result<(), String> {
    let Launch { blocks, threads, shared_bytes, .. } = *launch;
    let given: Vec<u8> = arguments.iter().map(letter).collect();
    if given != entry.parameters() {
        let [given, taken] = [&given, entry.parameters()].map(String::from_utf8_lossy);
        return Err(format!(
            "arguments are ({given}), and parameters ({taken}): a for addresses, i for ints, f for floats"
        ));
    }
    if threads == 0 || !threads.is_multiple_of(32) || threads > entry.threads() {
        return Err(format!("{threads} threads of a block, of which there may be up to {}", entry.threads()));
    }
    if blocks[0] == 0 || blocks[0] > i32::MAX as usize || blocks[1] == 0 || blocks[1] > u16::MAX as usize {
        return Err(format!("{} by {} blocks", blocks[0], blocks[1]));
    }
    if shared_bytes > LARGEST_SHARED {
        return Err(format!("{shared_bytes} bytes of shared memory, of which some cards have {LARGEST_SHARED}"));
    }
    Ok(())
}

fn letter(argument: &Argument) -> u8 {
    match argument {
        Argument::Address(_) => b'a',
        Argument::Int(_) => b'i',
        Argument::Float(_) => b'f',
    }
}

fn pointer(argument: &Argument) -> *const c_void {
    match argument {
        Argument::Address(address) => (&raw const *address).cast(),
        Argument::Int(number) => (&raw const *number).cast(),
        Argument::Float(number) => (&raw const *number).cast(),
    }
}
