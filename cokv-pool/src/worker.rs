//! One loop, shared by the caller and the threads of a pool.
//!
//! `untaken` counts the groups of pieces that nobody has taken; a thread takes one by counting it down, and only then looks
//! at the loop that it is of. The loop cannot end before that group is done, so that what is seen is always the loop that
//! the group belongs to. `unfinished` counts the groups that are not done; the caller leaves when it is zero. Both
//! counters carry a bit that says whether somebody sleeps until they change, so that nobody is woken who is awake, and nobody
//! sleeps through a change.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sync::{AtomicBool, AtomicU32, Condvar, Mutex, Ordering, UnsafeCell, lock, seen_soon, wait};
use crate::turn::{Caller, Turn};

/// Somebody sleeps until the counter changes.
const SLEEPING: u32 = 1 << 31;
/// Groups of one loop, at most.
pub(crate) const MOST_GROUPS: usize = (SLEEPING - 1) as usize;

/// What a panic carries.
type Payload = Box<dyn Any + Send>;

/// A loop's body with its type taken away.
#[derive(Clone, Copy)]
pub(crate) struct Loop {
    /// Runs one group with `body`.
    pub run: unsafe fn(*const (), usize),
    /// Lives until the loop is over.
    pub body: *const (),
}

// SAFETY: the body is shared by threads, which whoever makes a loop asks of its type.
unsafe impl Send for Loop {}

/// What the caller and the threads share.
pub(crate) struct Shared {
    untaken: AtomicU32,
    unfinished: AtomicU32,
    /// Written by who starts a loop, while there is no group; read by those who have taken one.
    current: UnsafeCell<Option<Loop>>,
    /// Of the first panic in a loop.
    panic: Mutex<Option<Payload>>,
    /// Threads that sleep until there is work.
    idle: Mutex<usize>,
    work: Condvar,
    waiting: Mutex<()>,
    finished: Condvar,
    caller: Caller,
}

// SAFETY: `current` is only reached as its comment says; the rest is made to be shared.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new() -> Self {
        Self {
            untaken: AtomicU32::new(0),
            unfinished: AtomicU32::new(0),
            current: UnsafeCell::new(None),
            panic: Mutex::new(None),
            idle: Mutex::new(0),
            work: Condvar::new(),
            waiting: Mutex::new(()),
            finished: Condvar::new(),
            caller: Caller::unknown(),
        }
    }

    /// Runs all groups of a loop, some of them on other threads, and gives the first panic.
    ///
    /// # Safety
    ///
    /// Nobody else may be in here meanwhile, and `run` must take `body` and every group's number from any thread.
    pub unsafe fn run(&self, current: Loop, groups: u32) -> Result<(), Payload> {
        let mut attendance = self.caller.arrive();
        // SAFETY: all groups of the loop before are done, and nobody takes one before there are any.
        self.current.with_mut(|place| unsafe { *place = Some(current) });
        self.unfinished.store(groups, Ordering::Relaxed);
        // Releases the loop and the count to whoever takes a group.
        if self.untaken.swap(groups, Ordering::AcqRel) & SLEEPING != 0 {
            // The caller takes one itself.
            self.wake(groups as usize - 1);
        }
        while self.run_one() {
            attendance.seen();
        }
        self.wait_for_others();
        lock(&self.panic).take().map_or(Ok(()), Err)
    }

    /// Runs a group that nobody has taken; whether there was one.
    fn run_one(&self) -> bool {
        let Some(group) = self.take() else { return false };
        // SAFETY: the loop that the group is of cannot end before the group is done.
        let current = self.current.with(|place| unsafe { *place });
        if let Some(Loop { run, body }) = current {
            // SAFETY: the promise of who started the loop.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| unsafe { run(body, group as usize) })) {
                lock(&self.panic).get_or_insert(payload);
            }
        }
        // After this the loop may be gone. Releases what the group wrote to the caller.
        if self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 | SLEEPING {
            drop(lock(&self.waiting));
            self.finished.notify_one();
        }
        true
    }

    fn take(&self) -> Option<u32> {
        let mut untaken = self.untaken.load(Ordering::Relaxed);
        while untaken & !SLEEPING != 0 {
            match self.untaken.compare_exchange_weak(untaken, untaken - 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some((untaken & !SLEEPING) - 1),
                Err(now) => untaken = now,
            }
        }
        None
    }

    fn wait_for_others(&self) {
        let over = || self.unfinished.load(Ordering::Acquire) & !SLEEPING == 0;
        if seen_soon(over) {
            return;
        }
        let mut waiting = lock(&self.waiting);
        // Whoever does the last group sees the bit, or is seen here.
        while self.unfinished.fetch_or(SLEEPING, Ordering::AcqRel) & !SLEEPING != 0 {
            waiting = wait(&self.finished, waiting);
        }
    }

    /// Wakes some of the threads that sleep.
    fn wake(&self, most: usize) {
        let idle = lock(&self.idle);
        let woken = most.min(*idle);
        if woken < *idle {
            self.untaken.fetch_or(SLEEPING, Ordering::Relaxed);
        }
        drop(idle);
        (0..woken).for_each(|_| self.work.notify_one());
    }

    /// What a thread of the pool does until it is told to stop.
    pub fn work(&self, stop: &AtomicBool) {
        let mut turn = Turn::begin();
        while !stop.load(Ordering::Acquire) {
            while self.run_one() {
                turn.between_groups(&self.caller);
            }
            let news = || self.untaken.load(Ordering::Relaxed) & !SLEEPING != 0 || stop.load(Ordering::Acquire);
            if !seen_soon(news) {
                self.sleep(stop);
            }
        }
    }

    /// Sleeps until there is work, or a moment less: who is woken for a loop that is over by then looks for the next one before
    /// sleeping again.
    fn sleep(&self, stop: &AtomicBool) {
        let mut idle = lock(&self.idle);
        *idle += 1;
        // Whoever starts a loop sees the bit, or is seen here.
        if self.untaken.fetch_or(SLEEPING, Ordering::AcqRel) & !SLEEPING == 0 && !stop.load(Ordering::Acquire) {
            idle = wait(&self.work, idle);
        }
        *idle -= 1;
    }

    /// Lets threads that were told to stop hear of it.
    pub fn wake_all(&self) {
        drop(lock(&self.idle));
        self.work.notify_all();
    }
}
