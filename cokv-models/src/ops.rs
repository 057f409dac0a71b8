//! What stands between the linear layers, on the device where it is: on the CPU our own kernels, whose threads are those of
//! the products; elsewhere candle's.

use candle_core::{Device, Tensor};
use candle_nn::ops;

use crate::error::ModelError;
use crate::kernel::elementwise;
use crate::linear::with_slice;

/// Root-mean-square norm of each row of `x`, `[rows, width]`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f32) -> Result<Tensor, ModelError> {
    match x.device() {
        Device::Cpu => pair(x, weight, |x, weight| elementwise::rms_norm(x, weight, epsilon)),
        _ => Ok(ops::rms_norm(&x.contiguous()?, weight, epsilon)?),
    }
}

/// `silu(gate) * up`
pub fn silu_times(gate: &Tensor, up: &Tensor) -> Result<Tensor, ModelError> {
    match gate.device() {
        Device::Cpu => pair(gate, up, elementwise::silu_times),
        _ => Ok((ops::silu(gate)? * up)?),
    }
}

/// `a + b`
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor, ModelError> {
    match a.device() {
        Device::Cpu => pair(a, b, elementwise::add),
        _ => Ok((a + b)?),
    }
}

/// Makes a tensor of the shape of `a` from both operands.
fn pair(a: &Tensor, b: &Tensor, work: impl FnOnce(&[f32], &[f32]) -> Vec<f32>) -> Result<Tensor, ModelError> {
    let a = a.contiguous()?;
    let result = with_slice(&a, |a| with_slice(b, |b| work(a, b)))??;
    Ok(Tensor::from_vec(result, a.shape(), &Device::Cpu)?)
}
