//! Weights as floats of 16 or 32 bits, whichever their file has: a checkpoint of 8 billion numbers takes 16 GB and not 32.
//!
//! Those of 16 bits are widened in registers or piece by piece, which is exact: a product has the bits that it has of the same
//! weights in f32.

use half::{bf16, f16};

use super::huge::Huge;
use super::matmul;
use super::vector::Number;

/// `w` of `y = x wᵀ`, `[columns, inner]`.
pub struct Weight {
    numbers: Numbers,
    inner: usize,
}

enum Numbers {
    F32(Huge<f32>),
    F16(Huge<f16>),
    Bf16(Huge<bf16>),
}

/// Runs the same expression on whichever array is inside.
macro_rules! each {
    ($self:expr, $numbers:ident => $expression:expr) => {
        match &$self.numbers {
            Numbers::F32($numbers) => $expression,
            Numbers::F16($numbers) => $expression,
            Numbers::Bf16($numbers) => $expression,
        }
    };
}

impl Weight {
    /// `[columns, inner]` numbers of 32 bits.
    pub fn f32(numbers: impl ExactSizeIterator<Item = f32>, inner: usize) -> Self {
        Self { numbers: Numbers::F32(Huge::collect(numbers)), inner }
    }

    /// Of half precision.
    pub fn f16(numbers: impl ExactSizeIterator<Item = f16>, inner: usize) -> Self {
        Self { numbers: Numbers::F16(Huge::collect(numbers)), inner }
    }

    /// Of bfloat16.
    pub fn bf16(numbers: impl ExactSizeIterator<Item = bf16>, inner: usize) -> Self {
        Self { numbers: Numbers::Bf16(Huge::collect(numbers)), inner }
    }

    /// Columns of the result.
    pub fn columns(&self) -> usize {
        each!(self, numbers => numbers.len()) / self.inner
    }

    /// Numbers of a row of the other operand.
    pub fn inner(&self) -> usize {
        self.inner
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        each!(self, numbers => size_of_val(&numbers[..]))
    }

    /// Writes the numbers of one column, `[inner]`.
    pub fn column(&self, column: usize, out: &mut [f32]) {
        let range = column * self.inner..(column + 1) * self.inner;
        each!(self, numbers => out.iter_mut().zip(&numbers[range]).for_each(|(out, number)| *out = number.widen()));
    }

    /// `x wᵀ` on all threads, `[rows, columns]`.
    pub fn product(&self, x: &[f32]) -> Vec<f32> {
        each!(self, numbers => matmul::linear(x, numbers, x.len() / self.inner, self.inner, self.columns()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_held_as_they_come() {
        let numbers = || (0..24).map(|i| i as f32 / 8.0);
        let weights = [
            Weight::f32(numbers(), 8),
            Weight::f16(numbers().map(f16::from_f32), 8),
            Weight::bf16(numbers().map(bf16::from_f32), 8),
        ];
        assert_eq!(weights.each_ref().map(Weight::bytes), [96, 48, 48]);
        for weight in weights {
            assert_eq!((weight.columns(), weight.inner()), (3, 8));
            let mut column = [0.0; 8];
            weight.column(2, &mut column);
            assert_eq!(column[..], numbers().skip(16).collect::<Vec<_>>());
            let x = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 2.0];
            assert_eq!(weight.product(&x), [0.0 + 2.0 * 0.875, 1.0 + 2.0 * 1.875, 2.0 + 2.0 * 2.875]);
        }
    }
}
