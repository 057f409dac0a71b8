//! What sets one task apart.

use rand_pcg::Pcg64;

use super::draft::{Depth, Draft};
use crate::metrics::Metric;

/// All that sets one task apart from the others; each task's file has one.
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) template: &'static str,
    pub(super) max_new_tokens: usize,
    pub(super) metric: Metric,
    pub(super) chat: bool,
    pub(super) stops_at_newline: bool,
    pub(super) language: &'static str,
    /// None where what is asked is supplied and not made up.
    pub(super) draft: Option<fn(Pcg64, Depth) -> Draft>,
}
