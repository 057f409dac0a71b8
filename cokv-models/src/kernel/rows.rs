//! Keys and values of one KV head.

use std::ops::Range;

use cokv_core::{Format, Pairs};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::row_blocks::{Bits, RowBlocks};
use super::simd::{widen_bf16, widen_f16};

/// A growing array of numbers stored in a [`Format`].
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Stored as they are.
    F32(Vec<f32>),
    /// Rounded to half precision.
    F16(Vec<f16>),
    /// Rounded to bfloat16.
    Bf16(Vec<bf16>),
    /// Rounded to 8 or 4 bits, 32 with a scale.
    Blocks(RowBlocks),
}

/// Runs the same expression on whichever vector is inside.
macro_rules! each {
    ($self:expr, $data:ident => $expression:expr) => {
        match $self {
            Elements::F32($data) => $expression,
            Elements::F16($data) => $expression,
            Elements::Bf16($data) => $expression,
            Elements::Blocks($data) => $expression,
        }
    };
}

impl Elements {
    /// Room for some rows of so many numbers.
    fn with_capacity(format: Format, width: usize, rows: usize) -> Self {
        let capacity = rows * width;
        match format {
            Format::F32 => Elements::F32(Vec::with_capacity(capacity)),
            Format::F16 => Elements::F16(Vec::with_capacity(capacity)),
            Format::Bf16 => Elements::Bf16(Vec::with_capacity(capacity)),
            Format::Q8 => Elements::Blocks(RowBlocks::with_capacity(Bits::Eight, width, rows)),
            Format::Q4 => Elements::Blocks(RowBlocks::with_capacity(Bits::Four, width, rows)),
        }
    }

    /// Numbers stored.
    pub fn len(&self) -> usize {
        each!(self, data => data.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn capacity(&self) -> usize {
        each!(self, data => data.capacity())
    }

    fn allocated_bytes(&self) -> usize {
        match self {
            Elements::F32(data) => size_of::<f32>() * data.capacity(),
            Elements::F16(data) => size_of::<f16>() * data.capacity(),
            Elements::Bf16(data) => size_of::<bf16>() * data.capacity(),
            Elements::Blocks(data) => data.allocated_bytes(),
        }
    }

    /// Whole rows.
    fn extend(&mut self, numbers: &[f32]) {
        match self {
            Elements::F32(data) => data.extend_from_slice(numbers),
            Elements::F16(data) => {
                let start = data.len();
                data.resize(start + numbers.len(), f16::ZERO);
                data[start..].convert_from_f32_slice(numbers);
            }
            Elements::Bf16(data) => {
                let start = data.len();
                data.resize(start + numbers.len(), bf16::ZERO);
                data[start..].convert_from_f32_slice(numbers);
            }
            Elements::Blocks(data) => data.extend(numbers),
        }
    }

    /// Copies a range to f32; of blocks, whole rows.
    pub fn widen(&self, range: Range<usize>, out: &mut [f32]) {
        match self {
            Elements::F32(data) => out.copy_from_slice(&data[range]),
            Elements::F16(data) => widen_f16(&data[range], out),
            Elements::Bf16(data) => widen_bf16(&data[range], out),
            Elements::Blocks(data) => data.widen(range, out),
        }
    }

    /// The numbers themselves where they are stored as f32.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match self {
            Elements::F32(data) => Some(data),
            _ => None,
        }
    }

    /// Both are stored in one format, which the caches that they belong to see to.
    fn append(&mut self, from: &Self, range: Range<usize>) {
        match (self, from) {
            (Elements::F32(data), Elements::F32(from)) => data.extend_from_slice(&from[range]),
            (Elements::F16(data), Elements::F16(from)) => data.extend_from_slice(&from[range]),
            (Elements::Bf16(data), Elements::Bf16(from)) => data.extend_from_slice(&from[range]),
            (Elements::Blocks(data), Elements::Blocks(from)) => data.append(from, range),
            _ => unreachable!("rows of one format"),
        }
    }

    fn gather(&self, rows: &[u32], width: usize) -> Self {
        fn pick<T: Copy>(data: &[T], rows: &[u32], width: usize) -> Vec<T> {
            let mut picked = Vec::with_capacity(rows.len() * width);
            for &row in rows {
                picked.extend_from_slice(&data[row as usize * width..(row as usize + 1) * width]);
            }
            picked
        }
        match self {
            Elements::F32(data) => Elements::F32(pick(data, rows, width)),
            Elements::F16(data) => Elements::F16(pick(data, rows, width)),
            Elements::Bf16(data) => Elements::Bf16(pick(data, rows, width)),
            Elements::Blocks(data) => Elements::Blocks(data.gather(rows)),
        }
    }
}

/// Tokens that a full buffer makes room for.
const SLACK: usize = 32;

/// Keys and values of one KV head, `[rows, head_dim]` each, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadRows {
    head_dim: usize,
    keys: Elements,
    values: Elements,
    /// Of each row, added to its logits; none where no row has one.
    biases: Option<Vec<f32>>,
}

impl HeadRows {
    /// No rows, with room for some.
    pub fn with_capacity(head_dim: usize, format: Format, rows: usize) -> Self {
        let elements = || Elements::with_capacity(format, head_dim, rows);
        Self { head_dim, keys: elements(), values: elements(), biases: None }
    }

    /// These rows in exactly their memory.
    pub fn of_pairs(head_dim: usize, format: Format, pairs: &Pairs) -> Self {
        let mut rows = Self::with_capacity(head_dim, format, pairs.keys.len() / head_dim);
        rows.keys.extend(&pairs.keys);
        rows.values.extend(&pairs.values);
        rows.biases = (!pairs.biases.is_empty()).then(|| pairs.biases.clone());
        rows
    }

    /// Tokens stored.
    pub fn len(&self) -> usize {
        self.keys.len() / self.head_dim
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Appends one token: a key and a value, `[head_dim]` each. Full buffers grow by a fixed slack, not by doubling,
    /// so that a small cache stays small.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        if self.keys.len() + self.head_dim > self.keys.capacity() {
            self.reserve(SLACK);
        }
        self.keys.extend(key);
        self.values.extend(value);
        self.biases.iter_mut().for_each(|biases| biases.push(0.0));
    }

    /// Makes room for this many more tokens and no more.
    pub fn reserve(&mut self, rows: usize) {
        let more = rows * self.head_dim;
        each!(&mut self.keys, data => data.reserve_exact(more));
        each!(&mut self.values, data => data.reserve_exact(more));
        self.biases.iter_mut().for_each(|biases| biases.reserve_exact(rows));
    }

    /// Drops all but the first `rows` tokens; the room stays.
    pub fn truncate(&mut self, rows: usize) {
        each!(&mut self.keys, data => data.truncate(rows * self.head_dim));
        each!(&mut self.values, data => data.truncate(rows * self.head_dim));
        self.biases.iter_mut().for_each(|biases| biases.truncate(rows));
    }

    /// Copies rows of another head of the same shape behind one's own, making room for these and no more.
    pub fn append(&mut self, from: &Self, rows: Range<usize>) {
        if from.biases.is_some() && self.biases.is_none() {
            self.biases = Some(vec![0.0; self.len()]);
        }
        self.reserve(rows.len());
        if let Some(biases) = &mut self.biases {
            match &from.biases {
                Some(from) => biases.extend_from_slice(&from[rows.clone()]),
                None => biases.resize(biases.len() + rows.len(), 0.0),
            }
        }
        let elements = rows.start * self.head_dim..rows.end * self.head_dim;
        self.keys.append(&from.keys, elements.clone());
        self.values.append(&from.values, elements);
    }

    /// A copy of the given rows that takes exactly their memory.
    pub fn gather(&self, rows: &[u32]) -> Self {
        Self {
            head_dim: self.head_dim,
            keys: self.keys.gather(rows, self.head_dim),
            values: self.values.gather(rows, self.head_dim),
            biases: self.biases.as_ref().map(|biases| rows.iter().map(|&row| biases[row as usize]).collect()),
        }
    }

    /// Keys, `[rows, head_dim]`.
    pub fn keys(&self) -> &Elements {
        &self.keys
    }

    /// Values, `[rows, head_dim]`.
    pub fn values(&self) -> &Elements {
        &self.values
    }

    /// What is added to the logits of each row, where anything is.
    pub fn biases(&self) -> Option<&[f32]> {
        self.biases.as_deref()
    }

    /// Bytes that the buffers take, room included.
    pub fn allocated_bytes(&self) -> usize {
        let biases = self.biases.as_ref().map_or(0, |biases| size_of::<f32>() * biases.capacity());
        self.keys.allocated_bytes() + self.values.allocated_bytes() + biases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_stored_gathered_and_dropped() {
        for format in Format::FLOATS {
            let mut rows = HeadRows::with_capacity(2, format, 3);
            for token in 0..3u8 {
                rows.push(&[f32::from(token), 1.0], &[0.5, f32::from(token)]);
            }
            assert_eq!(rows.allocated_bytes(), 3 * format.token_bytes(2));
            let kept = rows.gather(&[0, 2]);
            assert_eq!(kept.allocated_bytes(), 2 * format.token_bytes(2));
            let mut values = [0.0; 4];
            kept.values().widen(0..4, &mut values);
            assert_eq!(values, [0.5, 0.0, 0.5, 2.0]);
            rows.truncate(1);
            assert_eq!((rows.len(), rows.keys().len()), (1, 2));
            rows.append(&kept, 1..2);
            rows.values().widen(0..4, &mut values);
            assert_eq!(values, [0.5, 0.0, 0.5, 2.0]);
        }
    }
}
