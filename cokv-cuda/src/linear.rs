//! Weights on a device.

use std::sync::Arc;

use cokv_models::weights::{Numbers, Stored};
use half::bf16;

use crate::device::{Buffer, Device, Kind, Operand, Product};
use crate::matrix::{self, Matrix, elementwise};
use crate::{CudaError, Result};

/// `y = x wᵀ + b`
#[derive(Debug)]
pub struct Linear<B> {
    buffer: Arc<B>,
    /// `[out_features, in_features]`
    address: u64,
    kind: Kind,
    out_features: usize,
    in_features: usize,
    /// `[out_features]`, f32
    bias: Option<B>,
}

/// A weight as it comes from a checkpoint, with its bias.
pub type Read = (Stored, Option<Vec<f32>>);

/// How a weight is held: floats of 16 bits as they are, blocks in bf16, and f32 where that is asked for or in the file.
pub fn kind_of(weight: &Stored, dense: bool) -> Kind {
    match weight.numbers() {
        _ if dense => Kind::F32,
        Numbers::F32 => Kind::F32,
        Numbers::F16 => Kind::F16,
        Numbers::Bf16 | Numbers::Blocks(_) => Kind::Bf16,
    }
}

impl<B: Buffer> Linear<B> {
    /// Lays weights of one kind behind one another, so that their products with the same operand are one.
    pub fn load<D: Device<Buffer = B>>(
        device: &D,
        weights: Vec<Read>,
        kind: Kind,
    ) -> cokv_models::backend::Result<Vec<Self>> {
        let shapes = weights.iter().map(|(weight, _)| weight.matrix()).collect::<std::result::Result<Vec<_>, _>>()?;
        let total: usize = shapes.iter().map(|(rows, columns)| rows * columns * kind.bytes()).sum();
        let buffer = Arc::new(device.allocate(total)?);
        let mut address = buffer.address();
        let mut loaded = Vec::with_capacity(weights.len());
        for ((weight, bias), (out_features, in_features)) in weights.into_iter().zip(shapes) {
            if let Some(draw) = weight.draw() {
                matrix::draw(device, address, kind, draw.count, draw.seed, draw.deviation)?;
            } else {
                upload(device, &weight, kind, address)?;
            }
            let bias = bias.map(|bias| matrix::table(device, &bias)).transpose()?;
            loaded.push(Self { buffer: Arc::clone(&buffer), address, kind, out_features, in_features, bias });
            address += (out_features * in_features * kind.bytes()) as u64;
        }
        Ok(loaded)
    }

    /// Where the weight begins, which lies in rows of `in_features`.
    pub fn operand(&self) -> Operand {
        Operand { address: self.address, stride: self.in_features, kind: self.kind }
    }

    /// Rows of the weight.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Numbers of a row of the weight.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Bytes of the weight.
    pub fn bytes(&self) -> usize {
        self.out_features * self.in_features * self.kind.bytes()
    }

    fn end(&self) -> u64 {
        self.address + self.bytes() as u64
    }

    /// What several layers make of the same operand: one product where their weights lie behind one another.
    pub fn forward<D: Device<Buffer = B>, const N: usize>(
        device: &D,
        layers: [&Self; N],
        x: &Matrix<B>,
    ) -> Result<[Matrix<B>; N]> {
        let adjoin = |pair: &[&Self]| pair[0].end() == pair[1].address && Arc::ptr_eq(&pair[0].buffer, &pair[1].buffer);
        let columns: usize = layers.iter().map(|layer| layer.out_features).sum();
        let outputs = match layers.windows(2).all(adjoin) {
            true => {
                let y = Matrix::new(device, x.rows, columns, Kind::F32)?;
                layers[0].multiply(device, x, &y, columns, false)?;
                let mut first = 0;
                layers.map(|layer| {
                    first += layer.out_features;
                    y.columns(first - layer.out_features, layer.out_features)
                })
            }
            false => {
                let mut outputs = [const { None }; N];
                for (output, layer) in outputs.iter_mut().zip(layers) {
                    let y = Matrix::new(device, x.rows, layer.out_features, Kind::F32)?;
                    layer.multiply(device, x, &y, layer.out_features, false)?;
                    *output = Some(y);
                }
                outputs.map(|output| output.expect("one for each layer"))
            }
        };
        for (layer, y) in layers.iter().zip(&outputs) {
            layer.add_bias(device, y)?;
        }
        Ok(outputs)
    }

    /// `y += x wᵀ + b`
    pub fn add_to<D: Device<Buffer = B>>(&self, device: &D, x: &Matrix<B>, y: &Matrix<B>) -> Result<()> {
        self.multiply(device, x, y, self.out_features, true)?;
        self.add_bias(device, y)
    }

    /// `y = x wᵀ` with some of the weight's columns, as many as x has, of its kind.
    pub fn columns_times<D: Device<Buffer = B>>(
        &self,
        device: &D,
        first: usize,
        x: &Matrix<B>,
        y: &Matrix<B>,
    ) -> Result<()> {
        let whole = self.operand();
        let weight = Operand { address: whole.address + (first * self.kind.bytes()) as u64, ..whole };
        device.product(&Product {
            x: x.operand(),
            weight,
            y: y.address(),
            y_stride: y.stride,
            rows: x.rows,
            columns: self.out_features,
            inner: x.width,
            accumulate: false,
        })
    }

    fn multiply<D: Device<Buffer = B>>(
        &self,
        device: &D,
        x: &Matrix<B>,
        y: &Matrix<B>,
        columns: usize,
        accumulate: bool,
    ) -> Result<()> {
        if x.width != self.in_features {
            return Err(CudaError::Unsupported(format!(
                "{} numbers were given to a layer of {}",
                x.width, self.in_features
            )));
        }
        let x = if x.kind == self.kind { x.clone() } else { x.contiguous(device, self.kind)? };
        device.product(&Product {
            x: x.operand(),
            weight: self.operand(),
            y: y.address(),
            y_stride: y.stride,
            rows: x.rows,
            columns,
            inner: self.in_features,
            accumulate,
        })
    }

    fn add_bias<D: Device<Buffer = B>>(&self, device: &D, y: &Matrix<B>) -> Result<()> {
        let Some(bias) = &self.bias else { return Ok(()) };
        let arguments = [y.address().into(), y.stride.into(), bias.address().into(), y.width.into()];
        device.launch(elementwise("add_bias", y.rows, y.width), &arguments)
    }
}

/// Brings a weight's numbers to where they belong, as they are or narrowed.
fn upload<D: Device>(device: &D, weight: &Stored, kind: Kind, address: u64) -> cokv_models::backend::Result<()> {
    match (weight.numbers(), kind) {
        (Numbers::F16, Kind::F16) | (Numbers::Bf16, Kind::Bf16) | (Numbers::F32, Kind::F32) => {
            device.upload(weight.bytes(), address)?
        }
        (_, Kind::F32) => device.upload(bytemuck::cast_slice(&weight.dense()?), address)?,
        (_, Kind::F16) => {
            return Err(CudaError::Unsupported("weights are not narrowed to half precision".into()).into());
        }
        (_, Kind::Bf16) => {
            let narrow: Vec<u16> = weight.dense()?.into_iter().map(|x| bf16::from_f32(x).to_bits()).collect();
            device.upload(bytemuck::cast_slice(&narrow), address)?;
        }
    }
    Ok(())
}
