//! Bytes promised before they are taken.

use crate::engine::Engine;

/// Counts the bytes of all buffers of one device: what was promised to whom, and what is held of it. Nobody takes what was
/// not promised, so that nothing that was admitted ends for want of memory.
#[derive(Debug)]
pub struct Ledger {
    limit: Option<u64>,
    promised: u64,
    held: u64,
}

/// Bytes promised to one sequence. It goes back by [`Ledger::release`].
#[derive(Debug, Default)]
#[must_use = "a promise that is dropped is never given back"]
pub struct Promise {
    bytes: u64,
    held: u64,
}

impl Ledger {
    /// Promises at most so many bytes; any number where there is no limit.
    pub fn new(limit: Option<u64>) -> Self {
        Self { limit, promised: 0, held: 0 }
    }

    /// Promises a share of what the engine's device has free now.
    pub fn of(engine: &dyn Engine, share: f64) -> Self {
        Self::new(engine.free_bytes().map(|bytes| (bytes as f64 * share) as u64))
    }

    /// Bytes that may be promised altogether.
    pub fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Bytes that are promised.
    pub fn promised(&self) -> u64 {
        self.promised
    }

    /// Bytes of all buffers.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Whether so many bytes could be promised if nothing else were.
    pub fn could_ever(&self, bytes: u64) -> bool {
        self.limit.is_none_or(|limit| bytes <= limit)
    }

    /// Promises bytes; none where they are not there now.
    pub fn promise(&mut self, bytes: u64) -> Option<Promise> {
        let free = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.promised));
        (bytes <= free).then(|| {
            self.promised += bytes;
            Promise { bytes, held: 0 }
        })
    }

    /// Counts what a sequence's buffers hold now.
    pub fn hold(&mut self, promise: &mut Promise, bytes: u64) {
        debug_assert!(bytes <= promise.bytes, "{bytes} bytes are held of {} promised", promise.bytes);
        self.held = self.held - promise.held + bytes;
        promise.held = bytes;
    }

    /// Takes back what is not needed any more.
    pub fn lower(&mut self, promise: &mut Promise, bytes: u64) {
        let bytes = bytes.min(promise.bytes);
        self.promised -= promise.bytes - bytes;
        promise.bytes = bytes;
    }

    /// Takes everything back.
    pub fn release(&mut self, promise: Promise) {
        self.promised -= promise.bytes;
        self.held -= promise.held;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_promised_what_is_not_there() {
        let mut ledger = Ledger::new(Some(100));
        let mut first = ledger.promise(70).unwrap();
        assert!(ledger.promise(31).is_none() && ledger.could_ever(100) && !ledger.could_ever(101));
        ledger.hold(&mut first, 60);
        ledger.hold(&mut first, 20);
        ledger.lower(&mut first, 30);
        assert_eq!((ledger.promised(), ledger.held()), (30, 20));
        let second = ledger.promise(70).unwrap();
        ledger.release(first);
        ledger.release(second);
        assert_eq!((ledger.promised(), ledger.held()), (0, 0));
        assert!(Ledger::new(None).promise(u64::MAX / 2).is_some());
    }
}
