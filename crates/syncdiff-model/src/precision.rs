//! Types in which a network computes.

use crate::error::{ModelError, ModelResult};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use syncdiff_kernels::{bf16_weights, cpu_has_bf16};

/// The type of a network's weights and activations; on the CPU of its weights alone. Sums over many values
/// (normalisation, softmax) and everything outside the networks (sampler, noise, codebook, pictures) stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with 10 of fraction: values above 65,504 overflow.
    F16,
    /// 16 bits with 7 of fraction and the range of f32.
    Bf16,
}

impl Precision {
    /// The tensor type.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F16 => DType::F16,
            Precision::Bf16 => DType::BF16,
        }
    }

    /// Refuses what a device cannot do.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] on the CPU for f16, and for bf16 where the processor lacks it.
    pub fn check(self, device: &Device) -> ModelResult<()> {
        let allowed = match self {
            _ if !is_cpu(device) => return Ok(()),
            Precision::F32 => return Ok(()),
            Precision::Bf16 if cpu_has_bf16() => return Ok(()),
            Precision::Bf16 => {
                "f32 on this processor, which has neither AMX-BF16 nor AVX512-BF16; bf16 also runs on a GPU or LibTorch \
                 (--device)"
            }
            Precision::F16 => "f32 or bf16 on the CPU; f16 wants a GPU or LibTorch (--device)",
        };
        Err(ModelError::parameter("model", "precision", self, allowed))
    }

    /// As [`Precision::check`], for networks that learn.
    ///
    /// # Errors
    /// [`ModelError::Parameter`] also for bf16 on LibTorch's CPU: the bf16 convolution of oneDNN in PyTorch 2.11 answers
    /// wrongly for the kernels of gradients with respect to weights, which are as large as the picture.
    pub fn check_learning(self, device: &Device) -> ModelResult<()> {
        self.check(device)?;
        #[cfg(feature = "libtorch")]
        #[allow(deprecated)] // Burn marks the whole back end so.
        if self == Precision::Bf16 && device.clone().inner() == Device::libtorch() {
            let allowed = "f32 or f16 for learning on LibTorch's CPU, whose gradients in bf16 are wrong (oneDNN); bf16 \
                           learns on `--device cpu`";
            return Err(ModelError::parameter("model", "precision", self, allowed));
        }
        Ok(())
    }

    /// The network with its weights in this type. Inputs must be of the type of its biases: the same, but on the CPU,
    /// where matrices and kernels alone are of 16 bits and values between layers stay f32.
    pub fn convert<M: Module>(self, network: M) -> M {
        if self == Precision::F32 { network } else { network.map(&mut Converter(self.dtype())) }
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Precision::F32),
            "f16" => Ok(Precision::F16),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(format!("`{text}` is no precision; write f32, f16 or bf16")),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
            Precision::Bf16 => "bf16",
        })
    }
}

struct Converter(DType);

impl ModuleMapper for Converter {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.0;
        param.map(|tensor| match D {
            _ if dtype != DType::BF16 || !is_cpu(&tensor.device()) => tensor.cast(dtype),
            1 => tensor,
            _ => bf16_weights(tensor),
        })
    }
}

fn is_cpu(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// The tensor in another type; itself where it is of that type.
pub(crate) fn cast<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype { tensor } else { tensor.cast(dtype) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_computes_in_what_it_has() {
        assert!(Precision::F32.check(&Device::flex()).is_ok());
        assert!(Precision::F16.check(&Device::flex().autodiff()).unwrap_err().to_string().contains("f16"));
        assert_eq!(Precision::Bf16.check(&Device::flex()).is_ok(), cpu_has_bf16());
    }

    #[test]
    fn words_are_read_and_written_alike() {
        for precision in [Precision::F32, Precision::F16, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("half".parse::<Precision>().is_err());
    }
}
