//! Matrices on a device.

use std::sync::Arc;

use bytemuck::Pod;

use crate::Result;
use crate::device::{Buffer, Device, Kind, Launch, Operand};

/// Numbers that a block of an elementwise kernel has of one row.
const BLOCK_NUMBERS: usize = 1024;
const BLOCK_THREADS: usize = 256;

/// `[rows, width]` numbers, rows `stride` apart: all of a buffer, or some columns of one.
#[derive(Debug)]
pub struct Matrix<B> {
    buffer: Arc<B>,
    address: u64,
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub width: usize,
    /// Numbers from one row to the next.
    pub stride: usize,
    /// How they are stored.
    pub kind: Kind,
}

impl<B> Clone for Matrix<B> {
    /// The same numbers in the same memory.
    fn clone(&self) -> Self {
        Self { buffer: Arc::clone(&self.buffer), ..*self }
    }
}

impl<B: Buffer> Matrix<B> {
    /// A matrix whose numbers nobody knows.
    pub fn new<D: Device<Buffer = B>>(device: &D, rows: usize, width: usize, kind: Kind) -> Result<Self> {
        let buffer = device.allocate(rows * width * kind.bytes())?;
        let address = buffer.address();
        Ok(Self { buffer: Arc::new(buffer), address, rows, width, stride: width, kind })
    }

    /// Numbers of the host, in f32.
    pub fn upload<D: Device<Buffer = B>>(device: &D, numbers: &[f32], width: usize) -> Result<Self> {
        let matrix = Self::new(device, numbers.len() / width, width, Kind::F32)?;
        device.upload(bytemuck::cast_slice(numbers), matrix.address)?;
        Ok(matrix)
    }

    /// To the host, widened.
    pub fn download<D: Device<Buffer = B>>(&self, device: &D) -> Result<Vec<f32>> {
        let whole = self.contiguous(device, Kind::F32)?;
        let mut numbers = vec![0f32; self.rows * self.width];
        device.download(whole.address, bytemuck::cast_slice_mut(&mut numbers))?;
        Ok(numbers)
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Where a row begins.
    pub fn row(&self, row: usize) -> u64 {
        self.address + (row * self.stride * self.kind.bytes()) as u64
    }

    /// Some of its columns.
    pub fn columns(&self, first: usize, width: usize) -> Self {
        Self { address: self.address + (first * self.kind.bytes()) as u64, width, ..self.clone() }
    }

    /// Some of its rows.
    pub fn some_rows(&self, first: usize, rows: usize) -> Self {
        Self { address: self.row(first), rows, ..self.clone() }
    }

    /// Whether four numbers of 32 bits can be read together everywhere.
    pub fn is_wide(&self) -> bool {
        self.address.is_multiple_of(16) && self.stride.is_multiple_of(4) && self.width.is_multiple_of(4)
    }

    /// As an operand of a product.
    pub fn operand(&self) -> Operand {
        Operand { address: self.address, stride: self.stride, kind: self.kind }
    }

    /// The same numbers of a kind, without gaps between rows: itself where it is that already.
    pub fn contiguous<D: Device<Buffer = B>>(&self, device: &D, kind: Kind) -> Result<Self> {
        if kind == self.kind && self.stride == self.width {
            return Ok(self.clone());
        }
        let to = Self::new(device, self.rows, self.width, kind)?;
        let arguments = [
            self.address.into(),
            self.kind.into(),
            self.stride.into(),
            to.address.into(),
            kind.into(),
            self.width.into(),
        ];
        device.launch(elementwise("convert", self.rows, self.width), &arguments)?;
        Ok(to)
    }
}

/// How kernels are launched that go over all numbers of a matrix.
pub fn elementwise(kernel: &str, rows: usize, width: usize) -> Launch<'_> {
    Launch { kernel, blocks: [rows, width.div_ceil(BLOCK_NUMBERS)], threads: BLOCK_THREADS, shared_bytes: 0 }
}

/// How kernels are launched that have a block for each row.
pub fn by_rows(kernel: &str, rows: usize) -> Launch<'_> {
    Launch { kernel, blocks: [rows, 1], threads: BLOCK_THREADS, shared_bytes: 0 }
}

/// Draws numbers (`elements.cu`): each from its place and the seed, with a standard deviation.
pub fn draw<D: Device>(device: &D, to: u64, kind: Kind, count: usize, seed: u64, deviation: f32) -> Result<()> {
    let arguments = [to.into(), kind.into(), (count as u64).into(), seed.into(), deviation.into()];
    device.launch(by_rows("draw", count.div_ceil(BLOCK_NUMBERS)), &arguments)
}

/// A table of the host's, on the device.
pub fn table<D: Device, T: Pod>(device: &D, rows: &[T]) -> Result<D::Buffer> {
    let bytes = bytemuck::cast_slice(rows);
    let buffer = device.allocate(bytes.len())?;
    device.upload(bytes, buffer.address())?;
    Ok(buffer)
}

/// A table of the device's, on the host.
pub fn read<D: Device, T: Pod>(device: &D, from: u64, count: usize) -> Result<Vec<T>> {
    let mut rows = vec![T::zeroed(); count];
    device.download(from, bytemuck::cast_slice_mut(&mut rows))?;
    Ok(rows)
}
