//! What an estimation is about to do, and about how long that takes.

use cokv_core::{Effort, Evidence, Format, Limits};
use cokv_models::config::ModelConfig;
use cokv_models::game::{GameRecord, GameRules, UtilityKind};
use serde::Serialize;

use crate::machine::Pace;

/// From the least to the most; there is no most where nothing but what is found ends the work.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Span<T> {
    /// Before it can end.
    pub least: T,
    /// When it ends whatever was found.
    pub most: Option<T>,
}

/// What an estimation has left to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Work {
    /// Records that are looked at.
    pub records: usize,
    /// Tokens of their prompts, as often as they are prefilled.
    pub prefill_tokens: u64,
    /// Whether coalitions are evaluated; else records are answered and watched.
    pub coalitions: bool,
    /// Evaluations (a coalition on a record), or records to answer, that are left; none where the estimator does not say.
    pub evaluations: Option<Span<u64>>,
    /// Those that were made before.
    pub done: u64,
    /// Coalitions of one forward pass, at most.
    pub batch: usize,
    /// Tokens of answers that are forced or decoded, each of an answer as long as it may be.
    pub answer_tokens: Option<Span<u64>>,
    /// About how long it takes; none where that is not known.
    pub seconds: Option<Span<f64>>,
    /// About how long one evaluation takes.
    pub seconds_of_an_evaluation: Option<f64>,
    /// Memory that the caches take at least.
    pub bytes: u64,
}

/// What the work follows from.
pub(super) struct Workload<'a> {
    pub records: Vec<&'a GameRecord>,
    pub evidence: Evidence,
    pub rules: &'a GameRules,
    pub limits: &'a Limits,
    pub config: &'a ModelConfig,
    pub format: Format,
}

impl Workload<'_> {
    pub fn work(&self, effort: Option<Effort>, pace: Option<&Pace>) -> Work {
        let records = self.records.len();
        let left = effort.map(|Effort { least, most, done }| Span {
            least: least.saturating_sub(done),
            most: most.map(|most| most.saturating_sub(done)),
        });
        let mean = |of: &dyn Fn(&GameRecord) -> f64| {
            self.records.iter().map(|record| of(record)).sum::<f64>() / records.max(1) as f64
        };
        let answer = mean(&|record| self.answer_tokens(record) as f64);
        let each = pace.map(|pace| mean(&|record| self.seconds(record, pace)));
        let prompts = self.prompt_tokens() as f64;
        // A game is prefilled once, if anything of it is left to be played; a record that is watched is prefilled before its
        // answer and behind it.
        let any = left.is_none_or(|left| left.most != Some(0));
        let (prefill_tokens, prefill) = match self.evidence {
            Evidence::Coalitions if !any => (0.0, Some(0.0)),
            Evidence::Coalitions => {
                (prompts, pace.map(|pace| records as f64 * mean(&|record| self.prefill(record, pace))))
            }
            Evidence::Answers => {
                let records_left = left.map_or(records as f64, |left| left.least as f64);
                (2.0 * (prompts / records.max(1) as f64) * records_left, Some(0.0))
            }
        };
        let seconds = left.zip(each).zip(prefill).map(|((left, each), prefill)| {
            let of = |evaluations: u64| evaluations as f64 * each;
            let clock = self.limits.time.map(|time| time.as_secs_f64());
            let most = left.most.map(of).into_iter().chain(clock).reduce(f64::min);
            let least = of(left.least).min(clock.unwrap_or(f64::INFINITY));
            Span { least: prefill + least, most: most.map(|most| prefill + most) }
        });
        Work {
            records,
            prefill_tokens: prefill_tokens as u64,
            coalitions: self.evidence == Evidence::Coalitions,
            evaluations: left,
            done: effort.map_or(0, |effort| effort.done),
            batch: self.limits.batch,
            answer_tokens: left.map(|left| {
                let of = |evaluations: u64| (evaluations as f64 * answer) as u64;
                Span { least: of(left.least), most: left.most.map(of) }
            }),
            seconds,
            seconds_of_an_evaluation: each,
            bytes: self.bytes(),
        }
    }

    /// Tokens of all prompts.
    fn prompt_tokens(&self) -> usize {
        self.records.iter().map(|record| self.prompt(record)).sum()
    }

    /// Tokens of a record that are prefilled.
    fn prompt(&self, record: &GameRecord) -> usize {
        record.prompt.len().saturating_sub(self.rules.holdout_suffix)
    }

    fn prefill(&self, record: &GameRecord, pace: &Pace) -> f64 {
        pace.prefill(self.prompt(record))
    }

    /// Tokens of one answer, all of which follow the first, which the prefill gives.
    fn answer_tokens(&self, record: &GameRecord) -> usize {
        let answer = match (self.evidence, self.rules.utility) {
            (Evidence::Answers, _) | (_, UtilityKind::Metric) => record.stop.max_new_tokens,
            (_, UtilityKind::AnswerProbability | UtilityKind::LogLikelihood) => record.answer.len(),
            (_, UtilityKind::Agreement | UtilityKind::Retention) => self.rules.agreement_tokens,
        };
        answer.saturating_sub(1) + if self.evidence == Evidence::Coalitions { self.rules.holdout_suffix } else { 0 }
    }

    /// About how long one evaluation of a record takes.
    fn seconds(&self, record: &GameRecord, pace: &Pace) -> f64 {
        let (prompt, answer, batch) = (self.prompt(record), self.answer_tokens(record), self.limits.batch.max(1));
        match (self.evidence, self.rules.utility) {
            (Evidence::Answers, _) => {
                let step = pace.apart(1, 1, self.config.layout.heads() * prompt);
                pace.prefill(prompt) + step * answer as f64 + pace.prefill(prompt + answer)
            }
            // Decoded token by token.
            (_, UtilityKind::Metric) => pace.together(batch, 1, prompt) * answer as f64 / batch as f64,
            _ => pace.together(batch, answer, prompt) / batch as f64,
        }
    }

    /// Caches of all prompts and of the longest answer of a game; of the longest record where the model is watched.
    fn bytes(&self) -> u64 {
        let longest =
            |tokens: &dyn Fn(&GameRecord) -> usize| self.records.iter().map(|record| tokens(record)).max().unwrap_or(0);
        let tokens = match self.evidence {
            Evidence::Coalitions => self.prompt_tokens() + longest(&|record| self.answer_tokens(record)),
            Evidence::Answers => longest(&|record| record.prompt.len() + self.answer_tokens(record)),
        };
        let layout = self.config.layout;
        (tokens * layout.heads() * self.format.token_bytes(layout.head_dim)) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cokv_core::Shard;
    use cokv_models::StopRule;

    use super::*;
    use crate::machine::Machine;
    use crate::machine::tests::config;

    fn record(prompt: usize, answer: usize) -> GameRecord {
        let stop = StopRule { tokens: Vec::new(), max_new_tokens: 9, min_new_tokens: 0 };
        GameRecord { name: "r".into(), prompt: vec![0; prompt], answer: vec![0; answer], stop }
    }

    /// Two heads of two layers, on records of 10 and 20 tokens with answers of 3 and 5.
    fn work(evidence: Evidence, rules: &GameRules, time: Option<u64>, effort: Option<Effort>) -> (Work, Pace) {
        let config = config([2, 2, 1, 4], 8, 16, 10);
        let machine = Machine {
            device: None,
            threads: 1,
            instructions: "AVX2",
            read_gigabytes_per_second: 1e-9,
            product_gigaflops: 1e-9,
            product_of: "f32",
        };
        let pace = Pace::of_shape(&config, 1600, 1.0, Format::F16, &machine);
        let records = [record(10, 3), record(20, 5)];
        let limits = Limits {
            seed: 0,
            reliability: 0.9,
            evaluations: None,
            time: time.map(Duration::from_secs),
            batch: 4,
            shard: Shard::WHOLE,
        };
        let records = records.iter().collect();
        let workload = Workload { records, evidence, rules, limits: &limits, config: &config, format: Format::F16 };
        (workload.work(effort, Some(&pace)), pace)
    }

    const EFFORT: Option<Effort> = Some(Effort { least: 40, most: Some(100), done: 30 });

    #[test]
    fn coalitions_cost_their_share_of_a_pass() {
        let (work, pace) = work(Evidence::Coalitions, &GameRules::default(), None, EFFORT);
        assert_eq!((work.records, work.prefill_tokens, work.done), (2, 30, 30));
        assert_eq!(work.evaluations, Some(Span { least: 10, most: Some(70) }));
        // The first token of an answer comes from the prefill: 2 and 4 follow, 3 on average.
        assert_eq!(work.answer_tokens, Some(Span { least: 30, most: Some(210) }));
        let each = (pace.together(4, 2, 10) + pace.together(4, 4, 20)) / 4.0 / 2.0;
        let prefill = pace.prefill(10) + pace.prefill(20);
        let seconds = work.seconds.unwrap();
        assert!((seconds.least - (prefill + 10.0 * each)).abs() < 1e-6 * seconds.least);
        assert!((seconds.most.unwrap() - (prefill + 70.0 * each)).abs() < 1e-6 * seconds.least);
        // All prompts and the longest answer, 16 bytes of each token in two heads.
        assert_eq!(work.bytes, (30 + 4) * 2 * 16);
    }

    #[test]
    fn metrics_are_decoded_step_by_step() {
        let rules = GameRules { utility: UtilityKind::Metric, ..GameRules::default() };
        let (work, pace) = work(Evidence::Coalitions, &rules, None, EFFORT);
        let each = 8.0 * (pace.together(4, 1, 10) + pace.together(4, 1, 20)) / 4.0 / 2.0;
        assert!((work.seconds_of_an_evaluation.unwrap() / each - 1.0).abs() < 1e-9);
        assert_eq!(work.answer_tokens.unwrap().least, 80);
    }

    #[test]
    fn a_clock_ends_what_nothing_else_does() {
        let endless = Some(Effort { least: 40, most: None, done: 0 });
        let (open, _) = work(Evidence::Coalitions, &GameRules::default(), None, endless);
        assert!(open.seconds.unwrap().most.is_none() && open.seconds.unwrap().least > 0.0);
        let (timed, pace) = work(Evidence::Coalitions, &GameRules::default(), Some(60), endless);
        let prefill = pace.prefill(10) + pace.prefill(20);
        assert_eq!(timed.seconds, Some(Span { least: prefill + 60.0, most: Some(prefill + 60.0) }));
        let (unknown, _) = work(Evidence::Coalitions, &GameRules::default(), None, None);
        assert!(unknown.evaluations.is_none() && unknown.seconds.is_none());
    }

    #[test]
    fn what_is_done_is_not_prefilled_again() {
        let done = Some(Effort { least: 40, most: Some(40), done: 40 });
        let (work_left, _) = work(Evidence::Coalitions, &GameRules::default(), None, done);
        assert_eq!((work_left.prefill_tokens, work_left.seconds), (0, Some(Span { least: 0.0, most: Some(0.0) })));
        // Records that are watched are prefilled twice, each by itself.
        let half = Some(Effort { least: 2, most: Some(2), done: 1 });
        let (watched, _) = work(Evidence::Answers, &GameRules::default(), None, half);
        assert_eq!((watched.prefill_tokens, watched.answer_tokens.unwrap().least), (30, 8));
        assert_eq!(watched.bytes, (20 + 8) * 2 * 16);
    }
}
