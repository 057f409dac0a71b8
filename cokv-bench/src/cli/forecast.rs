//! What a command is about to do, how long that takes and whether there is room for it: every `--plan` says this.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::HumanDuration;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::importance::{Span, Work};
use crate::machine::memory::{free_disk_bytes, mebibytes};
use crate::model::Beside;
use crate::run::Plan;

/// What a command is about to do.
pub struct Forecast {
    /// Head scores that are to be measured first.
    pub studies: Vec<Studied>,
    /// The matrix, if there is one.
    pub matrix: Option<Plan>,
    /// Memory of the weights.
    pub weight_bytes: u64,
    /// Whether it is known what was done before.
    pub looked: bool,
}

/// Head scores that are to be measured.
pub struct Studied {
    /// What they are called.
    pub title: String,
    /// What there is to do.
    pub work: Work,
}

/// What figures of time are worth.
const ESTIMATE: &str =
    "an estimate from the model's shape and this machine's speed, with answers as long as they may be";

impl Forecast {
    /// Seconds of everything, where they are known.
    fn seconds(&self) -> Option<Span<f64>> {
        let of_matrix =
            self.matrix.iter().map(|plan| plan.seconds.map(|seconds| Span { least: seconds, most: Some(seconds) }));
        let all = self.studies.iter().map(|study| study.work.seconds).chain(of_matrix);
        all.reduce(|sum, next| {
            let (sum, next) = (sum?, next?);
            let most = sum.most.zip(next.most).map(|(sum, next)| sum + next);
            Some(Span { least: sum.least + next.least, most })
        })?
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.looked && self.studies.is_empty() && self.matrix.is_none_or(|plan| plan.done == plan.prompts)
    }

    /// What will lie in memory beside the weights, at most at one time.
    pub fn beside(&self) -> Beside {
        let studies = self.studies.iter().map(|study| beside_study(&study.work));
        let matrix = self.matrix.iter().map(|plan| Beside {
            bytes: plan.bytes as u64,
            what: format!("a prompt with its {} cells", plan.cells),
            advice: "run fewer budgets or methods at a time, or shorter prompts (max_prompt_tokens)",
        });
        studies.chain(matrix).max_by_key(|beside| beside.bytes).unwrap_or_default()
    }

    /// What there is to do, for people; and where everything is a plan, how long it takes and how much memory. `config` is
    /// that of the matrix.
    pub fn describe(&self, config: Option<&Config>, is_plan: bool) -> String {
        let matrix = config.zip(self.matrix.as_ref()).map(|(config, plan)| matrix(config, plan));
        let studies = self.studies.iter().map(|Studied { title, work }| format!("{title}: {}", study(work)));
        let mut lines: Vec<String> = matrix.into_iter().chain(studies).collect();
        if is_plan {
            lines.extend((!self.looked).then(|| NOT_LOOKED.to_owned()));
            lines.push(self.total());
        }
        lines.join("\n")
    }

    fn total(&self) -> String {
        let (beside, weights) = (mebibytes(self.beside().bytes), mebibytes(self.weight_bytes));
        let memory = format!("{beside} of memory beside the {weights} of the weights");
        match self.seconds() {
            Some(seconds) => {
                let end = if seconds.most.is_none() { NO_END } else { "" };
                format!("{}{end}, and {memory}; {ESTIMATE}", span(seconds, human))
            }
            None => {
                let silent = self.studies.iter().any(|study| study.work.evaluations.is_none());
                let why =
                    if silent { "an estimator does not say how much it looks at" } else { "an accelerator computes" };
                format!("{memory}; how long it takes is not estimated where {why}")
            }
        }
    }

    /// A plan, for a program; `model` is its source.
    pub fn event(&self, model: &str) -> Json {
        let Beside { bytes: beside, .. } = self.beside();
        let mut event = json!({
            "event": "plan",
            "model": model,
            "head_scores": self.studies.iter().map(|Studied { title, work }| json!({ "name": title, "work": work })).collect::<Vec<_>>(),
            "total_seconds": self.seconds(),
            "weight_bytes": self.weight_bytes,
            "memory_bytes": beside,
        });
        if let Some(plan) = &self.matrix {
            let Plan {
                cells,
                prompts,
                done,
                tokens_to_prefill,
                shortened,
                longest_shortened,
                bytes: _,
                steps,
                seconds,
            } = *plan;
            event["prompts"] = prompts.into();
            event["done"] = self.looked.then_some(done).into();
            event["cells"] = cells.into();
            event["tokens_to_prefill"] = tokens_to_prefill.into();
            event["most_tokens_to_decode"] = steps.into();
            event["shortened"] = shortened.into();
            event["longest_shortened"] = longest_shortened.into();
            event["seconds"] = seconds.into();
            event["disk_bytes"] = disk_bytes(plan).into();
        }
        event
    }
}

/// Said where nothing but what is found ends an estimation.
const NO_END: &str = " (only its stop rules end an estimation that has neither max_evaluations nor minutes)";

/// Said of a plan whose model was never hashed.
const NOT_LOOKED: &str = "note: what was done before is not counted: it bears the model's fingerprint, for which all of the \
                          weights are read once, by the first run";

/// What a matrix has to do, for people.
fn matrix(config: &Config, plan: &Plan) -> String {
    let Plan { cells, prompts, done, tokens_to_prefill, shortened, longest_shortened, steps, .. } = plan;
    let model = if config.models.len() > 1 { format!(" on {}", config.run.model.source) } else { String::new() };
    let mut text = format!("{}{model}: {}", config.run.name, count(*prompts as u64, "prompt"));
    if *done > 0 {
        text += &format!(", {done} of them done");
    }
    let once = if config.run.run.share_prefill { "once for all cells" } else { "once for every cell" };
    text += &format!(
        " × {}; {tokens_to_prefill} tokens to prefill, {once}, and {steps} to decode at most",
        count(*cells as u64, "cell")
    );
    text += &plan.seconds.map_or(String::new(), |seconds| format!("; {}", human(seconds)));
    if *shortened > 0 {
        text += &format!(
            "\nnote: {} lost the middle (the longest had {longest_shortened} tokens)",
            count(*shortened as u64, "prompt")
        );
    }
    text
}

/// What there is left to do to measure head scores, for people.
pub fn study(work: &Work) -> String {
    let Work { records, prefill_tokens, coalitions, evaluations, done, batch, answer_tokens, seconds, .. } = work;
    let mut text = format!("{}, {prefill_tokens} tokens to prefill", count(*records as u64, "record"));
    let made = if *done > 0 { format!(", {done} done before") } else { String::new() };
    text += &match (evaluations, coalitions) {
        (None, _) => "; how much is evaluated is the estimator's own affair".into(),
        (Some(left), true) => {
            format!("; {} evaluations of coalitions, {batch} a pass{made}", span(*left, |left| left.to_string()))
        }
        (Some(left), false) => format!("; {} to answer and watch{made}", span(*left, |left| left.to_string())),
    };
    if let Some(tokens) = answer_tokens {
        text += &format!("; {} tokens of answers", span(*tokens, |tokens| tokens.to_string()));
    }
    if let Some(seconds) = seconds {
        text += &format!("; {}", span(*seconds, human));
    }
    text
}

/// What measuring head scores takes beside the weights.
pub fn beside_study(work: &Work) -> Beside {
    let records = count(work.records as u64, "record");
    let what = if work.coalitions { format!("the caches of {records}") } else { "the cache of a record".into() };
    Beside { bytes: work.bytes, what, advice: "use fewer or shorter records, or cache = \"f16\"" }
}

fn span<T: PartialEq + Copy>(span: Span<T>, written: impl Fn(T) -> String) -> String {
    match span.most {
        Some(most) if most == span.least => written(most),
        Some(most) => format!("at least {} and at most {}", written(span.least), written(most)),
        None => format!("at least {}", written(span.least)),
    }
}

fn human(seconds: f64) -> String {
    const DAY: f64 = 86_400.0;
    match Duration::try_from_secs_f64(seconds) {
        // Weeks and months would hide the difference between parts and their sum.
        Ok(_) if seconds > 2.0 * DAY => format!("about {:.0} days", seconds / DAY),
        Ok(time) => format!("about {}", HumanDuration(time)),
        Err(_) => "more years than the universe is old".into(),
    }
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Refuses a plan whose rows would fill the disk.
pub fn enough_disk(plan: &Plan, folder: &Path) -> Result<()> {
    let rows = disk_bytes(plan);
    if let Some(free) = free_disk_bytes(folder).filter(|&free| rows > free) {
        let (rows, free) = (mebibytes(rows), mebibytes(free));
        bail!(
            "{}: the rows may take {rows}, and {free} are free; make room, or choose another `folder`",
            folder.display()
        );
    }
    Ok(())
}

/// About what a row takes on disk, its prediction included.
const ROW_BYTES: u64 = 2048;

/// About what the rows that are to do take on disk.
fn disk_bytes(plan: &Plan) -> u64 {
    ((plan.prompts - plan.done) * plan.cells) as u64 * ROW_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seconds: Option<f64>) -> Plan {
        Plan {
            cells: 3,
            prompts: 5,
            done: 1,
            tokens_to_prefill: 4000,
            shortened: 2,
            longest_shortened: 9000,
            bytes: 10 << 20,
            steps: 256,
            seconds,
        }
    }

    fn work(most: Option<u64>, seconds: Option<Span<f64>>) -> Work {
        Work {
            records: 2,
            prefill_tokens: 900,
            coalitions: true,
            evaluations: Some(Span { least: 100, most }),
            done: 60,
            batch: 64,
            answer_tokens: Some(Span { least: 500, most: most.map(|most| 5 * most) }),
            seconds,
            seconds_of_an_evaluation: None,
            bytes: 30 << 20,
        }
    }

    fn forecast(studies: Vec<Work>, seconds: Option<f64>) -> Forecast {
        let studies = studies.into_iter().map(|work| Studied { title: "[importance.x]".into(), work }).collect();
        Forecast { studies, matrix: Some(plan(seconds)), weight_bytes: 100 << 20, looked: true }
    }

    fn config() -> Config {
        let text = "name = 'mine'\nbudgets = [64]\n[[method]]\ncompressor = 'full'";
        Config::parse("cokv.toml", text, &cokv_policies::registry()).unwrap()
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let forecast = forecast(Vec::new(), Some(90.0));
        let text = forecast.describe(Some(&config()), true);
        let parts = [
            "mine: 5 prompts, 1 of them done × 3 cells; 4000 tokens to prefill, once for all cells, and 256 to decode",
            "9000 tokens",
            "about 2 minutes, and 10 MiB of memory beside the 100 MiB of the weights; an estimate",
        ];
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
        let event = forecast.event("m");
        let numbers = ["prompts", "done", "cells", "tokens_to_prefill", "shortened", "memory_bytes", "disk_bytes"];
        assert_eq!(numbers.map(|key| event[key].as_u64()), [5, 1, 3, 4000, 2, 10 << 20, 12 * ROW_BYTES].map(Some));
        assert_eq!((event["event"].as_str(), event["seconds"].as_f64()), (Some("plan"), Some(90.0)));
        assert!(!forecast.describe(Some(&config()), false).contains("memory"), "what is run says itself how it goes");
    }

    #[test]
    fn head_scores_count_and_their_stop_rules_are_limits() {
        let hours =
            |least: f64, most: Option<f64>| Some(Span { least: least * 3600.0, most: most.map(|most| most * 3600.0) });
        let both = forecast(vec![work(Some(400), hours(1.0, Some(3.0)))], Some(7200.0));
        let text = both.describe(Some(&config()), true);
        for part in [
            "[importance.x]: 2 records, 900 tokens to prefill; at least 100 and at most 400 evaluations of coalitions, 64 a pass, \
             60 done before; at least 500 and at most 2000 tokens of answers; at least about 60 minutes and at most about 3 hours",
            "at least about 3 hours and at most about 5 hours, and 30 MiB of memory",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(both.event("m")["total_seconds"]["most"], 5.0 * 3600.0);

        let endless = forecast(vec![work(None, hours(1.0, None))], Some(7200.0));
        let text = endless.describe(Some(&config()), true);
        assert!(
            text.contains("at least about 3 hours (only its stop rules end an estimation that has neither max_ev"),
            "{text}"
        );
        assert!(endless.event("m")["total_seconds"]["most"].is_null());
    }

    #[test]
    fn long_work_is_told_in_days() {
        assert_eq!(
            [40.0, 5.0 * 3600.0, 40.0 * 86_400.0].map(human),
            ["about 40 seconds", "about 5 hours", "about 40 days"]
        );
        assert_eq!(human(f64::INFINITY), "more years than the universe is old");
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let unknown = Forecast { looked: false, ..forecast(vec![work(Some(400), None)], None) };
        let text = unknown.describe(Some(&config()), true);
        assert!(!text.contains("about") && text.ends_with("is not estimated where an accelerator computes"), "{text}");
        assert!(text.contains("what was done before is not counted"), "{text}");
        let event = unknown.event("m");
        assert!(event["done"].is_null() && event["seconds"].is_null() && event["total_seconds"].is_null());
    }
}
