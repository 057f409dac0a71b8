//! The table of kernels that the compiled C++ has.

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;

use libloading::Library;

use crate::machine::Machine;

/// A kernel: `Entry` of `entries.h`.
#[repr(C)]
pub struct Entry {
    name: *const c_char,
    parameters: *const c_char,
    threads: u32,
    pub run: unsafe extern "C" fn(*mut Machine, *const *const c_void),
    next: *const Entry,
}

impl Entry {
    /// The most threads of a block.
    pub fn threads(&self) -> usize {
        self.threads as usize
    }

    /// A letter for each parameter: `a` address, `i` int, `f` float.
    pub fn parameters(&self) -> &[u8] {
        // SAFETY: written by the compiler.
        unsafe { CStr::from_ptr(self.parameters) }.to_bytes()
    }
}

type Entries = unsafe extern "C" fn() -> *const Entry;

/// Kernels compiled for the host.
#[derive(Debug)]
pub struct Kernels {
    first: *const Entry,
    /// Which they lie in, where that is not this program.
    _library: Option<Library>,
}

// SAFETY: the table is written once, when it is loaded.
unsafe impl Send for Kernels {}
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Those of `cokv-cuda`, unless there was no compiler when this crate was built.
    pub fn of_this_program() -> Option<Self> {
        #[cfg(emulator)]
        {
            unsafe extern "C" {
                fn cokv_emulator_entries() -> *const Entry;
            }
            // SAFETY: no more than a pointer is read.
            Some(Self { first: unsafe { cokv_emulator_entries() }, _library: None })
        }
        #[cfg(not(emulator))]
        None
    }

    /// Those of a shared library that was compiled like `kernels.cpp`.
    pub fn load(path: &Path) -> Result<Self, libloading::Error> {
        // SAFETY: the library comes from this project's sources; its initialisers build the table.
        unsafe {
            let library = Library::new(path)?;
            let first = library.get::<Entries>(c"cokv_emulator_entries")?();
            Ok(Self { first, _library: Some(library) })
        }
    }

    /// All there are.
    pub fn names(&self) -> Vec<&str> {
        self.entries().filter_map(|entry| name(entry).to_str().ok()).collect()
    }

    pub(crate) fn find(&self, kernel: &str) -> Option<&Entry> {
        self.entries().find(|entry| name(entry).to_bytes() == kernel.as_bytes())
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        // SAFETY: a list of structures that live as long as the library.
        let at = |entry: *const Entry| unsafe { entry.as_ref() };
        std::iter::successors(at(self.first), move |entry| at(entry.next))
    }
}

fn name(entry: &Entry) -> &CStr {
    // SAFETY: written by the compiler.
    unsafe { CStr::from_ptr(entry.name) }
}
