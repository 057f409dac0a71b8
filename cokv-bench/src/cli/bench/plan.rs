//! What a run will do, and whether there is room for it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use indicatif::HumanDuration;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::machine::memory::{free_disk_bytes, mebibytes};
use crate::run::Plan;

/// A plan, for people. `time` is about how long it takes, where that was measured.
pub fn describe(config: &Config, plan: &Plan, time: Option<Duration>) -> String {
    let Plan { cells, prompts, done, tokens_to_prefill, shortened, longest_shortened, .. } = plan;
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let model = if config.models.len() > 1 { format!(" on {}", config.run.model.source) } else { String::new() };
    let mut text = format!("{}{model}: {}", config.run.name, count(*prompts, "prompt"));
    if *done > 0 {
        text += &format!(", {done} of them done");
    }
    let once = if config.run.run.share_prefill { "once for all cells" } else { "once for every cell" };
    text += &format!(" × {}; {tokens_to_prefill} tokens to prefill, {once}", count(*cells, "cell"));
    if *shortened > 0 {
        text += &format!(
            "\nnote: {} lost the middle (the longest had {longest_shortened} tokens)",
            count(*shortened, "prompt")
        );
    }
    if let Some(time) = time {
        text += &format!(
            "\nabout {} and {} of memory beside the model, measured on a short piece of a prompt",
            HumanDuration(time),
            mebibytes(plan.bytes as u64)
        );
    }
    text
}

/// A plan, for a program.
pub fn event(config: &Config, plan: &Plan, time: Option<Duration>) -> Json {
    let Plan { cells, prompts, done, tokens_to_prefill, shortened, longest_shortened, bytes, steps } = *plan;
    json!({
        "event": "plan",
        "model": config.run.model.source,
        "prompts": prompts,
        "done": done,
        "cells": cells,
        "tokens_to_prefill": tokens_to_prefill,
        "most_tokens_to_decode": steps,
        "shortened": shortened,
        "longest_shortened": longest_shortened,
        "seconds": time.map(|time| time.as_secs_f64()),
        "memory_bytes": bytes,
        "disk_bytes": disk_bytes(plan),
    })
}

/// Refuses a plan that the system, or a limit on the job, would end halfway. `free` are the bytes that the model's device
/// may still give.
pub fn enough_room(plan: &Plan, free: Option<u64>, folder: &Path) -> Result<()> {
    let Plan { cells, bytes, .. } = *plan;
    if let Some(free) = free.filter(|&free| bytes as u64 > free) {
        bail!(
            "a prompt with its {cells} cells takes {}, and {} are free: run fewer budgets or methods at a time, or shorter \
             prompts (max_prompt_tokens)",
            mebibytes(bytes as u64),
            mebibytes(free)
        );
    }
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

    fn plan() -> Plan {
        Plan {
            cells: 3,
            prompts: 5,
            done: 1,
            tokens_to_prefill: 4000,
            shortened: 2,
            longest_shortened: 9000,
            bytes: 10 << 20,
            steps: 256,
        }
    }

    /// What a job was granted counts, whatever the machine has: `cokv_models::memory` reads both.
    #[test]
    fn a_plan_that_does_not_fit_is_refused_with_both_numbers() {
        let here = Path::new(".");
        assert!(enough_room(&plan(), Some(10 << 20), here).is_ok() && enough_room(&plan(), None, here).is_ok());
        let error = enough_room(&plan(), Some(4 << 20), here).unwrap_err().to_string();
        assert!(
            error.starts_with("a prompt with its 3 cells takes 10 MiB, and 4.00 MiB are free: run fewer"),
            "{error}"
        );
    }

    #[test]
    fn people_and_programs_are_told_the_same() {
        let text = "budgets = [64]\n[[method]]\ncompressor = 'full'";
        let config = Config::parse("cokv.toml", text, &cokv_policies::registry()).unwrap();
        let plan = plan();
        let time = Some(Duration::from_secs(90));
        let text = describe(&config, &plan, time);
        for part in ["5 prompts, 1 of them done × 3 cells", "4000 tokens to prefill", "9000 tokens", "10 MiB of memory"]
        {
            assert!(text.contains(part), "{text}");
        }
        let event = event(&config, &plan, time);
        let numbers = ["prompts", "done", "cells", "tokens_to_prefill", "shortened", "memory_bytes", "disk_bytes"];
        assert_eq!(numbers.map(|key| event[key].as_u64()), [5, 1, 3, 4000, 2, 10 << 20, 12 * ROW_BYTES].map(Some));
        assert_eq!((event["event"].as_str(), event["seconds"].as_f64()), (Some("plan"), Some(90.0)));
        assert!(!describe(&config, &plan, None).contains("about"));
        assert!(super::event(&config, &plan, None)["seconds"].is_null());
    }
}
