//! What to play: the keys of `[importance.NAME]` are the options of `cokv estimate`.

use std::path::PathBuf;
use std::time::Duration;

use cokv_core::{ConfigError, ConfigTable, Evidence};
use cokv_models::game::UtilityKind;
use cokv_shapley::Design;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ImportanceError;
use crate::data::{DataSettings, Records, Split};
use crate::names::by_name;
use crate::scores::HeadName;

/// Which game is played, how it is sampled, and when it ends.
#[derive(Clone, Debug, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct ImportanceSettings {
    /// What is played on.
    #[command(flatten)]
    #[serde(skip)]
    pub records: Records,
    /// What a coalition achieves: answer-probability, log-likelihood, agreement or retention (which need no reference answers) or
    /// metric
    #[arg(long, value_parser = by_name::<UtilityKind>, default_value_t = UtilityKind::default())]
    pub utility: UtilityKind,
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
    /// all-sizes, kernel-sizes, kernel-without-replacement, halves, permutations, antithetic-permutations, leave-one-out or
    /// exhaustive
    #[arg(long)]
    #[serde(with = "written_design", skip_serializing_if = "Option::is_none")]
    pub design: Option<Design>,
    /// Records that each pair of coalitions is evaluated on
    #[arg(long, default_value_t = 1)]
    pub records_per_pair: usize,
    /// Pairs played on every record before records are drawn in proportion to how much their utilities vary; 0 draws all alike
    #[arg(long, default_value_t = 0)]
    pub pilot: u64,
    /// Scores of another task of the same model: samples then only have to find what differs from them, as far as these explain
    /// anything (scpr)
    #[arg(long = "prior", value_name = "SCORES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior_scores: Option<PathBuf>,
    /// Seed of the draws
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Stop once this estimated reliability is reached (squared correlation with the true values; a few strong heads
    /// decide it), and the plan is stable too: see --allocation-distance. 1 is never reached by samples
    #[arg(long, default_value_t = ImportanceSettings::default().reliability)]
    pub reliability: f64,
    /// Stop at this number of evaluations (one coalition on one record), those of all shards together
    #[arg(long)]
    pub max_evaluations: Option<u64>,
    /// Stop after this many minutes
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Stop when two halves of the samples differ by less than 1/heads on average, the rule of CoKV's authors. It is
    /// not scale-free: values that hardly differ pass it although they are noise
    #[arg(long)]
    pub two_run_mae: bool,
    /// Share of all tokens that may be expected to go to other heads if more were known, before the plan counts as stable; 1 asks
    /// for reliability alone
    #[arg(long, default_value_t = ImportanceSettings::default().allocation_distance)]
    pub allocation_distance: f64,
    /// How that plan is made: lowest heads that get nothing, as drop_lowest of the allocator `cokv`; 0 for `proportional`. 8 % of
    /// the heads where nothing is said
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_lowest: Option<usize>,
    /// Coalitions of one forward pass at most; fewer where memory is short
    #[arg(long, default_value_t = ImportanceSettings::default().batch)]
    pub batch: usize,
}

impl Default for ImportanceSettings {
    fn default() -> Self {
        Self {
            records: Records::default(),
            utility: UtilityKind::default(),
            window: 8,
            holdout_suffix: 0,
            answer_tokens: 32,
            heads: Vec::new(),
            design: None,
            records_per_pair: 1,
            pilot: 0,
            prior_scores: None,
            seed: 0,
            reliability: 0.9,
            max_evaluations: None,
            minutes: None,
            two_run_mae: false,
            allocation_distance: 0.25,
            drop_lowest: None,
            batch: 64,
        }
    }
}

impl ImportanceSettings {
    /// Reads the keys of a table, those of its records too.
    pub(super) fn read(mut table: ConfigTable<'_>) -> Result<Self, ConfigError> {
        let records = table.take_keys(&Records::KEYS).read()?;
        Ok(Self { records, ..table.read_beside(&[&Records::KEYS[..], &["estimator", "per_task"]].concat())? })
    }

    /// The first setting that makes no sense whatever the model is, and why.
    pub fn check(&self, evidence: Evidence) -> Result<(), (&'static str, String)> {
        let positive = |key, value: usize| match value {
            0 => Err((key, format!("{key} is 0: there would be nothing to play"))),
            _ => Ok(()),
        };
        self.records.check()?;
        positive("batch", self.batch)?;
        positive("answer_tokens", self.answer_tokens)?;
        positive("records_per_pair", self.records_per_pair)?;
        if self.records.names_no_task() && evidence == Evidence::Coalitions {
            return Err(("tasks", "no task to calibrate on: name one, such as tasks = [\"passkey\"]".into()));
        }
        if evidence == Evidence::Answers && !self.heads.is_empty() {
            return Err((
                "heads",
                "where the model is watched while it answers, all heads are: leave `heads` out".into(),
            ));
        }
        if evidence == Evidence::Answers && self.prior_scores.is_some() {
            return Err((
                "prior_scores",
                "where the model is watched, nothing is expected: leave `prior_scores` out".into(),
            ));
        }
        if self.pilot > 0 && self.records_per_pair != 1 {
            return Err(("pilot", "a pilot needs pairs on one record each: records_per_pair = 1".into()));
        }
        if !(self.reliability > 0.0 && self.reliability <= 1.0) {
            return Err(("reliability", format!("reliability {} is not between 0 and 1", self.reliability)));
        }
        if !(self.allocation_distance > 0.0 && self.allocation_distance <= 1.0) {
            let message = format!("allocation_distance {} is not between 0 and 1", self.allocation_distance);
            return Err(("allocation_distance", message));
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

    /// The records, as the benchmark would ask for them. To be watched, the model answers what stands in the text word for
    /// word, where nothing else is said.
    pub fn data(&self, evidence: Evidence) -> DataSettings {
        let unsaid = DataSettings { records: 16, seed: 1, split: Split::Validation, ..DataSettings::default() };
        self.records.or(match evidence {
            Evidence::Coalitions => unsaid,
            Evidence::Answers => DataSettings {
                tasks: ["passkey", "multi-key-needle"].map(str::to_owned).into(),
                records: 10,
                context_lengths: Some(vec![500, 1000]),
                ..unsaid
            },
        })
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
