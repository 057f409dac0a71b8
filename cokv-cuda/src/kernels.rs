//! The kernels' sources, which are compiled on the machine that runs them.

use crate::device::Kind;

/// What every program begins with. The emulator has a `device.h` of its own.
const SHARED: [(&str, &str); 3] = [
    ("device.h", include_str!("../kernels/device.h")),
    ("numbers.h", include_str!("../kernels/numbers.h")),
    ("tables.h", include_str!("../kernels/tables.h")),
];

/// Attention by products of fragments, for caches of one type and heads of one size.
const FAST: [(&str, &str); 3] = [
    ("attend_few.cu", include_str!("../kernels/attend_few.cu")),
    ("attend_many.cu", include_str!("../kernels/attend_many.cu")),
    ("attention.cu", include_str!("../kernels/attention.cu")),
];

/// Everything else, for all types and sizes.
const GENERAL: [(&str, &str); 6] = [
    ("attend_plain.cu", include_str!("../kernels/attend_plain.cu")),
    ("join.cu", include_str!("../kernels/join.cu")),
    ("elements.cu", include_str!("../kernels/elements.cu")),
    ("cache.cu", include_str!("../kernels/cache.cu")),
    ("answers.cu", include_str!("../kernels/answers.cu")),
    ("observations.cu", include_str!("../kernels/observations.cu")),
];

/// Kernels that are compiled together, when the first of them is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// The fast kernels of caches of a type; of no use for f32.
    Fast(Kind),
    /// All others.
    General,
}

impl Program {
    /// The program that a kernel is of.
    pub fn of(kernel: &str) -> Self {
        let fast = ["attend_few_", "attend_many_"].iter().find_map(|prefix| kernel.strip_prefix(prefix));
        match fast {
            Some(rest) if rest.starts_with("bf16") => Self::Fast(Kind::Bf16),
            Some(_) => Self::Fast(Kind::F16),
            None => Self::General,
        }
    }

    /// Its text, with the lines of each file.
    pub fn source(self) -> String {
        let own: &[(&str, &str)] = match self {
            Self::Fast(_) => &FAST,
            Self::General => &GENERAL,
        };
        SHARED.iter().chain(own).map(|(name, text)| format!("#line 1 \"{name}\"\n{text}")).collect()
    }

    /// What the compiler is told of it, for heads of some size.
    pub fn options(self, head_dim: usize) -> Vec<String> {
        match self {
            Self::General => Vec::new(),
            Self::Fast(kind) => {
                let name = kind.name();
                vec![
                    format!("-DHEAD_DIM={head_dim}"),
                    format!("-DNUMBER={}", name.to_uppercase()),
                    format!("-DNUMBER_NAME={name}"),
                ]
            }
        }
    }
}

/// Sizes of heads that the fast kernels have.
pub const FAST_HEAD_DIMS: [usize; 4] = [64, 80, 96, 128];

/// The largest heads that there is a kernel for.
pub const LARGEST_HEAD_DIM: usize = 256;

/// Whether the fast kernels know heads of this size.
pub fn is_fast(head_dim: usize) -> bool {
    FAST_HEAD_DIMS.contains(&head_dim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_has_a_program() {
        assert_eq!(Program::of("attend_few_bf16_128"), Program::Fast(Kind::Bf16));
        assert_eq!(Program::of("attend_many_f16_64_2"), Program::Fast(Kind::F16));
        assert_eq!(Program::of("attend_plain_f16"), Program::General);
        assert!(Program::General.options(128).is_empty());
        assert_eq!(Program::Fast(Kind::Bf16).options(80), ["-DHEAD_DIM=80", "-DNUMBER=BF16", "-DNUMBER_NAME=bf16"]);
    }
}
