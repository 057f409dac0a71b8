//! How a thread of the pool shares its core with others.
//!
//! The system takes a core away in the middle of a piece, and then the caller waits until it is given back, four milliseconds
//! or more. So a thread offers its core between two groups, a little before it would be taken away: where somebody wants
//! it, the caller works on alone meanwhile, and where nobody does the offer costs less than a microsecond.
//!
//! Where three threads share two cores, the system may leave the caller and its only helper together on one, where each waits
//! for the other. A helper that notices this goes to another core.

use std::thread::yield_now;
use std::time::{Duration, Instant};

use crate::cores;

/// Time after which a thread offers its core. Systems take it away after 3 to 4 ms.
const TURN: Duration = Duration::from_millis(2);
/// A thread that has done nothing for so long had no core, or no work.
const AWAY: Duration = Duration::from_millis(1);
/// Time between two moves to another core, so that more threads than cores do not move for ever.
const BETWEEN_MOVES: Duration = Duration::from_millis(5);

/// The time for which a thread has had its core.
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
    pub fn between_groups(&mut self, callers_core: u32) {
        if cfg!(any(loom, miri)) {
            return;
        }
        let now = Instant::now();
        if now - self.last_seen > AWAY {
            self.began = now;
        }
        self.last_seen = now;
        if callers_core != cores::UNKNOWN && now - self.moved > BETWEEN_MOVES && cores::current() == callers_core {
            cores::leave(callers_core);
            *self = Self::begin();
        } else if now - self.began > TURN {
            yield_now();
            let now = Instant::now();
            (self.began, self.last_seen) = (now, now);
        }
    }
}
