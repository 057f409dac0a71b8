//! How the scheduler shares its model out.

use std::time::Duration;

use cokv_core::{Budget, Method};

/// How the scheduler shares its model out.
#[derive(Clone)]
pub struct Settings {
    /// Bytes that all caches together may have; none where nobody knows a limit.
    pub cache_memory: Option<u64>,
    /// Answers that are written at a time, at most.
    pub rows: usize,
    /// Jobs that wait, at most.
    pub queue: usize,
    /// How long answers may stand still while a prompt is read beside them.
    pub stall_target: Duration,
    /// Tokens of a prompt that one pass reads where nobody waits for an answer.
    pub chunk: usize,
    /// Share of the memory that pinned documents may have.
    pub pin_share: f64,
    /// How many later jobs may overtake one that does not fit yet.
    pub overtakes: usize,
    /// And for how long.
    pub overtaking: Duration,
    /// Tokens that a prompt has to have in common with what was read before.
    pub least_prefix: usize,
    /// What is kept of idle prefixes before any of them is dropped, of which all is kept otherwise. The method must need keys and values alone
    /// ([`Method::lacks_at_rest`]).
    pub compress_idle: Option<(Method, Budget)>,
    /// Tokens of a prompt that nobody waits for any more from which on what was read of it is kept.
    pub least_partial: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_memory: None,
            rows: 16,
            queue: 64,
            stall_target: Duration::from_millis(100),
            chunk: 512,
            pin_share: 0.5,
            overtakes: 8,
            overtaking: Duration::from_secs(10),
            least_prefix: 32,
            compress_idle: None,
            least_partial: 512,
        }
    }
}
