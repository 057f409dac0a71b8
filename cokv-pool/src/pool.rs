//! A set of threads, and the loops that run on it.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::resume_unwind;

use crate::sync::{Arc, AtomicBool, AtomicU32, JoinHandle, Mutex, Ordering, lock, spawn};
use crate::worker::{Loop, MOST_GROUPS, Shared};

/// Groups of pieces for each thread. Many, so that one that is put aside with a group holds back little of the loop; not as
/// many as there are pieces, since taking one is a step of all threads.
const GROUPS_PER_THREAD: usize = 16;

/// Threads that run loops together with whoever calls.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Mutex<Vec<Worker>>,
    /// Of all threads, the caller included.
    threads: AtomicU32,
    busy: AtomicBool,
}

struct Worker {
    stop: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of this many threads, of which the caller is one. Where the system gives fewer, it has fewer.
    pub fn new(threads: NonZeroUsize) -> Self {
        let pool = Self {
            shared: Arc::new(Shared::new()),
            workers: Mutex::new(Vec::new()),
            threads: AtomicU32::new(1),
            busy: AtomicBool::new(false),
        };
        pool.resize(threads);
        pool
    }

    /// Threads that run a loop, the caller included.
    pub fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed) as usize
    }

    /// Changes the number of threads, from the next loop on. Those that are too many finish what they have taken.
    pub fn resize(&self, threads: NonZeroUsize) {
        let mut workers = lock(&self.workers);
        let wanted = threads.get().min(MOST_GROUPS) - 1;
        let surplus = wanted.min(workers.len())..;
        workers.drain(surplus).for_each(|worker| worker.stop.store(true, Ordering::Release));
        while workers.len() < wanted {
            let stop = Arc::new(AtomicBool::new(false));
            let (shared, told) = (self.shared.clone(), stop.clone());
            match spawn(format!("cokv-{}", workers.len() + 1), move || shared.work(&told)) {
                Ok(handle) => workers.push(Worker { stop, handle }),
                Err(_) => break,
            }
        }
        self.threads.store(workers.len() as u32 + 1, Ordering::Relaxed);
        self.shared.wake_all();
    }

    /// Runs `work` for every index below `count`, each once, on any of the threads. A panic of `work` is the caller's, once
    /// all others are done.
    pub fn for_each<F: Fn(usize) + Sync>(&self, count: usize, work: F) {
        let threads = self.threads();
        if count <= 1 || threads == 1 || self.busy.swap(true, Ordering::Acquire) {
            (0..count).for_each(work);
            return;
        }
        let groups = Groups::of(count, threads);
        let body = |group: usize| groups.indices(group).for_each(&work);
        let current = Loop { run: call(&body), body: (&raw const body).cast() };
        // SAFETY: `busy` keeps others out; `body` may be shared since `work` may, and lives until all groups are done.
        let result = unsafe { self.shared.run(current, groups.count as u32) };
        self.busy.store(false, Ordering::Release);
        if let Err(payload) = result {
            resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let workers = std::mem::take(&mut *lock(&self.workers));
        workers.iter().for_each(|worker| worker.stop.store(true, Ordering::Release));
        self.shared.wake_all();
        // A worker cannot panic: what its pieces do is the caller's.
        workers.into_iter().for_each(|worker| drop(worker.handle.join()));
    }
}

/// Pieces that are taken together. The last are the first to be taken: where pieces grow, as those of causal attention do, the
/// large ones are not left to the end.
#[derive(Clone, Copy)]
struct Groups {
    pieces: usize,
    size: usize,
    count: usize,
}

impl Groups {
    fn of(pieces: usize, threads: usize) -> Self {
        let size = pieces.div_ceil((threads * GROUPS_PER_THREAD).min(MOST_GROUPS));
        Self { pieces, size, count: pieces.div_ceil(size) }
    }

    fn indices(self, group: usize) -> Range<usize> {
        group * self.size..self.pieces.min((group + 1) * self.size)
    }
}

/// How a body of this type is run by whoever has forgotten its type.
fn call<F: Fn(usize) + Sync>(_: &F) -> unsafe fn(*const (), usize) {
    // SAFETY: who runs it gives a pointer to a body of this type that lives.
    |body, group| unsafe { (*body.cast::<F>())(group) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_piece_once() {
        for pieces in [2, 3, 31, 32, 33, 64, 65, 1000, 99_991] {
            for threads in [2, 3, 8] {
                let groups = Groups::of(pieces, threads);
                assert!(groups.count <= threads * GROUPS_PER_THREAD && groups.count <= pieces);
                let all: Vec<usize> = (0..groups.count).flat_map(|group| groups.indices(group)).collect();
                assert_eq!(all, (0..pieces).collect::<Vec<_>>());
            }
        }
    }
}
