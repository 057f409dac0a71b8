//! `device = "auto"`: where a model computes.

use std::fmt;
use std::str::FromStr;

use cokv_models::Device;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where a model computes, as users write it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceSetting {
    /// The first GPU that the kernels can use, where there is one; else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda(usize),
    /// An Apple GPU, in builds that know it.
    Metal(usize),
}

impl DeviceSetting {
    /// What `auto` is on this machine.
    pub fn resolved(self) -> Self {
        match self {
            Self::Auto if cfg!(feature = "metal") => Self::Metal(0),
            Self::Auto if has_gpu() => Self::Cuda(0),
            Self::Auto => Self::Cpu,
            chosen => chosen,
        }
    }

    /// The name of the backend that computes there, which goes into fingerprints.
    pub fn backend(self) -> &'static str {
        match self.resolved() {
            Self::Cuda(_) => "cuda",
            other => other.built_in().unwrap_or_default().backend(),
        }
    }

    /// Whether weights and caches lie in the host's memory.
    pub fn is_host(self) -> bool {
        self.resolved().built_in().is_some_and(Device::is_host)
    }

    /// The device of cokv-models; none of CUDA's, which are another crate's.
    pub fn built_in(self) -> Option<Device> {
        match self {
            Self::Auto | Self::Cuda(_) => None,
            Self::Cpu => Some(Device::Cpu),
            Self::Metal(index) => Some(Device::Metal(index)),
        }
    }
}

#[cfg(feature = "cuda")]
fn has_gpu() -> bool {
    static FOUND: std::sync::LazyLock<bool> = std::sync::LazyLock::new(cokv_cuda::gpu::is_there);
    *FOUND
}

#[cfg(not(feature = "cuda"))]
fn has_gpu() -> bool {
    false
}

impl FromStr for DeviceSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, index) = match text.split_once(':') {
            None => (text, Ok(0)),
            Some((kind, index)) => (kind, index.parse()),
        };
        match (kind, index) {
            ("auto", Ok(0)) if !text.contains(':') => Ok(Self::Auto),
            ("cpu", Ok(0)) if !text.contains(':') => Ok(Self::Cpu),
            ("cuda", Ok(index)) => Ok(Self::Cuda(index)),
            ("metal", Ok(index)) => Ok(Self::Metal(index)),
            _ => Err(format!(
                "there is no device `{text}`: write auto, cpu, cuda or cuda:1 (metal in builds that know it)"
            )),
        }
    }
}

impl fmt::Display for DeviceSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Metal(0) => f.write_str("metal"),
            Self::Metal(index) => write!(f, "metal:{index}"),
        }
    }
}

impl Serialize for DeviceSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceSetting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_written_back() {
        for text in ["auto", "cpu", "cuda", "cuda:1", "metal"] {
            assert_eq!(text.parse::<DeviceSetting>().unwrap().to_string(), text);
        }
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cpu:1", "cuda:-1"] {
            assert!(wrong.parse::<DeviceSetting>().unwrap_err().contains("write auto, cpu, cuda"), "{wrong}");
        }
    }
}
