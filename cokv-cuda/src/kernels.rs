//! The kernels' sources, which are compiled on the machine that runs them.

/// Files of `kernels/` in the order in which they make one program. The emulator has a `device.h` of its own.
pub const SOURCES: [(&str, &str); 12] = [
    ("device.h", include_str!("../kernels/device.h")),
    ("numbers.h", include_str!("../kernels/numbers.h")),
    ("tables.h", include_str!("../kernels/tables.h")),
    ("attend_few.cu", include_str!("../kernels/attend_few.cu")),
    ("attend_many.cu", include_str!("../kernels/attend_many.cu")),
    ("attention.cu", include_str!("../kernels/attention.cu")),
    ("attend_plain.cu", include_str!("../kernels/attend_plain.cu")),
    ("join.cu", include_str!("../kernels/join.cu")),
    ("elements.cu", include_str!("../kernels/elements.cu")),
    ("cache.cu", include_str!("../kernels/cache.cu")),
    ("answers.cu", include_str!("../kernels/answers.cu")),
    ("observations.cu", include_str!("../kernels/observations.cu")),
];

/// Sizes of heads that the fast kernels have.
pub const FAST_HEAD_DIMS: [usize; 4] = [64, 80, 96, 128];

/// The largest heads that there is a kernel for.
pub const LARGEST_HEAD_DIM: usize = 256;

/// Whether the fast kernels know heads of this size.
pub fn is_fast(head_dim: usize) -> bool {
    FAST_HEAD_DIMS.contains(&head_dim)
}

/// All sources as one program, with the lines of each file.
pub fn source() -> String {
    SOURCES.iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
}
