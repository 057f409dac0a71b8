//! Ctrl-C: what is in progress is finished first, and the second time ends the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use super::stopped::EXIT_CODE;

/// Whether Ctrl-C was pressed, and whether there is something to finish first. A program has one.
#[derive(Default)]
pub struct Interrupt {
    working: AtomicBool,
    asked: AtomicBool,
}

static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();

impl Interrupt {
    /// From now on, Ctrl-C is heard: while something is worked on, work is asked to stop at the next good place.
    pub fn hear() -> Result<&'static Self> {
        let first = INTERRUPT.get().is_none();
        let interrupt = INTERRUPT.get_or_init(Self::default);
        if first {
            ctrlc::set_handler(move || {
                if interrupt.asked.swap(true, Ordering::Relaxed) || !interrupt.working.load(Ordering::Relaxed) {
                    std::process::exit(EXIT_CODE.into());
                }
                eprintln!("\nstopping after what is at work; Ctrl-C again to stop at once");
            })
            .context("Ctrl-C cannot be heard")?;
        }
        Ok(interrupt)
    }

    /// Something that should be finished begins or ends.
    pub fn working(&self, working: bool) {
        self.working.store(working, Ordering::Relaxed);
    }

    /// Whether work should stop.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
