//! How the threads of a pool share their cores with others.
//!
//! The system takes a core away in the middle of a piece, and then the caller waits until it is given back, four milliseconds
//! or more. So a helper offers its core between two groups, a little before it would be taken away: where somebody wants it,
//! the caller works on alone meanwhile, and where nobody does the offer costs less than a microsecond. A caller whose own
//! core is taken away now and then needs its helpers whenever it has one; they offer nothing.
//!
//! Where three threads share two cores, the system may leave the caller and its only helper together on one, where each waits
//! for the other. A helper that notices this goes to another core.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use crate::cores;

/// Time after which a helper offers its core. Systems take it away after 3 to 4 ms.
const TURN: Duration = Duration::from_millis(2);
/// Who was not seen for so long had no core, or one long piece.
const AWAY: Duration = Duration::from_millis(1);
/// Time for which a caller that was away counts as one whose core is wanted by others.
const CONTENDED: Duration = Duration::from_millis(15);
/// Time between two moves to another core, so that more threads than cores do not move for ever.
const BETWEEN_MOVES: Duration = Duration::from_millis(5);

/// What helpers know of the caller.
pub struct Caller {
    epoch: Instant,
    /// The largest number where the system does not tell.
    core: AtomicUsize,
    /// Milliseconds from the epoch until the caller was last back from being away.
    back: AtomicU32,
}

impl Caller {
    /// Nothing is known yet.
    pub fn unknown() -> Self {
        Self { epoch: Instant::now(), core: AtomicUsize::new(usize::MAX), back: AtomicU32::new(0) }
    }

    /// The caller of a loop says where it is. What it gives back is asked after every group.
    pub fn arrive(&self) -> Attendance<'_> {
        self.core.store(cores::current().unwrap_or(usize::MAX), Ordering::Relaxed);
        Attendance { caller: self, last_seen: Instant::now() }
    }

    fn milliseconds(&self, now: Instant) -> u32 {
        (now - self.epoch).as_millis() as u32
    }

    fn is_here(&self) -> bool {
        cores::current().is_some_and(|core| core == self.core.load(Ordering::Relaxed))
    }

    fn is_contended(&self, now: Instant) -> bool {
        let back = self.back.load(Ordering::Relaxed);
        back > 0 && self.milliseconds(now).wrapping_sub(back) < CONTENDED.as_millis() as u32
    }
}

/// Whether the caller keeps its core during a loop.
pub struct Attendance<'a> {
    caller: &'a Caller,
    last_seen: Instant,
}

impl Attendance<'_> {
    /// The caller is there.
    pub fn seen(&mut self) {
        let now = Instant::now();
        if now - self.last_seen > AWAY {
            self.caller.back.store(self.caller.milliseconds(now), Ordering::Relaxed);
        }
        self.last_seen = now;
    }
}

/// The time for which a helper has had its core.
pub struct Turn {
    began: Instant,
    last_seen: Instant,
    moved: Instant,
}

impl Turn {
    /// Begins now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, last_seen: now, moved: now }
    }

    /// Makes room for others if it is time. The thread must hold nothing that another waits for.
    pub fn between_groups(&mut self, caller: &Caller) {
        if cfg!(any(loom, miri)) {
            return;
        }
        let now = Instant::now();
        if now - self.last_seen > AWAY {
            self.began = now;
        }
        self.last_seen = now;
        if now - self.moved > BETWEEN_MOVES && caller.is_here() {
            cores::leave();
            *self = Self::begin();
        } else if now - self.began > TURN && !caller.is_contended(now) {
            yield_now();
            let now = Instant::now();
            (self.began, self.last_seen) = (now, now);
        }
    }
}
