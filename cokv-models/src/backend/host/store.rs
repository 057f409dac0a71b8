//! Keys and values in vectors, one pair for each KV head.

use std::any::Any;
use std::ops::Range;

use cokv_core::{Format, HeadLayout, Pairs};

use crate::backend::foreign;
use crate::cache::{SLICES, Store};
use crate::error::ModelError;
use crate::kernel::attention::CacheView;
use crate::kernel::memory;
use crate::kernel::rows::HeadRows;

/// Keys and values of every KV head of one cache. Full buffers grow by a fixed slack, never by doubling.
#[derive(Clone, Debug)]
pub struct HostStore {
    layout: HeadLayout,
    format: Format,
    heads: Vec<HeadRows>,
}

/// Bytes from which on it is worth the time to give memory back to the system: a prompt's, not that of an answer.
const LARGE: usize = 8 << 20;

impl HostStore {
    /// No rows.
    pub fn new(layout: HeadLayout, format: Format) -> Self {
        Self::with_capacity(layout, format, 0)
    }

    /// No rows, with room for some in every head.
    pub fn with_capacity(layout: HeadLayout, format: Format, rows: usize) -> Self {
        let head = || HeadRows::with_capacity(layout.head_dim, format, rows);
        Self { layout, format, heads: (0..layout.heads()).map(|_| head()).collect() }
    }

    /// Appends one layer's keys and values of new tokens, `[tokens, kv_heads, head_dim]` each.
    pub fn push(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let HeadLayout { kv_heads, head_dim, .. } = self.layout;
        let heads = &mut self.heads[layer * kv_heads..(layer + 1) * kv_heads];
        for (kv_head, head) in heads.iter_mut().enumerate() {
            let keys = keys.chunks_exact(head_dim).skip(kv_head).step_by(kv_heads);
            let values = values.chunks_exact(head_dim).skip(kv_head).step_by(kv_heads);
            keys.zip(values).for_each(|(key, value)| head.push(key, value));
        }
    }

    /// All heads, flat.
    pub fn heads(&self) -> &[HeadRows] {
        &self.heads
    }

    /// As the kernels read a cache that shares nothing.
    pub fn view(&self) -> CacheView<'_> {
        CacheView { kv_heads: self.layout.kv_heads, slices: [None; SLICES], own: &self.heads }
    }

    fn of(store: &dyn Store) -> Result<&Self, ModelError> {
        (store as &dyn Any).downcast_ref().ok_or_else(|| foreign("cache"))
    }
}

impl Store for HostStore {
    fn rows(&self, head: usize) -> usize {
        self.heads[head].len()
    }

    fn empty(&self) -> Box<dyn Store> {
        Box::new(Self::new(self.layout, self.format))
    }

    fn gather(&self, rows: &[&[u32]]) -> Result<Box<dyn Store>, ModelError> {
        let heads = self.heads.iter().zip(rows).map(|(head, rows)| head.gather(rows)).collect();
        Ok(Box::new(Self { heads, layout: self.layout, format: self.format }))
    }

    fn append(&mut self, from: &dyn Store, rows: &[Range<usize>]) -> Result<(), ModelError> {
        let from = Self::of(from)?;
        for ((head, from), rows) in self.heads.iter_mut().zip(&from.heads).zip(rows) {
            head.append(from, rows.clone());
        }
        Ok(())
    }

    fn reserve(&mut self, rows: usize) -> Result<(), ModelError> {
        self.heads.iter_mut().for_each(|head| head.reserve(rows));
        Ok(())
    }

    fn forget(&mut self, rows: usize) {
        self.heads.iter_mut().for_each(|head| head.truncate(head.len() - rows));
    }

    fn allocated_bytes(&self) -> usize {
        self.heads.iter().map(HeadRows::allocated_bytes).sum()
    }

    fn of_pairs(&self, heads: &[Pairs]) -> Result<Box<dyn Store>, ModelError> {
        let Self { layout, format, .. } = *self;
        let heads = heads.iter().map(|pairs| HeadRows::of_pairs(layout.head_dim, format, pairs)).collect();
        Ok(Box::new(Self { heads, layout, format }))
    }

    fn read(&self, head: usize) -> Result<Pairs, ModelError> {
        let head = &self.heads[head];
        let [keys, values] = [head.keys(), head.values()].map(|elements| {
            let mut numbers = vec![0.0; elements.len()];
            elements.widen(0..elements.len(), &mut numbers);
            numbers
        });
        Ok(Pairs { keys, values, biases: head.biases().unwrap_or_default().to_vec() })
    }
}

impl Drop for HostStore {
    fn drop(&mut self) {
        let large = self.allocated_bytes() >= LARGE;
        self.heads = Vec::new();
        if large {
            memory::give_back();
        }
    }
}
