//! How an estimation is told on the terminal, and how Ctrl-C reaches it.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use cokv_shapley::Progress;
use indicatif::{HumanDuration, ProgressBar};

use super::bar::bar;
use super::interrupt::Interrupt;
use crate::importance::Watcher;

/// A line that changes on a terminal, a line now and then elsewhere.
pub struct Teller {
    quiet: bool,
    terminal: bool,
    bar: ProgressBar,
    said: Instant,
    started: Instant,
    prefilling: bool,
    interrupt: &'static Interrupt,
}

impl Teller {
    /// From now on, Ctrl-C ends a play after its batch, and the program where nothing is played.
    pub fn new(quiet: bool) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let interrupt = Interrupt::hear()?;
        let now = Instant::now();
        Ok(Self { quiet, terminal, bar: ProgressBar::hidden(), said: now, started: now, prefilling: false, interrupt })
    }

    /// Takes the changing line away.
    pub fn clear(&mut self) {
        self.interrupt.working(false);
        self.bar.finish_and_clear();
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    fn begin(&mut self, template: &str, length: usize) {
        self.started = Instant::now();
        self.bar.finish_and_clear();
        self.bar = bar(self.quiet, template, length);
    }

    /// A line now and then where lines cannot change.
    fn line(&mut self, text: &str) {
        if !self.quiet && !self.terminal && self.said.elapsed() > Duration::from_secs(10) {
            self.said = Instant::now();
            eprintln!("{text}");
        }
    }
}

impl Watcher for Teller {
    fn note(&mut self, text: &str) {
        self.say(&format!("note: {text}"));
    }

    fn resumed(&mut self, samples: usize) {
        if !self.quiet {
            self.say(&format!("going on after {samples} samples"));
        }
    }

    fn prefilling(&mut self, tokens: usize, of: usize) {
        if !self.prefilling {
            self.prefilling = true;
            self.begin("prefill {wide_bar} {pos}/{len} tokens, {eta} left", of);
        }
        self.bar.set_position(tokens as u64);
        self.line(&format!("{tokens}/{of} tokens prefilled"));
    }

    fn prefilled(&mut self, heads: usize, records: usize) {
        if !self.quiet {
            let seconds = self.started.elapsed().as_secs_f64();
            self.say(&format!("{heads} heads play on {records} records, prefilled in {seconds:.1} s"));
        }
        self.prefilling = false;
        self.interrupt.working(true);
        self.begin("{spinner} {elapsed} gone  {msg}", 0);
    }

    fn played(&mut self, progress: &Progress) -> ControlFlow<()> {
        let speed = progress.new_evaluations as f64 / progress.elapsed.as_secs_f64().max(1e-9);
        let mut text = format!("{} samples, {speed:.1} evaluations/s", progress.samples);
        if let Some(estimate) = &progress.estimate {
            text += &format!(", reliability {:.2}", estimate.reliability);
        }
        if let Some(remaining) = progress.remaining {
            text += &format!(", about {} left", HumanDuration(remaining));
        }
        self.line(&text);
        self.bar.set_message(text);
        match self.interrupt.asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}
