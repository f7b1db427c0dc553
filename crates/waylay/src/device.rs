//! Where a run computes: the processor, or a GPU where the program was built for one.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

pub use burn::tensor::Device;

/// A kind of device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor, with this project's own kernels.
    #[default]
    Cpu,
    /// NVIDIA's GPUs; built in by the feature `cuda`.
    Cuda,
    /// GPUs through Vulkan, Metal or DirectX 12; built in by the feature `wgpu`.
    Wgpu,
}

/// Why a device cannot be had.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// No such kind.
    #[error("device `{0}` is not known; need cpu, cuda or wgpu")]
    Unknown(String),
    /// Left out of this program.
    #[error("this program was built without {0}; need one that was built with the feature `{0}`")]
    NotBuilt(DeviceKind),
    /// The machine has none.
    #[error("no {0} device is found on this machine; is its driver installed?")]
    Absent(DeviceKind),
}

impl DeviceKind {
    /// The first device of this kind.
    ///
    /// # Errors
    /// Where the program was built without it, or the machine has none.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => self.first(burn::tensor::DeviceType::Cuda),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => self.first(burn::tensor::DeviceType::Wgpu),
            #[allow(unreachable_patterns)] // Not with every feature.
            kind => Err(DeviceError::NotBuilt(kind)),
        }
    }

    /// The driver is asked on a thread of its own: a machine without one makes Burn panic.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn first(self, kind: burn::tensor::DeviceType) -> Result<Device, DeviceError> {
        let found = std::thread::spawn(move || Device::enumerate(kind).into_vec().into_iter().next()).join();
        found.ok().flatten().ok_or(DeviceError::Absent(self))
    }
}

impl FromStr for DeviceKind {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "wgpu" => Ok(Self::Wgpu),
            other => Err(DeviceError::Unknown(other.into())),
        }
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_read() {
        for kind in [DeviceKind::Cpu, DeviceKind::Cuda, DeviceKind::Wgpu] {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("gpu".parse::<DeviceKind>(), Err(DeviceError::Unknown("gpu".into())));
    }

    #[test]
    fn the_processor_is_always_there_and_what_is_left_out_says_so() {
        assert!(DeviceKind::Cpu.open().is_ok());
        if cfg!(not(feature = "cuda")) {
            let text = DeviceKind::Cuda.open().unwrap_err().to_string();
            assert!(text.contains("with the feature `cuda`"), "{text}");
        }
    }
}
