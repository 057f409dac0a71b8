//! What a kernel's thread sees of the machine, and what it asks of it.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::path::Path;

use corosensei::Yielder;

use crate::copies::Copies;
use crate::memory::Ranges;

/// `Machine` of `machine.h`, and behind it what only this side reads.
///
/// It changes whenever another thread has its turn. All use it through pointers.
#[repr(C)]
pub struct Machine {
    pub thread: u32,
    pub threads: u32,
    pub block: u32,
    pub block_y: u32,
    pub shared: *mut u8,
    pub shared_bytes: u64,
    pub exchange: *mut u8,
    wait: unsafe extern "C" fn(*mut Self, u32, *const c_char, u32),
    fault: unsafe extern "C" fn(*mut Self, *const c_char, *const c_void),
    is_allocated: unsafe extern "C" fn(*mut Self, *const c_void, u64) -> bool,
    copy: unsafe extern "C" fn(*mut Self, *mut c_void, *const c_void),
    commit_copies: unsafe extern "C" fn(*mut Self),
    wait_for_copies: unsafe extern "C" fn(*mut Self, u32),
    /// Of the thread that runs.
    pub yielder: *const Yielder<(), Pause>,
    /// Of the thread that runs.
    pub copies: *mut Copies,
    /// Buffers that there are.
    pub ranges: *const Ranges,
}

/// Why a thread does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It waits for others, who have to come to the same place.
    Wait(Whom, Place),
    /// It did what a GPU would not, and never goes on.
    Fault(Fault),
}

/// Whom a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Warp,
    Block,
}

/// A line of the kernels' sources.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    file: *const c_char,
    line: u32,
}

/// What went wrong in a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    what: *const c_char,
    address: *const c_void,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.line == other.line && (self.file == other.file || self.file() == other.file())
    }
}

impl Eq for Place {}

impl Place {
    fn file(&self) -> &'static CStr {
        // SAFETY: the compiler's, and kernels stay loaded while they run.
        unsafe { CStr::from_ptr(self.file) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.file().to_string_lossy();
        let name = Path::new(path.as_ref()).file_name().unwrap_or_default();
        write!(f, "{}:{}", name.display(), self.line)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: written by the compiler.
        let what = unsafe { CStr::from_ptr(self.what) };
        write!(f, "{} at {:p}", what.to_string_lossy(), self.address)
    }
}

impl Machine {
    pub fn new(threads: usize, shared: &mut [[u8; 16]], shared_bytes: usize, ranges: &Ranges) -> Self {
        Self {
            thread: 0,
            threads: threads as u32,
            block: 0,
            block_y: 0,
            shared: shared.as_mut_ptr().cast(),
            shared_bytes: shared_bytes as u64,
            exchange: std::ptr::null_mut(),
            wait,
            fault,
            is_allocated,
            copy,
            commit_copies,
            wait_for_copies,
            yielder: std::ptr::null(),
            copies: std::ptr::null_mut(),
            ranges,
        }
    }
}

// SAFETY of all below: kernels call them with the machine that they were given, in the coroutine whose turn it is, so that
// the yielder and the copies are of the thread that runs.

unsafe extern "C" fn wait(machine: *mut Machine, whom: u32, file: *const c_char, line: u32) {
    let whom = if whom == 0 { Whom::Warp } else { Whom::Block };
    unsafe { (*(*machine).yielder).suspend(Pause::Wait(whom, Place { file, line })) }
}

unsafe extern "C" fn fault(machine: *mut Machine, what: *const c_char, address: *const c_void) {
    unsafe { (*(*machine).yielder).suspend(Pause::Fault(Fault { what, address })) };
    unreachable!("a thread goes on after a fault");
}

unsafe extern "C" fn is_allocated(machine: *mut Machine, address: *const c_void, bytes: u64) -> bool {
    unsafe { (*(*machine).ranges).has(address as u64, bytes) }
}

unsafe extern "C" fn copy(machine: *mut Machine, to: *mut c_void, from: *const c_void) {
    unsafe { (*(*machine).copies).ask(to.cast(), from.cast()) }
}

unsafe extern "C" fn commit_copies(machine: *mut Machine) {
    unsafe { (*(*machine).copies).commit() }
}

unsafe extern "C" fn wait_for_copies(machine: *mut Machine, pending: u32) {
    unsafe { (*(*machine).copies).wait(pending as usize) }
}
