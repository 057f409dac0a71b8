//! How events are told: by a bar on a terminal, by a line now and then elsewhere, by lines of JSON to a program.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanDuration, ProgressBar};

use super::bar::bar;
use super::interrupt::Interrupt;
use super::output::print;
use crate::event::{Event, Listener};
use crate::machine::memory::mebibytes;

/// Who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Somebody at a terminal, or who reads a log.
    People,
    /// A program: one JSON object a line on standard output.
    Machine,
    /// Nobody until the end.
    Nobody,
}

/// Tells events to an audience, and whoever tells them to stop when Ctrl-C is pressed.
pub struct Progress {
    teller: Box<dyn Teller>,
    interrupt: &'static Interrupt,
}

trait Teller {
    fn tell(&mut self, event: &Event<'_>);
}

impl Progress {
    /// From now on, Ctrl-C ends a matrix after its prompt and a play after its batch, and the program at once where nothing
    /// would be kept.
    pub fn new(audience: Audience) -> Result<Self> {
        let teller: Box<dyn Teller> = match audience {
            Audience::Nobody => Box::new(Notes),
            Audience::Machine => Box::new(Json),
            Audience::People if std::io::stderr().is_terminal() => Box::new(Bar::new()),
            Audience::People => Box::new(Lines::new()),
        };
        Ok(Self { teller, interrupt: Interrupt::hear()? })
    }
}

impl Progress {
    /// Whether whoever was told has asked to stop.
    pub fn stopped(&self) -> bool {
        self.interrupt.asked()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.interrupt.working(false);
    }
}

impl Listener for Progress {
    fn hear(&mut self, event: &Event<'_>) -> ControlFlow<()> {
        if matches!(event, Event::Begun { .. } | Event::Playing { .. } | Event::Looked { .. }) {
            self.interrupt.working(true);
        }
        self.teller.tell(event);
        if self.interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// What must be said whoever listens.
struct Notes;

impl Teller for Notes {
    fn tell(&mut self, event: &Event<'_>) {
        if let Event::Note { text } = event {
            eprintln!("note: {text}");
        }
    }
}

/// A line for every event but those that come many times a second.
struct Json;

impl Teller for Json {
    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Note { .. } => Notes.tell(event),
            Event::Prefilled { .. }
            | Event::Replayed { .. }
            | Event::Played { .. }
            | Event::Looked { .. }
            | Event::Begun { .. } => {}
            other => {
                if let Ok(line) = serde_json::to_string(other) {
                    // Nobody reads on: nothing is lost by working on.
                    let _ = print(&line);
                }
            }
        }
    }
}

/// A line that changes.
struct Bar {
    bar: ProgressBar,
    prefilling: bool,
    /// Of the prompts that were done before, and what is done with the one at work.
    skipped: usize,
    prompt: String,
    speed: String,
}

impl Bar {
    fn new() -> Self {
        let (prompt, speed) = (String::new(), String::new());
        Self { bar: ProgressBar::hidden(), prefilling: false, skipped: 0, prompt, speed }
    }

    fn begin(&mut self, template: &str, length: usize) {
        self.bar.finish_and_clear();
        self.bar = bar(false, template, length);
    }

    fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Teller for Bar {
    fn tell(&mut self, event: &Event<'_>) {
        match event {
            Event::Note { text } => self.say(&format!("note: {text}")),
            Event::Skipped { prompts } => {
                self.skipped = *prompts;
                self.begin("{wide_bar} {pos}/{len} prompts, {elapsed} gone  {msg}", *prompts);
            }
            Event::Begun { task, prompt_tokens, .. } => {
                self.prompt = format!("{task}, {prompt_tokens} tokens");
                self.bar.set_message(format!("{}{}", self.prompt, self.speed));
            }
            // Of a matrix, whose bar counts prompts.
            Event::Prefilled { tokens, .. } if !self.prompt.is_empty() => {
                self.bar.set_message(format!("{}, {tokens} prefilled{}", self.prompt, self.speed));
            }
            Event::Replayed { tokens, of } => {
                self.bar.set_message(format!("{}, {tokens} of {of} fed again{}", self.prompt, self.speed));
            }
            Event::Prefilled { tokens, of } => {
                if !std::mem::replace(&mut self.prefilling, true) {
                    self.begin("prefill {wide_bar} {pos}/{len} tokens, {eta} left", *of);
                }
                self.bar.set_position(*tokens as u64);
            }
            Event::Prompt { prompts_done, prompts, seconds_left, .. } => {
                self.bar.set_length((self.skipped + prompts) as u64);
                self.bar.set_position((self.skipped + prompts_done) as u64);
                self.speed = format!(", {}, about {} left", speed(event), duration(*seconds_left));
            }
            Event::Resumed { .. } | Event::Playing { .. } => {
                self.say(&sentence(event));
                if let Event::Playing { .. } = event {
                    self.prefilling = false;
                    self.begin("{spinner} {elapsed} gone  {msg}", 0);
                }
            }
            Event::Played { .. } => self.bar.set_message(sentence(event)),
            Event::Looked { records, of } => {
                if self.bar.length() != Some(*of as u64) {
                    self.begin("{wide_bar} {pos}/{len} records looked at, {eta} left", *of);
                }
                self.bar.set_position(*records as u64);
            }
        }
    }
}

/// A line now and then, for those that cannot change.
struct Lines {
    said: Instant,
    prompt: String,
}

impl Lines {
    const PAUSE: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Self { said: Instant::now(), prompt: String::new() }
    }
}

impl Teller for Lines {
    fn tell(&mut self, event: &Event<'_>) {
        let due = match event {
            Event::Note { .. } => return Notes.tell(event),
            Event::Skipped { .. } => return,
            Event::Begun { task, prompt_tokens, .. } => {
                self.prompt = format!("{task}, {prompt_tokens} tokens");
                return;
            }
            Event::Resumed { .. } | Event::Playing { .. } => true,
            Event::Prompt { prompts_done, prompts, .. } => prompts_done == prompts || self.said.elapsed() > Self::PAUSE,
            Event::Looked { records, of } => records == of || self.said.elapsed() > Self::PAUSE,
            Event::Prefilled { .. } | Event::Replayed { .. } | Event::Played { .. } => {
                self.said.elapsed() > Self::PAUSE
            }
        };
        if due {
            self.said = Instant::now();
            match event {
                Event::Prompt { .. } => eprintln!("{}  {}", sentence(event), self.prompt),
                other => eprintln!("{}", sentence(other)),
            }
        }
    }
}

/// An event in words.
fn sentence(event: &Event<'_>) -> String {
    match event {
        Event::Note { text } => format!("note: {text}"),
        Event::Skipped { prompts } => format!("{prompts} prompts were done before"),
        Event::Begun { task, record, prompt_tokens } => format!("{task} {record}, {prompt_tokens} tokens"),
        Event::Prefilled { tokens, of } => format!("{tokens}/{of} tokens prefilled"),
        Event::Replayed { tokens, of } => format!("{tokens}/{of} tokens fed again"),
        Event::Prompt { prompts_done, prompts, seconds_left, .. } => {
            format!("{prompts_done}/{prompts} prompts, {}, about {} left", speed(event), duration(*seconds_left))
        }
        Event::Looked { records, of } => format!("{records}/{of} records looked at"),
        Event::Resumed { samples } => format!("going on after {samples} samples"),
        Event::Playing { heads, records, seconds } => {
            format!("{heads} heads play on {records} records, prefilled in {seconds:.1} s")
        }
        Event::Played { samples, evaluations_per_second, reliability, seconds_left } => {
            let mut text = format!("{samples} samples, {evaluations_per_second:.1} evaluations/s");
            if let Some(reliability) = reliability {
                text += &format!(", reliability {reliability:.2}");
            }
            if let Some(seconds) = seconds_left {
                text += &format!(", about {} left", duration(*seconds));
            }
            text
        }
    }
}

/// How fast a matrix is, with the memory that it took.
fn speed(event: &Event<'_>) -> String {
    let Event::Prompt { rows, seconds, peak_bytes, .. } = event else { return String::new() };
    let peak = peak_bytes.map(|bytes| format!(", {} at the peak", mebibytes(bytes))).unwrap_or_default();
    format!("{:.1} cells/s{peak}", *rows as f64 / seconds.max(1e-9))
}

fn duration(seconds: f64) -> HumanDuration {
    HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_sentences_and_programs_keys() {
        let event = Event::Prompt {
            prompts_done: 2,
            prompts: 8,
            rows: 20,
            seconds: 10.0,
            seconds_left: 30.0,
            peak_bytes: Some(1 << 30),
        };
        assert_eq!(sentence(&event), "2/8 prompts, 2.0 cells/s, 1024 MiB at the peak, about 30 seconds left");
        let json = serde_json::to_value(&event).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["event", "prompts_done", "prompts", "rows", "seconds", "seconds_left", "peak_bytes"]);
        assert_eq!(json["event"], "prompt");
    }
}
