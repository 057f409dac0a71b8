//! What a device can do at most.

use std::time::Instant;

use cokv_models::backend::Ceilings;

use crate::Result;
use crate::device::{Buffer, Device, Kind, Operand, Product};
use crate::matrix::draw;

/// Rows and columns of the matrices of a large product; less is not the most that a card can do.
const SIDE: usize = 8192;
/// Bytes of a large copy, more than any cache of a card.
const COPIED: usize = 1 << 30;
const REPEATS: usize = 8;

/// Measures both with random numbers: zeros cost less.
pub fn measure<D: Device>(device: &D, kind: Kind) -> Result<Ceilings> {
    let buffer = device.allocate(2 * COPIED)?;
    draw(device, buffer.address(), kind, 2 * COPIED / kind.bytes(), 1, 1.0)?;
    let half = buffer.address() + COPIED as u64;
    let copy = seconds(device, || device.copy(buffer.address(), half, COPIED))?;
    let operand = |address| Operand { address, stride: SIDE, kind };
    let product = Product {
        x: operand(buffer.address()),
        weight: operand(buffer.address() + (SIDE * SIDE * kind.bytes()) as u64),
        y: half,
        y_stride: SIDE,
        rows: SIDE,
        columns: SIDE,
        inner: SIDE,
        accumulate: false,
    };
    let product = seconds(device, || device.product(&product))?;
    Ok(Ceilings {
        device: device.description(),
        bytes_per_second: 2.0 * COPIED as f64 / copy,
        operations_per_second: 2.0 * (SIDE as f64).powi(3) / product,
        numbers: kind.name(),
    })
}

/// Of one call, after one that does not count.
fn seconds<D: Device>(device: &D, call: impl Fn() -> Result<()>) -> Result<f64> {
    call()?;
    device.synchronise()?;
    let started = Instant::now();
    (0..REPEATS).try_for_each(|_| call())?;
    device.synchronise()?;
    Ok(started.elapsed().as_secs_f64() / REPEATS as f64)
}
