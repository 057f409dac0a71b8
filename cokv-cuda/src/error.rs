//! What can go wrong on a device.

use cokv_models::ModelError;
use thiserror::Error;

/// What this crate returns.
pub type Result<T> = std::result::Result<T, CudaError>;

/// Why a GPU did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A library is not there.
    #[error("{library} was not found ({what}); looked for {names} {places}. {advice}")]
    Library {
        /// As people call it.
        library: &'static str,
        /// What it is needed for.
        what: &'static str,
        /// File names that were tried.
        names: String,
        /// Folders that were tried.
        places: String,
        /// What to do.
        advice: &'static str,
    },
    /// There is no such device.
    #[error("there is no device cuda:{asked}; {}", devices(*found))]
    NoDevice {
        /// The number asked for.
        asked: usize,
        /// Devices of this machine.
        found: usize,
    },
    /// The card is too old for the kernels.
    #[error("{card} has compute capability {}.{}, and cokv's kernels need 8.0 (A100, RTX 30 and later)", capability.0, capability.1)]
    TooOld {
        /// The card's name.
        card: String,
        /// Its compute capability.
        capability: (i32, i32),
    },
    /// The device's memory is taken.
    #[error(
        "out of device memory: {} MiB were asked for and {} MiB of {} MiB are free (other processes count: see nvidia-smi)",
        asked >> 20, free >> 20, total >> 20
    )]
    OutOfMemory {
        /// Bytes asked for.
        asked: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes of the device.
        total: u64,
    },
    /// A call of the driver or of a library failed.
    #[error("{call} failed: {error}")]
    Call {
        /// What was called.
        call: &'static str,
        /// What it said.
        error: String,
    },
    /// The kernels were not compiled.
    #[error("NVRTC did not compile the kernels for {architecture}: {log}")]
    Compile {
        /// `sm_90`
        architecture: String,
        /// What the compiler said.
        log: String,
    },
    /// The device cannot do this.
    #[error("{0}")]
    Unsupported(String),
}

fn devices(found: usize) -> String {
    match found {
        0 => "the driver sees no device at all (see nvidia-smi, and CUDA_VISIBLE_DEVICES)".into(),
        1 => "this machine has one, cuda:0".into(),
        _ => format!("this machine has {found}, cuda:0 to cuda:{}", found - 1),
    }
}

impl CudaError {
    pub(crate) fn call(call: &'static str, error: impl std::fmt::Display) -> Self {
        Self::Call { call, error: error.to_string() }
    }
}

impl From<CudaError> for ModelError {
    fn from(error: CudaError) -> Self {
        Self::Backend(error.to_string())
    }
}
