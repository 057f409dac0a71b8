//! Work of others, to see how a model runs on a machine that is shared.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Threads that keep the machine busy until this is dropped, each as a process with nothing to wait for does.
pub struct Neighbours {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Neighbours {
    /// As many busy threads.
    pub fn busy(count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = || {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut number = 1u64;
                while !stop.load(Ordering::Relaxed) {
                    number =
                        (0..4096).fold(number, |number, _| black_box(number.wrapping_mul(6_364_136_223_846_793_005)));
                }
            })
        };
        Self { threads: (0..count).map(|_| thread()).collect(), stop }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // They do nothing that could panic.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
