//! Numbers in the memory of a device.

use cokv_cuda::device::{Buffer, Device, Kind};
use cokv_emulator::{Emulated, HostBuffer, Random};
use half::{bf16, f16};

/// Roughly normal, of unit variance.
pub fn normal(random: &mut Random) -> f32 {
    let uniform = |random: &mut Random| (random.below(1 << 24) as f32 + 0.5) / (1 << 24) as f32;
    (-2.0 * uniform(random).ln()).sqrt() * (std::f32::consts::TAU * uniform(random)).cos()
}

/// So many of them that a kind can hold.
pub fn normals(random: &mut Random, kind: Kind, count: usize) -> Vec<f32> {
    (0..count).map(|_| rounded(kind, normal(random))).collect()
}

pub fn rounded(kind: Kind, x: f32) -> f32 {
    match kind {
        Kind::F32 => x,
        Kind::F16 => f16::from_f32(x).to_f32(),
        Kind::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

/// The largest error of rounding a number near 1.
pub fn unit_error(kind: Kind) -> f64 {
    match kind {
        Kind::F32 => 2f64.powi(-24),
        Kind::F16 => 2f64.powi(-11),
        Kind::Bf16 => 2f64.powi(-8),
    }
}

pub fn stored(kind: Kind, numbers: &[f32]) -> Vec<u8> {
    match kind {
        Kind::F32 => numbers.iter().flat_map(|x| x.to_ne_bytes()).collect(),
        Kind::F16 => numbers.iter().flat_map(|&x| f16::from_f32(x).to_ne_bytes()).collect(),
        Kind::Bf16 => numbers.iter().flat_map(|&x| bf16::from_f32(x).to_ne_bytes()).collect(),
    }
}

pub fn read(kind: Kind, bytes: &[u8]) -> Vec<f32> {
    match kind {
        Kind::F32 => bytes.as_chunks().0.iter().map(|&four| f32::from_ne_bytes(four)).collect(),
        Kind::F16 => bytes.as_chunks().0.iter().map(|&pair| f16::from_ne_bytes(pair).to_f32()).collect(),
        Kind::Bf16 => bytes.as_chunks().0.iter().map(|&pair| bf16::from_ne_bytes(pair).to_f32()).collect(),
    }
}

pub fn put(device: &Emulated, bytes: &[u8]) -> HostBuffer {
    let buffer = device.allocate(bytes.len()).unwrap();
    device.upload(bytes, buffer.address()).unwrap();
    buffer
}

pub fn put_numbers(device: &Emulated, kind: Kind, numbers: &[f32]) -> HostBuffer {
    put(device, &stored(kind, numbers))
}

pub fn get(device: &Emulated, buffer: &HostBuffer) -> Vec<u8> {
    let mut bytes = vec![0; buffer.bytes()];
    device.download(buffer.address(), &mut bytes).unwrap();
    bytes
}
