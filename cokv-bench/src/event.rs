//! What is told while something takes minutes: to somebody at a terminal, to a log, to a program.

use std::ops::ControlFlow;

use serde::Serialize;

/// Something that happened. Programs read it as a JSON object.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event<'a> {
    /// Something that the user should know, said once.
    Note {
        /// A sentence.
        text: &'a str,
    },
    /// Prompts of a matrix were done before and are skipped.
    Skipped {
        /// How many.
        prompts: usize,
    },
    /// A prompt of a matrix begins.
    Begun {
        /// Name of its task.
        task: &'a str,
        /// Id of its record.
        record: &'a str,
        /// Its length.
        prompt_tokens: usize,
    },
    /// Tokens are prefilled: of the prompt of a matrix, or of all records of an estimation.
    Prefilled {
        /// So far.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// Tokens of a prompt are fed a second time.
    Replayed {
        /// So far.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// All cells of a prompt are on disk.
    Prompt {
        /// Prompts done since the start.
        prompts_done: usize,
        /// Prompts that were to be done then.
        prompts: usize,
        /// Rows written since then.
        rows: usize,
        /// Since then.
        seconds: f64,
        /// About how long the others take.
        seconds_left: f64,
        /// Memory of the process at its peak, where the system tells.
        peak_bytes: Option<u64>,
    },
    /// An estimation goes on from samples that were played before.
    Resumed {
        /// How many.
        samples: usize,
    },
    /// Every record of an estimation is prefilled, and its coalitions are played.
    Playing {
        /// Heads that play.
        heads: usize,
        /// Records that are played on.
        records: usize,
        /// What prefilling them took.
        seconds: f64,
    },
    /// A batch of coalitions is played and kept.
    Played {
        /// Samples in the log.
        samples: u64,
        /// Coalitions on records, in a second.
        evaluations_per_second: f64,
        /// Squared correlation with the true values, as far as the samples tell.
        reliability: Option<f64>,
        /// As far as the stop rules let it be foreseen.
        seconds_left: Option<f64>,
    },
    /// A record is looked at and kept.
    Looked {
        /// So far.
        records: usize,
        /// Of how many.
        of: usize,
    },
}

/// Hears events. Breaking asks whoever tells to stop at the next good place; what was done is kept.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use cokv_bench::event::{Event, Listener};
///
/// /// Counts, and lets everything go on.
/// struct Counter(usize);
///
/// impl Listener for Counter {
///     fn hear(&mut self, _: &Event<'_>) -> ControlFlow<()> {
///         self.0 += 1;
///         ControlFlow::Continue(())
///     }
/// }
/// ```
pub trait Listener {
    /// Something happened.
    fn hear(&mut self, event: &Event<'_>) -> ControlFlow<()>;
}
