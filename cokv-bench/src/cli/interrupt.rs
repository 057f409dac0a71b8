//! Ctrl-C, and the signals of whoever runs a task: what is in progress is finished first, and the second time ends the program.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use anyhow::{Context, Result};
#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
#[cfg(unix)]
use signal_hook::iterator::Signals;

/// Whether Ctrl-C was pressed, and whether there is something to finish first. A program has one.
#[derive(Default)]
pub struct Interrupt {
    working: AtomicBool,
    asked: AtomicBool,
}

static INTERRUPT: OnceLock<Interrupt> = OnceLock::new();

/// As shells report a program that Ctrl-C ended, so that a script does not go on as if all were done.
const EXIT_CODE: u8 = 130;

/// What the program exits with where there is nothing to finish.
static CODE: AtomicU8 = AtomicU8::new(EXIT_CODE);

/// What a stopped program exits with, for whoever asks it to stop and waits for it.
pub fn exit_code() -> u8 {
    CODE.load(Ordering::Relaxed)
}

impl Interrupt {
    /// From now on, Ctrl-C is heard: while something is worked on, work is asked to stop at the next good place.
    pub fn hear() -> Result<&'static Self> {
        let first = INTERRUPT.get().is_none();
        let interrupt = INTERRUPT.get_or_init(Self::default);
        if first {
            ctrlc::set_handler(|| interrupt.ask()).context("Ctrl-C cannot be heard")?;
        }
        Ok(interrupt)
    }

    /// The same for a task of a cluster: SIGUSR1, by which Slurm says that its time is almost up, counts too, and a program that
    /// was stopped exits with this.
    pub fn hear_as_task(code: u8) -> Result<&'static Self> {
        CODE.store(code, Ordering::Relaxed);
        let interrupt = Self::hear()?;
        #[cfg(unix)]
        {
            let mut signals = Signals::new([SIGUSR1]).context("SIGUSR1 cannot be heard")?;
            std::thread::spawn(move || signals.forever().for_each(|_| interrupt.ask()));
        }
        Ok(interrupt)
    }

    fn ask(&self) {
        if self.asked.swap(true, Ordering::Relaxed) || !self.working.load(Ordering::Relaxed) {
            std::process::exit(exit_code().into());
        }
        eprintln!("\nstopping after what is at work; a second time stops at once");
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
