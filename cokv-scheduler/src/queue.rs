//! Who waits, and who may go first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::entries::Found;
use crate::handle::Flags;
use crate::job::Job;
use crate::told::MadeBy;

/// A job in the queue.
pub struct Waiting {
    pub job: Job,
    pub flags: Arc<Flags>,
    /// The document that it names, which stays for it whatever becomes of the name.
    pub document: Option<Found>,
    /// What made that, where not all of it is kept.
    pub made_by: Option<MadeBy>,
    pub since: Instant,
    /// Later ones that went before it because it did not fit.
    pub overtaken: usize,
    /// When it was first seen not to fit.
    pub unfitting: Option<Instant>,
}

/// Jobs in the order in which they came.
pub type Queue = VecDeque<Waiting>;

impl Waiting {
    /// Whether nobody may go before it any more.
    pub fn is_waited_for(&self, now: Instant, overtakes: usize, overtaking: Duration) -> bool {
        let long = self.unfitting.is_some_and(|since| now.duration_since(since) >= overtaking);
        self.unfitting.is_some() && (long || self.overtaken >= overtakes)
    }
}
