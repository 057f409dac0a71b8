//! Which core a thread runs on, where the system tells.

#[cfg(all(target_os = "linux", not(any(loom, miri))))]
mod system {
    use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity};

    /// The core that this thread runs on at the moment.
    pub fn current() -> Option<usize> {
        Some(sched_getcpu())
    }

    /// Goes to another core that this thread may use, if there is one. It may come back at any time.
    pub fn leave() {
        let Ok(allowed) = sched_getaffinity(None) else { return };
        let mut others = allowed;
        others.unset(sched_getcpu());
        // Fails where no other core is allowed.
        if sched_setaffinity(None, &others).is_ok() {
            // What was allowed before cannot be refused.
            let _ = sched_setaffinity(None, &allowed);
        }
    }
}

#[cfg(not(all(target_os = "linux", not(any(loom, miri)))))]
mod system {
    pub fn current() -> Option<usize> {
        None
    }

    pub fn leave() {}
}

pub use self::system::{current, leave};

#[cfg(all(test, target_os = "linux", not(any(loom, miri))))]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn a_thread_leaves_its_core_and_may_go_wherever_it_might_before() {
        let before = sched_getaffinity(None).unwrap();
        for _ in 0..20 {
            leave();
            assert_eq!(sched_getaffinity(None).unwrap(), before);
            assert!(current().is_some_and(|core| before.is_set(core)));
        }
    }
}
