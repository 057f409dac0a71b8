//! How many threads a command computes on.

use std::num::NonZeroUsize;

/// Computes on this many threads from now on. Without a number they are as many as the process may use.
pub fn run_on(threads: Option<NonZeroUsize>) {
    let Some(threads) = threads else { return };
    let allowed = std::thread::available_parallelism().unwrap_or(threads);
    if threads > allowed {
        eprintln!(
            "note: {threads} threads on {allowed} cores wait for each other; as many threads as cores are faster"
        );
    }
    cokv_models::set_threads(threads);
}
