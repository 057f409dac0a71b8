//! What threads agree with: the standard library's, or loom's, which tries every order in which things may happen.

#[cfg(not(loom))]
mod chosen {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    pub use std::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use std::thread::JoinHandle;

    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        pub fn with<R>(&self, work: impl FnOnce(*const T) -> R) -> R {
            work(self.0.get())
        }

        pub fn with_mut<R>(&self, work: impl FnOnce(*mut T) -> R) -> R {
            work(self.0.get())
        }
    }

    /// Starts a thread; fails where the system gives none.
    pub fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(name).spawn(work)
    }
}

#[cfg(loom)]
mod chosen {
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    pub use loom::sync::{Arc, Condvar, Mutex, MutexGuard};
    pub use loom::thread::JoinHandle;

    pub fn spawn(_: String, work: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
        Ok(loom::thread::spawn(work))
    }
}

pub use chosen::*;

/// The guard, also after a panic: what these locks protect is whole at any time.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Waits to be told, and takes the lock again.
pub fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    condvar.wait(guard).unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Looks again and again for a moment; whether it was seen. Nobody waits longer than a sleep and a waking take: then sleeping
/// costs at most as much again.
pub fn seen_soon(mut seen: impl FnMut() -> bool) -> bool {
    if cfg!(any(loom, miri)) {
        return seen();
    }
    const MOMENT: std::time::Duration = std::time::Duration::from_micros(60);
    /// Looks between two looks at the clock.
    const LOOKS: usize = 32;
    let start = std::time::Instant::now();
    loop {
        for _ in 0..LOOKS {
            if seen() {
                return true;
            }
            spin_loop();
        }
        if start.elapsed() > MOMENT {
            return false;
        }
    }
}
