//! Parallel loops on one set of threads, which all of the process shares.

use std::num::NonZeroUsize;
use std::sync::{LazyLock, Mutex};

use cokv_pool::Pool;

use super::parts::Parts;

/// As many threads as the process may use: the system knows of affinity and of the quota of a control group, which a job of a
/// cluster or a container has.
static POOL: LazyLock<Pool> =
    LazyLock::new(|| Pool::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)));

/// Threads that run the loops.
pub fn threads() -> usize {
    POOL.threads()
}

/// Changes their number, from the next loop on. Results do not depend on it.
pub fn set_threads(threads: NonZeroUsize) {
    POOL.resize(threads);
}

/// Runs `work` for every index below `count`.
pub fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    POOL.for_each(count, work);
}

/// Collects `work(index)` for every index below `count`.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    for_each(count, |index| {
        let result = work(index);
        // Nobody panics while holding the lock, so it cannot be poisoned.
        if let Ok(mut slot) = slots[index].lock() {
            *slot = Some(result);
        }
    });
    slots.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect()
}

/// Runs `work` on consecutive pieces of `data`, `length` elements each (the last may be shorter).
pub fn for_each_chunk<T: Send>(data: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let whole = data.len();
    let parts = Parts::of(data);
    for_each(whole.div_ceil(length), |index| {
        // SAFETY: every index is run once, and pieces do not overlap.
        let piece = unsafe { parts.part(index * length..whole.min((index + 1) * length)) };
        work(index, piece);
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_their_order() {
        assert_eq!(super::map(1000, |index| index * 2), (0..1000).map(|index| index * 2).collect::<Vec<_>>());
        let mut data = vec![0; 103];
        super::for_each_chunk(&mut data, 10, |index, chunk| chunk.fill(index));
        assert!(data.iter().enumerate().all(|(at, &value)| value == at / 10));
    }
}
