//! Whether the processor has tiles and the system lets this process use them.

use std::arch::x86_64::{__cpuid_count, _xgetbv};

/// Whether this process may use tiles of bytes and of bf16. Asks the system for them, which grants them to all threads at once.
///
/// The processor must be known to save its registers by `xsave` (all with AVX-512 do).
pub(super) fn tiles_permitted() -> bool {
    // SAFETY: the caller's knowledge.
    processor_has_tiles() && unsafe { system_saves_tiles() } && system_grants_tiles()
}

fn processor_has_tiles() -> bool {
    const FEATURES: u32 = 7;
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    #[allow(unused_unsafe, reason = "safe from Rust 1.94 on")]
    // SAFETY: all processors with AVX-512 answer.
    let features = unsafe { __cpuid_count(FEATURES, 0) }.edx;
    features & (BF16 | TILE | INT8) == BF16 | TILE | INT8
}

/// Whether the system saves the tiles and their configuration when threads switch.
///
/// # Safety
///
/// The system must have enabled `xsave`.
#[target_feature(enable = "xsave")]
unsafe fn system_saves_tiles() -> bool {
    const CONFIGURATION: u64 = 1 << 17;
    const DATA: u64 = 1 << 18;
    #[allow(unused_unsafe, reason = "not everywhere safe with the feature")]
    // SAFETY: register 0 is there where `xsave` is enabled.
    let saved = unsafe { _xgetbv(0) };
    saved & (CONFIGURATION | DATA) == CONFIGURATION | DATA
}

/// Linux gives a process room for 8 KiB more of state when it asks, and kills one that has not.
#[cfg(target_os = "linux")]
fn system_grants_tiles() -> bool {
    use std::ffi::c_long;
    const ARCH_PRCTL: c_long = 158;
    const ARCH_REQ_XCOMP_PERM: c_long = 0x1023;
    const XFEATURE_XTILEDATA: c_long = 18;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    // SAFETY: the declaration is that of unistd.h; this request takes two numbers and no address.
    unsafe { syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_grants_tiles() -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn tiles_are_permitted_only_where_the_system_lists_them() {
        let listed = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| listed.split_whitespace().any(|listed| listed == flag);
        assert!(std::arch::is_x86_feature_detected!("xsave"));
        assert!(!super::tiles_permitted() || has("amx_tile") && has("amx_int8") && has("amx_bf16"));
    }
}
