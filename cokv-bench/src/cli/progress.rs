//! How a matrix is told: a bar on a terminal, a line now and then elsewhere, lines of JSON for machines.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar};
use serde_json::json;

use super::bar::bar;
use super::interrupt::Interrupt;
use super::output::print;
use crate::machine::memory::{mebibytes, peak_resident_bytes};
use crate::run::{Observer, Plan};

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Somebody at a terminal, or who reads a log.
    People,
    /// A program: one JSON object a line on standard output.
    Machine,
    /// Nobody until the table.
    Nobody,
}

/// Tells how a matrix goes, and stops it after the current prompt when Ctrl-C is pressed.
pub struct Progress {
    audience: Audience,
    bar: ProgressBar,
    lines: bool,
    prompt: String,
    done: u64,
    said: Instant,
    started: Instant,
    to_do: u64,
    rows: usize,
    interrupt: &'static Interrupt,
}

impl Progress {
    pub fn new(plan: &Plan, audience: Audience) -> Result<Self> {
        let terminal = std::io::stderr().is_terminal();
        let template = "{wide_bar} {pos}/{len} prompts, {elapsed} gone, {eta} left  {msg}";
        let interrupt = Interrupt::hear()?;
        interrupt.working(true);
        Ok(Self {
            audience,
            bar: bar(audience != Audience::People, template, plan.prompts),
            lines: audience == Audience::People && !terminal,
            prompt: String::new(),
            done: 0,
            said: Instant::now(),
            started: Instant::now(),
            to_do: (plan.prompts - plan.done) as u64,
            rows: 0,
            interrupt,
        })
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.interrupt.working(false);
        self.bar.finish_and_clear();
    }

    fn speed(&self) -> String {
        let cells = self.rows as f64 / self.started.elapsed().as_secs_f64();
        let peak = peak_resident_bytes().map(|bytes| format!(", {} at the peak", mebibytes(bytes))).unwrap_or_default();
        format!("{cells:.1} cells/s{peak}")
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
        self.bar.set_message(format!("{}, {tokens} prefilled, {}", self.prompt, self.speed()));
    }

    fn finished(&mut self, rows: usize) -> ControlFlow<()> {
        self.done += 1;
        self.rows += rows;
        self.bar.inc(1);
        let elapsed = self.started.elapsed();
        let left = elapsed.mul_f64((self.to_do - self.done) as f64 / self.done as f64);
        if self.audience == Audience::Machine {
            let event = json!({
                "event": "prompt",
                "prompts_done": self.done,
                "prompts": self.to_do,
                "rows": self.rows,
                "seconds": elapsed.as_secs_f64(),
                "seconds_left": left.as_secs_f64(),
                "peak_bytes": peak_resident_bytes(),
            });
            // Nobody reads on: nothing is lost by working on.
            let _ = print(&event.to_string());
        }
        let due = self.said.elapsed() > Duration::from_secs(10) || self.done == self.to_do;
        if self.lines && due {
            self.said = Instant::now();
            eprintln!(
                "{}/{} prompts, {}, about {} left  {}",
                self.done,
                self.to_do,
                self.speed(),
                HumanDuration(left),
                self.prompt
            );
        }
        match self.interrupt.asked() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn note(&mut self, text: &str) {
        match self.lines || self.bar.is_hidden() {
            true => eprintln!("note: {text}"),
            false => self.bar.println(format!("note: {text}")),
        }
    }
}
