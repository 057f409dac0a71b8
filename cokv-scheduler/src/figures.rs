//! What is counted while the scheduler runs, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start, and a few levels as they are now. Any thread may read them at any time.
#[derive(Debug, Default)]
pub struct Figures {
    /// Passes of the model.
    pub steps: Seconds<STEPS>,
    /// From the end of the queue to the first token.
    pub prompt_tokens_computed: Counter,
    /// Prompt tokens that were there already.
    pub prompt_tokens_cached: Counter,
    /// Tokens of answers.
    pub generated_tokens: Counter,
    /// Prompts that looked for what was read before.
    pub prefix_lookups: Counter,
    /// Of them, those that found some.
    pub prefix_hits: Counter,
    /// Idle entries that were let go to make room.
    pub dropped_entries: Counter,
    /// Idle entries that were compressed to make room.
    pub compressed_entries: Counter,
    /// Jobs whose owner went away, in the queue.
    pub cancelled_waiting: Counter,
    /// And while they ran.
    pub cancelled_running: Counter,
    /// Seconds in the queue.
    pub queued: Seconds<WAITS>,
    /// Seconds that compressing a document took, its second pass included.
    pub compressing: Seconds<WAITS>,
    /// Jobs in the queue.
    pub waiting: Counter,
    /// Answers and prompts that run.
    pub running: Counter,
    /// Bytes that all caches may have; 0 where nobody knows.
    pub limit_bytes: Counter,
    /// Bytes promised.
    pub promised_bytes: Counter,
    /// Bytes of all buffers.
    pub held_bytes: Counter,
    /// Of them those of documents.
    pub document_bytes: Counter,
    /// Of them those of idle prefixes.
    pub entry_bytes: Counter,
    /// Bytes by which the ledger and the buffers differ: 0.
    pub ledger_error_bytes: Counter,
    /// Documents.
    pub documents: Counter,
    /// Of the step that ran last, its rows.
    pub rows: Counter,
}

/// A number that any thread may change.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    /// What is now.
    pub fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of passes.
pub const STEPS: usize = 12;
/// Of waits and requests.
pub const WAITS: usize = 16;

const STEP_ENDS: [f64; STEPS] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const WAIT_ENDS: [f64; WAITS] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0];

/// A histogram of seconds.
#[derive(Debug)]
pub struct Seconds<const N: usize> {
    ends: [f64; N],
    /// Below each end and not below the one before.
    buckets: [AtomicU64; N],
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Default for Seconds<STEPS> {
    fn default() -> Self {
        Self::new(STEP_ENDS)
    }
}

impl Default for Seconds<WAITS> {
    fn default() -> Self {
        Self::new(WAIT_ENDS)
    }
}

impl<const N: usize> Seconds<N> {
    fn new(ends: [f64; N]) -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { ends, buckets, count: AtomicU64::new(0), microseconds: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let bucket = self.ends.partition_point(|&end| end < time.as_secs_f64());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Of each bucket its upper end and how many are at or below it, as Prometheus counts.
    pub fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        self.ends.iter().zip(&self.buckets).map(move |(&end, bucket)| {
            below += bucket.load(Ordering::Relaxed);
            (end, below)
        })
    }

    /// How many were counted, and their seconds together.
    pub fn total(&self) -> (u64, f64) {
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        (self.count.load(Ordering::Relaxed), seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulated() {
        let seconds: Seconds<STEPS> = Seconds::default();
        for milliseconds in [1, 2, 3, 30, 9000] {
            seconds.observe(Duration::from_millis(milliseconds));
        }
        let cumulated: Vec<_> = seconds.cumulated().collect();
        assert_eq!((cumulated[0], cumulated[1], cumulated[11]), ((0.001, 1), (0.0025, 2), (5.0, 4)));
        assert_eq!(seconds.total(), (5, 9.036));
    }
}
