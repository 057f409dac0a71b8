//! What to play: the keys of `[importance.NAME]` are the options of `cokv estimate`.

use std::path::PathBuf;
use std::time::Duration;

use cokv_shapley::Design;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ImportanceError;
use crate::calibration::UtilityChoice;
use crate::config::{DataSettings, SYNTHETIC, by_name};
use crate::data::Split;
use crate::scores::HeadName;

/// Which game is played, how it is sampled, and when it ends.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct ImportanceSettings {
    /// Where records come from: synthetic, hub:THUDM/LongBench, or its archive or folder
    #[arg(id = "data", long = "data", value_name = "SOURCE", default_value = SYNTHETIC)]
    #[serde(rename = "data")]
    pub source: String,
    /// Tasks to calibrate on; several give one set of scores for all of them
    #[arg(long = "task", value_name = "TASK", required = true)]
    pub tasks: Vec<String>,
    /// Records of each task
    #[arg(long, default_value_t = ImportanceSettings::default().records)]
    pub records: usize,
    /// Tokens of a synthetic prompt; 1000 where nothing is said
    #[arg(long)]
    pub context_tokens: Option<usize>,
    /// Which synthetic records; 1 where nothing is said. Benchmarks use 0, so that calibration sees none of theirs
    #[arg(long)]
    pub data_seed: Option<u64>,
    /// What the task ruler-qa asks: records of LongBench's layout, one a line, or SQuAD's .json
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// Which part of LongBench's records: validation (where nothing is said), test or all. CoKV's split, 30 or 50 records of
    /// each task are for validation
    #[arg(long, value_parser = by_name::<Split>)]
    pub split: Option<Split>,
    /// Longer prompts lose their middle
    #[arg(long)]
    pub max_prompt_tokens: Option<usize>,
    /// What a coalition achieves: answer-probability, log-likelihood, agreement (needs no reference answers) or metric
    #[arg(long, value_parser = by_name::<UtilityChoice>, default_value_t = UtilityChoice::default())]
    pub utility: UtilityChoice,
    /// Last prompt tokens that every head sees
    #[arg(long, default_value_t = ImportanceSettings::default().window)]
    pub window: usize,
    /// Last prompt tokens processed after masking, so that even the first answer token counts
    #[arg(long, default_value_t = 0)]
    pub holdout_suffix: usize,
    /// Tokens of an answer that are looked at, at most
    #[arg(long, default_value_t = ImportanceSettings::default().answer_tokens)]
    pub answer_tokens: usize,
    /// Heads that play, such as 18.2,23.0 (layer.head); the others keep the whole prompt. All heads where none is named
    #[arg(long, value_delimiter = ',', value_name = "LAYER.HEAD,…")]
    pub heads: Vec<HeadName>,
    /// Which coalitions are drawn, where that is not the estimator's own choice: slices 11,22,33,45, range 11-79,
    /// all-sizes, kernel-sizes, halves, permutations, antithetic-permutations, leave-one-out or exhaustive
    #[arg(long)]
    #[serde(with = "written_design", skip_serializing_if = "Option::is_none")]
    pub design: Option<Design>,
    /// Records that each pair of coalitions is evaluated on
    #[arg(long, default_value_t = 1)]
    pub records_per_pair: usize,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Stop at this estimated reliability (squared correlation with the true values); 1 is never reached by samples
    #[arg(long, default_value_t = ImportanceSettings::default().reliability)]
    pub reliability: f64,
    /// Stop at this number of evaluations (one coalition on one record)
    #[arg(long)]
    pub max_evaluations: Option<u64>,
    /// Stop after this many minutes
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Stop when two halves of the samples differ by less than 1/heads on average, the rule of CoKV's authors. It is
    /// not scale-free: values that hardly differ pass it although they are noise
    #[arg(long)]
    pub two_run_mae: bool,
    /// Stop when the budgets that two halves of the samples lead to differ by at most this share of all tokens
    #[arg(long)]
    pub allocation_distance: Option<f64>,
    /// Coalitions of one forward pass at most; fewer where memory is short
    #[arg(long, default_value_t = ImportanceSettings::default().batch)]
    pub batch: usize,
}

impl Default for ImportanceSettings {
    fn default() -> Self {
        Self {
            source: SYNTHETIC.into(),
            tasks: Vec::new(),
            records: 16,
            context_tokens: None,
            data_seed: None,
            questions: None,
            split: None,
            max_prompt_tokens: None,
            utility: UtilityChoice::default(),
            window: 8,
            holdout_suffix: 0,
            answer_tokens: 32,
            heads: Vec::new(),
            design: None,
            records_per_pair: 1,
            seed: 0,
            reliability: 0.9,
            max_evaluations: None,
            minutes: None,
            two_run_mae: false,
            allocation_distance: None,
            batch: 64,
        }
    }
}

impl ImportanceSettings {
    /// The first setting that makes no sense whatever the model is, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = |key, value: usize| match value {
            0 => Err((key, format!("{key} is 0: there would be nothing to play"))),
            _ => Ok(()),
        };
        positive("records", self.records)?;
        positive("batch", self.batch)?;
        positive("answer_tokens", self.answer_tokens)?;
        positive("records_per_pair", self.records_per_pair)?;
        let foreign: &[_] = match self.source == SYNTHETIC {
            true => &[("split", self.split.is_some())],
            false => &[
                ("context_tokens", self.context_tokens.is_some()),
                ("data_seed", self.data_seed.is_some()),
                ("questions", self.questions.is_some()),
            ],
        };
        if let Some((key, _)) = foreign.iter().find(|(_, given)| *given) {
            let kind = if self.source == SYNTHETIC { "LongBench" } else { "synthetic data" };
            return Err((key, format!("`{key}` is for {kind} and contradicts data = \"{}\"", self.source)));
        }
        if let Some(limit @ 0..2) = self.max_prompt_tokens {
            return Err((
                "max_prompt_tokens",
                format!("max_prompt_tokens is {limit}: no half of it would hold a token"),
            ));
        }
        if self.tasks.is_empty() {
            return Err(("tasks", "no task to calibrate on: name one, such as tasks = [\"passkey\"]".into()));
        }
        if !(self.reliability > 0.0 && self.reliability <= 1.0) {
            return Err(("reliability", format!("reliability {} is not between 0 and 1", self.reliability)));
        }
        if let Some(distance) = self.allocation_distance.filter(|distance| !(*distance > 0.0 && *distance < 1.0)) {
            return Err(("allocation_distance", format!("allocation_distance {distance} is not between 0 and 1")));
        }
        self.time().map_err(|error| ("minutes", error.to_string()))?;
        Ok(())
    }

    /// The time limit.
    pub(super) fn time(&self) -> Result<Option<Duration>, ImportanceError> {
        let duration = |minutes: f64| {
            Duration::try_from_secs_f64(minutes * 60.0)
                .map_err(|error| ImportanceError::Settings(format!("minutes {minutes}: {error}")))
        };
        self.minutes.map(duration).transpose()
    }

    /// The records, as the benchmark would ask for them.
    pub fn data(&self) -> DataSettings {
        DataSettings {
            source: self.source.clone(),
            tasks: self.tasks.clone(),
            records: self.records,
            context_tokens: self.context_tokens.unwrap_or(1000),
            seed: self.data_seed.unwrap_or(1),
            questions: self.questions.clone(),
            split: self.split.unwrap_or(if self.source == SYNTHETIC { Split::All } else { Split::Validation }),
            max_prompt_tokens: self.max_prompt_tokens,
            ..DataSettings::default()
        }
    }
}

/// A design is written in a word or two here; in a log it is a table.
mod written_design {
    use super::*;

    pub fn serialize<S: Serializer>(design: &Option<Design>, serializer: S) -> Result<S::Ok, S::Error> {
        design.as_ref().map(Design::to_string).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Design>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_mean_nothing_for_the_data_are_refused() {
        let tasks = || vec!["passkey".to_owned()];
        let refused = |settings: ImportanceSettings| settings.check().unwrap_err();
        let split = ImportanceSettings { tasks: tasks(), split: Some(Split::Test), ..Default::default() };
        assert_eq!(refused(split).0, "split");
        let longbench = ImportanceSettings { tasks: tasks(), source: "x".into(), ..Default::default() };
        let (key, message) = refused(ImportanceSettings { context_tokens: Some(500), ..longbench.clone() });
        assert_eq!(
            (key, message.as_str()),
            ("context_tokens", "`context_tokens` is for synthetic data and contradicts data = \"x\"")
        );
        assert_eq!(refused(ImportanceSettings { data_seed: Some(1), ..longbench.clone() }).0, "data_seed");
        assert!(longbench.check().is_ok());
    }
}
