//! Where the networks run: the one place that turns `--device` into a device.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::error::{Error, Outcome};

/// What the user asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device of this build that answers; the CPU where there is no other.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU through Vulkan, by number.
    Vulkan(usize),
    /// An NVIDIA GPU through CUDA, by number.
    Cuda(usize),
    /// A GPU through Metal, by number.
    Metal(usize),
    /// LibTorch: its CPU, or a CUDA device by number.
    LibTorch(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no device; write auto, cpu, vulkan:N, cuda:N, metal:N, libtorch or libtorch:N");
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number.parse::<usize>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        match (kind, number) {
            ("auto", None) => Ok(DeviceChoice::Auto),
            ("cpu", None) => Ok(DeviceChoice::Cpu),
            ("vulkan", number) => Ok(DeviceChoice::Vulkan(number.unwrap_or(0))),
            ("cuda", number) => Ok(DeviceChoice::Cuda(number.unwrap_or(0))),
            ("metal", number) => Ok(DeviceChoice::Metal(number.unwrap_or(0))),
            ("libtorch", number) => Ok(DeviceChoice::LibTorch(number)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Vulkan(number) => write!(f, "vulkan:{number}"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceChoice::Metal(number) => write!(f, "metal:{number}"),
            DeviceChoice::LibTorch(None) => f.write_str("libtorch"),
            DeviceChoice::LibTorch(Some(number)) => write!(f, "libtorch:{number}"),
        }
    }
}

impl serde::Serialize for DeviceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The back ends that this build holds, by the names of `--device`.
pub fn compiled() -> Vec<&'static str> {
    let features = [
        ("cpu", true),
        ("vulkan", cfg!(feature = "vulkan")),
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("libtorch", cfg!(feature = "libtorch")),
    ];
    features.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

/// The device for a choice, and the choice that `auto` came to.
///
/// # Errors
/// [`Error::Usage`] when this build lacks the back end or the machine has no such device; the message names the cargo
/// feature.
pub fn resolve(choice: DeviceChoice) -> Outcome<(Device, DeviceChoice)> {
    let device = match choice {
        DeviceChoice::Auto => return resolve(automatic()),
        DeviceChoice::Cpu => Device::flex(),
        DeviceChoice::Vulkan(number) => vulkan(number)?,
        DeviceChoice::Cuda(number) => cuda(number)?,
        DeviceChoice::Metal(number) => metal(number)?,
        DeviceChoice::LibTorch(number) => libtorch(number)?,
    };
    Ok((device, choice))
}

/// The first GPU back end of the build that lists a device, else the CPU.
fn automatic() -> DeviceChoice {
    #[cfg(feature = "cuda")]
    if !Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().is_empty() {
        return DeviceChoice::Cuda(0);
    }
    #[cfg(feature = "metal")]
    if !Device::enumerate(burn::tensor::DeviceType::Metal).into_vec().is_empty() {
        return DeviceChoice::Metal(0);
    }
    #[cfg(feature = "vulkan")]
    if !Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec().is_empty() {
        return DeviceChoice::Vulkan(0);
    }
    DeviceChoice::Cpu
}

/// Takes the numbered device of a list that the back end gave.
#[cfg(any(feature = "vulkan", feature = "cuda", feature = "metal"))]
fn numbered(kind: &str, devices: Vec<Device>, number: usize) -> Outcome<Device> {
    let found = devices.len();
    devices.into_iter().nth(number).ok_or_else(|| {
        Error::usage(
            format!("--device {kind}:{number}: this machine lists {found} devices for {kind}, counted from 0"),
            "choose another number, or --device cpu",
        )
    })
}

/// The error for a back end that was left out of the build.
#[cfg(not(all(feature = "vulkan", feature = "cuda", feature = "metal", feature = "libtorch")))]
fn lacking(choice: DeviceChoice, feature: &str) -> Error {
    Error::usage(
        format!("--device {choice}: this build lacks the back end, its cargo feature `{feature}` is off"),
        format!("build with `cargo build --release -p syncdiff --features {feature}`, or use --device cpu"),
    )
}

#[cfg(feature = "vulkan")]
fn vulkan(number: usize) -> Outcome<Device> {
    numbered("vulkan", Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(), number)
}

#[cfg(not(feature = "vulkan"))]
fn vulkan(number: usize) -> Outcome<Device> {
    Err(lacking(DeviceChoice::Vulkan(number), "vulkan"))
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> Outcome<Device> {
    numbered("cuda", Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(), number)
}

#[cfg(not(feature = "cuda"))]
fn cuda(number: usize) -> Outcome<Device> {
    Err(lacking(DeviceChoice::Cuda(number), "cuda"))
}

#[cfg(feature = "metal")]
fn metal(number: usize) -> Outcome<Device> {
    numbered("metal", Device::enumerate(burn::tensor::DeviceType::Metal).into_vec(), number)
}

#[cfg(not(feature = "metal"))]
fn metal(number: usize) -> Outcome<Device> {
    Err(lacking(DeviceChoice::Metal(number), "metal"))
}

#[cfg(feature = "libtorch")]
#[allow(deprecated)] // Burn 0.22 marks the whole back end so; it is still the fastest on some machines.
fn libtorch(number: Option<usize>) -> Outcome<Device> {
    Ok(match number {
        Some(number) => Device::libtorch_cuda(number),
        None => Device::libtorch(),
    })
}

#[cfg(not(feature = "libtorch"))]
fn libtorch(number: Option<usize>) -> Outcome<Device> {
    Err(lacking(DeviceChoice::LibTorch(number), "libtorch"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written_alike() {
        for text in ["auto", "cpu", "vulkan:1", "cuda:0", "metal:2", "libtorch", "libtorch:1"] {
            assert_eq!(text.parse::<DeviceChoice>().map(|choice| choice.to_string()), Ok(text.to_owned()));
        }
        for wrong in ["", "gpu", "cpu:1", "cuda:x", "auto:0", "cuda:-1"] {
            assert!(wrong.parse::<DeviceChoice>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(resolve(DeviceChoice::Cpu).map(|(_, choice)| choice).ok(), Some(DeviceChoice::Cpu));
        assert!(compiled().contains(&"cpu"));
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_missing_back_end_names_its_feature() {
        let error = resolve(DeviceChoice::Cuda(0)).map(|_| ()).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--features cuda"), "{error}");
    }
}
