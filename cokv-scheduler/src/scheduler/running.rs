//! A job that has been let in.

use std::sync::Arc;
use std::time::Instant;

use cokv_models::batch::SequenceId;

use crate::handle::Flags;
use crate::job::{Compression, Job};
use crate::told::{MadeBy, Told, Used};

/// A job that has been let in.
pub struct Running {
    pub job: Job,
    pub flags: Arc<Flags>,
    /// Its answers' sequences have this id and those that follow.
    pub first: SequenceId,
    /// Of each answer whether it is still written.
    pub open: Vec<bool>,
    /// Whether its prompt is still read.
    pub reading: bool,
    /// The compressed memory that its cache begins with.
    pub base: Option<usize>,
    /// What made that.
    pub made_by: Option<MadeBy>,
    /// From which token on all is kept, where that was for want of memory.
    pub at_rest: Option<usize>,
    /// Of the tokens that its prompt leaves to be read, those that are.
    pub read: usize,
    pub queued_at: Instant,
    pub started: Instant,
    pub first_token: Option<Instant>,
    pub used: Used,
}

impl Running {
    /// Which of its answers a sequence is.
    pub fn choice(&self, id: SequenceId) -> Option<usize> {
        let choice = usize::try_from(id.0.checked_sub(self.first.0)?).ok()?;
        (choice < self.open.len()).then_some(choice)
    }

    pub fn id(&self, choice: usize) -> SequenceId {
        SequenceId(self.first.0 + choice as u64)
    }

    /// Its sequences that are still in the batch; while the prompt is read, one of them stands for all.
    pub fn ids(&self) -> impl Iterator<Item = SequenceId> {
        let open = (0..self.open.len()).filter(|&choice| self.open[choice]);
        open.map(|choice| self.id(choice)).take(if self.reading { 1 } else { usize::MAX })
    }

    /// Whether what it reads is kept for others.
    pub fn keeps(&self) -> bool {
        self.job.store && !matches!(self.job.compression, Compression::Question { .. })
    }

    /// Of its prompt what a cache has seen that has seen so many tokens.
    pub fn prompt(&self, seen: usize) -> &[u32] {
        &self.job.tokens[..seen.min(self.job.tokens.len())]
    }

    pub fn is_over(&self) -> bool {
        !self.open.contains(&true)
    }

    /// Tells that all is done.
    pub fn tell_done(mut self, now: Instant) {
        let first = self.first_token.unwrap_or(now);
        self.used.reading = first.duration_since(self.started);
        self.used.answering = now.duration_since(first);
        (self.job.hear)(Told::Done(self.used));
    }
}
