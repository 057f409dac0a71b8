//! Tables that kernels read, as `kernels/` declares them.

use bytemuck::{Pod, Zeroable};

/// In place of a number: a result that is written where it belongs, a list that there is none of.
pub const DIRECT: u32 = u32::MAX;

/// Some queries of one KV head against a range of its keys: a block of an attention kernel (`tables.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Item {
    /// Where keys lie, for each part of the cache; key k of a part is k rows behind its address.
    pub keys: [u64; 3],
    /// Where values lie, likewise.
    pub values: [u64; 3],
    /// Keys below the first are of the first part, below the second of the second.
    pub until: [u32; 2],
    /// First key.
    pub begin: u32,
    /// Behind the last key.
    pub end: u32,
    /// Place of its first token in the table of tokens.
    pub token: u32,
    /// Tokens, of which each brings the queries of one group.
    pub tokens: u32,
    /// Keys that its first token sees.
    pub visible: u32,
    /// How many more each next one sees: 0 or 1.
    pub step: u32,
    /// First query head of the group.
    pub head: u32,
    /// First of its partial results, one for each query, or [`DIRECT`].
    pub partial: u32,
    /// Place in the table of keys that tokens no longer see, or [`DIRECT`].
    pub hidden: u32,
    /// Nothing.
    pub unused: u32,
}

/// Partial results that make one: of a stack, and of a row alone (`tables.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Join {
    /// First partial result of the first query, in both sets.
    pub first: [u32; 2],
    /// Partial results of a query, in both sets.
    pub count: [u32; 2],
    /// From one of them to the next.
    pub stride: [u32; 2],
    /// Place of the first token in the table of tokens.
    pub token: u32,
    /// Tokens.
    pub tokens: u32,
    /// First query head of the group.
    pub head: u32,
    /// Nothing.
    pub unused: u32,
}

/// Where the new keys and values of a row's KV head go (`cache.cu`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Append {
    /// Keys.
    pub keys: u64,
    /// Values.
    pub values: u64,
}

/// Rows that a head copies (`cache.cu`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Gather {
    /// Where row 0 lies.
    pub from: u64,
    /// Where they go.
    pub to: u64,
    /// Place in the list of rows, or [`DIRECT`] for one after the other.
    pub listed: u32,
    /// How many.
    pub count: u32,
}

/// A place of logits that is compared (`answers.cu`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Place {
    /// Its logits.
    pub logits: u64,
    /// Another distribution's, or 0.
    pub other: u64,
    /// What follows, or [`DIRECT`].
    pub target: u32,
    /// Nothing.
    pub unused: u32,
}

/// A likely token (`answers.cu`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Best {
    /// Its logit.
    pub logit: f32,
    /// Its id.
    pub token: u32,
}

const _: () = assert!(
    size_of::<Item>() == 96 && size_of::<Join>() == 40 && size_of::<Gather>() == 24 && size_of::<Place>() == 24
);
