//! The device that models run on: chosen by name, opened with a clear reason
//! when it cannot be.

use std::{fmt, str::FromStr};

use anyhow::Result;
use burn::tensor::Device;

/// What `--device` and `exec.device` say, after `auto` is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// All cores of this machine (burn's flex backend).
    Cpu,
    /// A CUDA device by its index.
    Cuda(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// The text names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no device\nhint: use cpu, cuda or cuda:N")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceChoice {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':').unwrap_or((text, "0")) {
            ("cpu", "0") => Ok(Self::Cpu),
            ("cuda", index) => index
                .parse()
                .map(Self::Cuda)
                .map_err(|_| ParseDeviceError(text.to_owned())),
            _ => Err(ParseDeviceError(text.to_owned())),
        }
    }
}

/// What `--device auto` gives here, with a line to tell when a build for CUDA
/// finds no GPU and works on the CPU.
pub fn auto() -> (DeviceChoice, Option<String>) {
    #[cfg(feature = "cuda")]
    {
        match cuda::probe(0) {
            Ok(_) => (DeviceChoice::Cuda(0), None),
            Err(error) => (
                DeviceChoice::Cpu,
                Some(format!(
                    "no CUDA device can be used ({error:#}); running on the CPU"
                )),
            ),
        }
    }
    #[cfg(not(feature = "cuda"))]
    {
        (DeviceChoice::Cpu, None)
    }
}

/// Opens the device.
///
/// # Errors
/// When a CUDA device is asked for and the build, the driver, NVRTC or the
/// device is not there; the message says which.
pub fn open(choice: &DeviceChoice) -> Result<Device> {
    match choice {
        DeviceChoice::Cpu => Ok(Device::flex()),
        #[cfg(feature = "cuda")]
        DeviceChoice::Cuda(index) => cuda::probe(*index),
        #[cfg(not(feature = "cuda"))]
        DeviceChoice::Cuda(index) => anyhow::bail!(
            "failed to open `cuda:{index}`: this build has no CUDA\nhint: build with `cargo build --release --features cuda`, or use --device cpu"
        ),
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    //! Finding out whether a GPU works without letting a panic out.

    use anyhow::{Context, Result, anyhow};
    use burn::tensor::{Device, DeviceType, Tensor};

    /// Device `index`, after a small computation on it: burn panics when the
    /// driver, NVRTC or its headers are missing, so that happens on a thread
    /// whose end is looked at.
    pub(super) fn probe(index: usize) -> Result<Device> {
        let found = Device::enumerate(DeviceType::Cuda);
        let count = found.len();
        let device = found.into_iter().nth(index).with_context(|| match count {
            0 => "no CUDA driver or GPU was found".to_owned(),
            n => format!("there are only {n} GPUs"),
        })?;
        let on_thread = device.clone();
        std::thread::Builder::new()
            .name("runner cuda probe".to_owned())
            .spawn(move || Tensor::<1>::ones([8], &on_thread).exp().try_into_data().map(|_| ()))?
            .join()
            .map_err(|_| anyhow!("the first kernel failed\nhint: NVRTC and the CUDA headers must be installed; set CUDA_PATH"))?
            .map_err(|error| anyhow!("the first kernel failed: {error:?}"))?;
        Ok(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices_are_read_and_written_alike() {
        for name in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        assert_eq!(
            "cuda".parse::<DeviceChoice>().unwrap(),
            DeviceChoice::Cuda(0)
        );
        for name in ["gpu", "cuda:x", "cpu:1", ""] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
    }
}
