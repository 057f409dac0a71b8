//! What a run will do, how long it will take and how much memory.

use cokv_core::{Replay, Shard};

use super::{Asked, Cell, Job, Matrix, is_done};
use crate::machine::Pace;
use crate::run::store::Results;

/// What a run will do.
#[derive(Clone, Copy, Debug, PartialEq)]
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
    /// About how long it takes, answers as long as they may be; none where that is not known.
    pub seconds: Option<f64>,
}

impl Matrix<'_> {
    /// What there is to do for a shard, given what is done already, at a model's pace.
    pub fn plan(&self, results: &Results, shard: Shard, pace: Option<&Pace>) -> Plan {
        let ours = || self.jobs_of(shard);
        let open = || ours().filter(|job| !is_done(job, results));
        let times = self.passes();
        Plan {
            shortened: ours().filter(|job| shortened_from(job).is_some()).count(),
            longest_shortened: ours().filter_map(shortened_from).max().unwrap_or(0),
            cells: self.cells.len(),
            prompts: ours().count(),
            done: ours().count() - open().count(),
            tokens_to_prefill: times * open().map(|job| job.asked.prompt_tokens()).sum::<usize>(),
            bytes: open().map(|job| self.bytes(job)).max().unwrap_or(0),
            seconds: pace.map(|pace| open().map(|job| self.seconds(job, pace)).sum()),
            steps: times * open().map(|job| job.asked.task.max_new_tokens).sum::<usize>(),
        }
    }

    /// Memory of a prompt: its cache, every cell's own and its answer's, and the logits of all rows.
    fn bytes(&self, job: &Job<'_>) -> usize {
        let layout = self.model.config().layout;
        let (answer, forced) = answers(job);
        let (rows, cached) = self.batch(job.asked.prompt_tokens());
        let tokens = cached + rows * answer * layout.heads();
        let logits = (rows + forced) * self.model.config().vocabulary * size_of::<f32>();
        tokens * self.config.model.cache.token_bytes(layout.head_dim) + logits
    }

    /// Rows of a batch, the full cache's among them, and the tokens that the caches of all keep of a prompt.
    fn batch(&self, prompt_len: usize) -> (usize, usize) {
        let layout = self.model.config().layout;
        let whole = layout.heads() * prompt_len;
        let kept = |cell: &Cell<'_>| {
            cell.budget.map_or(0, |budget| budget.total_tokens(layout, prompt_len, self.config.model.cache).min(whole))
        };
        match self.config.run.share_prefill {
            true => (self.cells.len() + 1, whole + self.cells.iter().map(kept).sum::<usize>()),
            false => (2, whole + self.cells.iter().map(kept).max().unwrap_or(0)),
        }
    }

    /// Times that a prompt is prefilled: cells that are not shared prefill and decode one after the other.
    fn passes(&self) -> usize {
        if self.config.run.share_prefill { 1 } else { self.cells.len() }
    }

    /// Seconds of a prompt: one prefill for all cells, their answers forced and decoded; or as much for every cell.
    fn seconds(&self, job: &Job<'_>, pace: &Pace) -> f64 {
        let Asked { task, .. } = job.asked;
        let prompt_len = job.asked.prompt_tokens();
        let (rows, cached) = self.batch(prompt_len);
        let (_, answer) = answers(job);
        let forced = if answer == 0 { 0.0 } else { pace.apart(rows, answer, cached) };
        let decoded = pace.apart(rows, 1, cached) * task.max_new_tokens.saturating_sub(1) as f64;
        // Every fed token attends to the whole prompt: more than a prefill, whose tokens see half of it on average.
        let replays = Replay::covering(job.cells.iter().filter_map(|cell| cell.method.replay()).collect()).len();
        self.passes() as f64 * ((1 + replays) as f64 * pace.prefill(prompt_len) + forced + decoded)
    }
}

/// Tokens of an answer at most, and of the reference answer.
fn answers(job: &Job<'_>) -> (usize, usize) {
    let forced = job.asked.prompts.iter().map(|(_, prompt)| prompt.answer.len()).max().unwrap_or(0);
    (job.asked.task.max_new_tokens.max(forced), forced)
}

fn shortened_from(job: &Job<'_>) -> Option<usize> {
    job.asked.prompts.iter().filter_map(|(_, prompt)| prompt.shortened_from).max()
}
