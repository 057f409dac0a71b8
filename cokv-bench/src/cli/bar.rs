//! Progress bars, all alike.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cokv_models::source::{FetchEvent, Observer};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error; hidden where that is no terminal, and where nothing should be said.
pub fn bar(quiet: bool, template: &str, length: usize) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(length as u64) };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// Shows on standard error how a fetch goes: a bar for each file, a line where that is no terminal.
pub fn fetching() -> Observer {
    let shown: Mutex<Option<ProgressBar>> = Mutex::default();
    Observer::new(move |event| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            FetchEvent::Waiting(lock) => {
                eprintln!("waiting for another process that fetches the same ({})", lock.display());
            }
            FetchEvent::Fetching { what, bytes, total } => {
                let bar = shown.get_or_insert_with(|| bar_of_file(what, total));
                bar.set_position(bytes);
            }
            FetchEvent::Ended => {
                if let Some(bar) = shown.take() {
                    bar.finish_and_clear();
                }
            }
            FetchEvent::Failed(source, error) => {
                eprintln!("{source}: {}", error.to_string().lines().next().unwrap_or_default());
            }
        }
    })
}

fn bar_of_file(what: &str, total: Option<u64>) -> ProgressBar {
    let template = match total {
        Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes}, {eta} left",
        None => "{spinner} {msg} [{elapsed_precise}] {bytes}",
    };
    let bar = bar(false, template, total.unwrap_or_default() as usize).with_message(format!("fetching {what}"));
    if bar.is_hidden() {
        // A log should still say what takes so long.
        eprintln!("fetching {what}");
    }
    bar
}
