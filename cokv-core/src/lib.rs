//! The vocabulary and the seams of cokv.
//!
//! Three steps turn a prefilled prompt into a small cache, and each can be swapped alone:
//!
//! 1. **score**: a [`CacheCompressor`] says how much every prompt token is worth to every KV head;
//! 2. **allocate**: a [`BudgetAllocator`] says how many tokens each KV head keeps;
//! 3. **select**: [`select`] takes the best tokens of each head.
//!
//! A [`Method`] is the three together. Offline, an [`ImportanceEstimator`] finds out what each head is worth, from what a
//! [`Study`] shows it: a [`Game`] that the model plays, or where it looks while it answers. This crate knows no tensors, models, datasets or files: everything is plain slices.

#![warn(missing_docs)]

mod block_sums;
mod budget;
mod coalition;
pub mod config;
mod error;
mod format;
mod frame;
mod game;
mod importance;
mod layout;
mod learned;
mod method;
mod pairs;
mod plan;
mod policy;
mod preset;
mod protected;
mod query_statistics;
pub mod random;
pub mod registry;
mod replay;
mod scores;
pub mod select;
mod settings;
mod shard;
mod spending;
#[cfg(feature = "testing")]
pub mod testing;
mod view;
mod while_decoding;
mod window_sum;

pub use block_sums::BlockSums;
pub use budget::{Budget, BudgetError};
pub use coalition::{Coalition, CoalitionError};
pub use config::{ConfigError, ConfigTable};
pub use error::PolicyError;
pub use format::Format;
pub use frame::Frame;
pub use game::{Game, GameError, Query};
pub use importance::{
    Answered, Effort, Evidence, HeadEstimate, HeadPair, ImportanceEstimator, Limits, Study, Subject, Teller, Told,
};
pub use layout::{HeadLayout, LayoutError};
pub use learned::{Learned, LearnedLayer};
pub use method::Method;
pub use pairs::Pairs;
pub use plan::BudgetPlan;
pub use policy::{AllocationRequest, BudgetAllocator, CacheCompressor, Gqa};
pub use preset::Preset;
pub use protected::Protected;
pub use query_statistics::QueryStatistics;
pub use registry::Registry;
pub use replay::{Replay, Replayed};
pub use scores::{HeadScores, ScoresError, TokenScores};
pub use select::{HeadSelection, Selection};
pub use settings::{MethodSettings, Named, Settings, WhileDecodingSettings};
pub use shard::Shard;
pub use spending::{PlanError, Spending};
pub use view::{LayerView, ObservationRequest, RotaryEmbedding, RotaryPairs};
pub use while_decoding::WhileDecoding;
pub use window_sum::WindowSum;

/// The examples of its README are tested here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
