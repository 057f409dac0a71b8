//! Memory that is free, given back to the system: a smaller cache should be a smaller process.

/// Gives back what was freed. glibc's allocator keeps most of it otherwise; others do it by themselves, or have no way to be
/// asked. Takes some milliseconds: for after a model is loaded, or a prompt let go.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the declaration is that of malloc.h; the function may be called at any time from any thread.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        malloc_trim(0);
    }
}
