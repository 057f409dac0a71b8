//! Bytes promised before they are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of all buffers of one device: what was promised to whom, and what is held of it. Nobody takes what was
/// not promised, so that nothing that was admitted ends for want of memory.
///
/// Clones are the same ledger. One thread promises; any thread may give back or look.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    limit: Option<u64>,
    promised: AtomicU64,
    held: AtomicU64,
}

/// Bytes promised to one owner of buffers. They go back when it is dropped, which is when the buffers are.
#[derive(Debug)]
#[must_use = "a promise that is dropped is given back"]
pub struct Promise {
    counts: Arc<Counts>,
    bytes: u64,
    held: u64,
}

impl Ledger {
    /// Promises at most so many bytes; any number where there is no limit.
    pub fn new(limit: Option<u64>) -> Self {
        Self(Arc::new(Counts { limit, promised: AtomicU64::new(0), held: AtomicU64::new(0) }))
    }

    /// Promises a share of what is free, where that is known.
    pub fn of_free(bytes: Option<u64>, share: f64) -> Self {
        Self::new(bytes.map(|bytes| (bytes as f64 * share) as u64))
    }

    /// Bytes that may be promised altogether.
    pub fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// Bytes that are promised.
    pub fn promised(&self) -> u64 {
        self.0.promised.load(Ordering::Acquire)
    }

    /// Bytes of all buffers.
    pub fn held(&self) -> u64 {
        self.0.held.load(Ordering::Acquire)
    }

    /// Whether so many bytes could be promised if nothing else were.
    pub fn could_ever(&self, bytes: u64) -> bool {
        self.0.limit.is_none_or(|limit| bytes <= limit)
    }

    /// Whether so many bytes can be promised now.
    pub fn could_now(&self, bytes: u64) -> bool {
        self.0.limit.is_none_or(|limit| bytes <= limit.saturating_sub(self.promised()))
    }

    /// Promises bytes; none where they are not there now.
    pub fn promise(&self, bytes: u64) -> Option<Promise> {
        self.could_now(bytes).then(|| {
            self.0.promised.fetch_add(bytes, Ordering::AcqRel);
            Promise { counts: Arc::clone(&self.0), bytes, held: 0 }
        })
    }
}

impl Promise {
    /// Bytes that are promised.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counts what its owner's buffers hold now.
    pub fn hold(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "{bytes} bytes are held of {} promised", self.bytes);
        self.counts.held.fetch_add(bytes, Ordering::AcqRel);
        self.counts.held.fetch_sub(self.held, Ordering::AcqRel);
        self.held = bytes;
    }

    /// Gives back what is not needed any more.
    pub fn lower(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.counts.promised.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        self.bytes = bytes;
    }

    /// Some of the bytes for another owner, of which nothing is held yet; at most what is there.
    pub fn set_aside(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { counts: Arc::clone(&self.counts), bytes, held: 0 }
    }

    /// Hands buffers of so many bytes on to another owner, who holds them from now on.
    pub fn hand_over(&mut self, bytes: u64) -> Self {
        let mut other = self.set_aside(bytes);
        other.held = other.bytes.min(self.held);
        self.held -= other.held;
        other
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.counts.held.fetch_sub(self.held, Ordering::AcqRel);
        self.counts.promised.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_promised_what_is_not_there() {
        let ledger = Ledger::new(Some(100));
        let mut first = ledger.promise(70).unwrap();
        assert!(ledger.promise(31).is_none() && ledger.could_ever(100) && !ledger.could_ever(101));
        first.hold(60);
        first.hold(20);
        first.lower(30);
        assert_eq!((ledger.promised(), ledger.held()), (30, 20));
        let second = ledger.promise(70).unwrap();
        drop((first, second));
        assert_eq!((ledger.promised(), ledger.held()), (0, 0));
        assert!(Ledger::new(None).promise(u64::MAX / 2).is_some());
    }

    #[test]
    fn what_is_handed_on_is_counted_once() {
        let ledger = Ledger::new(Some(100));
        let mut sequence = ledger.promise(90).unwrap();
        sequence.hold(50);
        let prompt = sequence.hand_over(50);
        assert_eq!((sequence.bytes(), prompt.bytes(), ledger.promised(), ledger.held()), (40, 50, 90, 50));
        drop(sequence);
        assert_eq!((ledger.promised(), ledger.held()), (50, 50));
        drop(prompt);
        assert_eq!((ledger.promised(), ledger.held()), (0, 0));
    }
}
