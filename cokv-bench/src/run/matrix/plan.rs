//! What a run will do, how long it will take and how much memory.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use cokv_core::ObservationRequest;
use cokv_core::Shard;
use cokv_models::cache::RaggedCache;
use cokv_models::{ModelError, StopRule};

use super::{Cell, Job, Matrix, RunError, failed, is_done};
use crate::run::store::Results;

/// What a run will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Methods × budgets.
    pub cells: usize,
    /// Prompts of all tasks.
    pub prompts: usize,
    /// Prompts of which every cell is done.
    pub done: usize,
    /// Tokens of the prompts that are not.
    pub tokens_to_prefill: usize,
    /// Prompts that lose their middle.
    pub shortened: usize,
    /// Tokens of the longest of those, before.
    pub longest_shortened: usize,
    /// Most bytes that the caches, answers and logits of one prompt take, the model itself left out.
    pub bytes: usize,
    /// Tokens of all answers that are still to be decoded, at most.
    pub steps: usize,
}

/// How much of a prompt, and of an answer, is run to say how long all will take.
const PROBE_TOKENS: usize = 512;
const PROBE_STEPS: usize = 4;

impl Matrix<'_> {
    /// What there is to do for a shard, given what is done already.
    pub fn plan(&self, results: &Results, shard: Shard) -> Plan {
        let ours = || self.jobs_of(shard);
        let open = || ours().filter(|job| !is_done(job, results));
        // Cells that are not shared prefill and decode one after the other.
        let times = if self.config.run.share_prefill { 1 } else { self.cells.len() };
        Plan {
            shortened: ours().filter(|job| job.prompt.shortened_from.is_some()).count(),
            longest_shortened: ours().filter_map(|job| job.prompt.shortened_from).max().unwrap_or(0),
            cells: self.cells.len(),
            prompts: ours().count(),
            done: ours().count() - open().count(),
            tokens_to_prefill: times * open().map(|job| job.prompt.tokens.len()).sum::<usize>(),
            bytes: open().map(|job| self.bytes(job)).max().unwrap_or(0),
            steps: times * open().map(|job| job.protocol.max_new_tokens).sum::<usize>(),
        }
    }

    /// Memory of a prompt: its cache, every cell's own and its answer's, and the logits of all rows.
    fn bytes(&self, job: &Job<'_>) -> usize {
        let (layout, prompt_len) = (self.model.config().layout, job.prompt.tokens.len());
        let format = self.model.format();
        let whole = layout.heads() * prompt_len;
        let kept = |cell: &Cell<'_>| {
            cell.budget.map_or(0, |budget| budget.total_tokens(layout, prompt_len, format).min(whole))
        };
        let answer = job.protocol.max_new_tokens.max(job.prompt.answer.len());
        let (rows, cells) = match self.config.run.share_prefill {
            true => (self.cells.len() + 1, self.cells.iter().map(kept).sum::<usize>()),
            false => (2, self.cells.iter().map(kept).max().unwrap_or(0)),
        };
        let tokens = whole + cells + rows * answer * layout.heads();
        let logits = (rows + job.prompt.answer.len()) * self.model.config().vocabulary * size_of::<f32>();
        tokens * format.token_bytes(layout.head_dim) + logits
    }

    /// About how long a shard will take, measured on the beginning of its first prompt; none where nothing is to be done.
    /// Long prompts take more than this says, answers that end early less.
    pub fn time(&self, results: &Results, shard: Shard) -> Result<Option<Duration>, RunError> {
        let Some(job) = self.jobs_of(shard).find(|job| !is_done(job, results)) else { return Ok(None) };
        let Plan { tokens_to_prefill, steps, .. } = self.plan(results, shard);
        let failed = failed(&job.protocol.name, &job.record.id);
        let measure = || -> Result<Duration, ModelError> {
            let beginning = &job.prompt.tokens[..job.prompt.tokens.len().min(PROBE_TOKENS)];
            let started = Instant::now();
            let prefill = self.model.prefill(beginning, ObservationRequest::default(), |_| {})?;
            let per_token = started.elapsed() / beginning.len() as u32;
            let rows = if self.config.run.share_prefill { self.cells.len() + 1 } else { 1 };
            let mut caches: Vec<RaggedCache> = (0..rows).map(|_| RaggedCache::full(prefill.prompt())).collect();
            let stop = StopRule { tokens: Vec::new(), max_new_tokens: PROBE_STEPS, min_new_tokens: 0 };
            let started = Instant::now();
            self.model.greedy(&mut caches, &[prefill.first(&stop)], &stop, |_, _| ControlFlow::Continue(()))?;
            let per_step = started.elapsed() / PROBE_STEPS as u32;
            Ok(per_token.mul_f64(tokens_to_prefill as f64) + per_step.mul_f64(steps as f64))
        };
        measure().map(Some).map_err(failed)
    }
}
