//! Memory as the system gives and takes it.

/// Bytes of the larger pages of most systems.
pub const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages behind memory that is not yet written to; a wish that a system may not have, or not grant.
pub fn prefer_huge_pages(start: *mut u8, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        const MADV_HUGEPAGE: std::ffi::c_int = 14;
        unsafe extern "C" {
            fn madvise(start: *mut std::ffi::c_void, bytes: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
        }
        // SAFETY: the declaration is that of sys/mman.h; this advice changes nothing that a program can see, whatever the
        // addresses are.
        unsafe { madvise(start.cast(), bytes, MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

/// Gives back what was freed: a smaller cache should be a smaller process. glibc's allocator keeps most of it otherwise; others
/// do it by themselves, or have no way to be asked. Takes some milliseconds: for after a model is loaded, or a prompt let go.
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
