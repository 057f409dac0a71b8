//! How a matrix is told on the terminal.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar};

use super::bar::bar;
use crate::run::{Observer, Plan};

/// A bar on a terminal, a line now and then elsewhere.
pub struct Progress {
    bar: ProgressBar,
    lines: bool,
    prompt: String,
    done: u64,
    said: Instant,
    started: Instant,
    to_do: u64,
    rows: usize,
}

impl Progress {
    pub fn new(plan: &Plan, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let template = "{wide_bar} {pos}/{len} prompts, {elapsed} gone, {eta} left  {msg}";
        let bar = bar(quiet, template, plan.prompts);
        let to_do = (plan.prompts - plan.done) as u64;
        Self {
            bar,
            lines: !quiet && !terminal,
            prompt: String::new(),
            done: 0,
            said: Instant::now(),
            started: Instant::now(),
            to_do,
            rows: 0,
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn skipped(&mut self, prompts: usize) {
        self.bar.inc(prompts as u64);
        // What was done before says nothing about the speed of this run.
        self.bar.reset_eta();
    }

    fn begin(&mut self, task: &str, _record: &str, prompt_tokens: usize) {
        self.prompt = format!("{task}, {prompt_tokens} tokens");
        self.bar.set_message(self.prompt.clone());
    }

    fn prefilled(&mut self, tokens: usize) {
        self.bar.set_message(format!("{}, {tokens} prefilled", self.prompt));
    }

    fn finished(&mut self, rows: usize) {
        self.done += 1;
        self.rows += rows;
        self.bar.inc(1);
        let due = self.said.elapsed() > Duration::from_secs(10) || self.done == self.to_do;
        if self.lines && due {
            self.said = Instant::now();
            let elapsed = self.started.elapsed();
            let left = elapsed.mul_f64((self.to_do - self.done) as f64 / self.done as f64);
            eprintln!(
                "{}/{} prompts, {:.1} cells/s, about {} left",
                self.done,
                self.to_do,
                self.rows as f64 / elapsed.as_secs_f64(),
                HumanDuration(left)
            );
        }
    }

    fn note(&mut self, text: &str) {
        match self.lines || self.bar.is_hidden() {
            true => eprintln!("note: {text}"),
            false => self.bar.println(format!("note: {text}")),
        }
    }
}
