//! Where the records of a measurement come from: options of the commands that measure heads, and keys of their tables.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::settings::wrong_lengths;
use super::{DataSettings, Description, SYNTHETIC, SourceKind, Split};
use crate::names::by_name;

/// Which records, as far as something is said; every command has defaults of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Records {
    /// Where records come from: synthetic, LongBench (hub:THUDM/LongBench, its archive or folder), a file of records of your
    /// own, or a configuration (.toml) whose data table says what its records mean
    #[arg(id = "data", long = "data", value_name = "SOURCE", default_value = SYNTHETIC)]
    #[serde(rename = "data")]
    pub source: String,
    /// Tasks; several give one result for all of them
    #[arg(long = "task", value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Records of each task; where nothing is said, 16 to estimate, 10 to detect, 8 to mask
    #[arg(long)]
    pub records: Option<usize>,
    /// Tokens of a synthetic prompt, or several lengths; where nothing is said, 1000, and 500,1000 to detect
    #[arg(long, value_delimiter = ',', value_name = "TOKENS,…")]
    #[serde(deserialize_with = "one_or_several")]
    pub context_tokens: Vec<usize>,
    /// Which synthetic records; where nothing is said, 0 to mask and else 1. Benchmarks use 0, so that nothing is learnt from
    /// theirs
    #[arg(long)]
    pub data_seed: Option<u64>,
    /// What the task ruler-qa asks: records of LongBench's layout, one a line, or SQuAD's .json
    #[arg(long, value_name = "FILE")]
    pub questions: Option<PathBuf>,
    /// Which part of LongBench's records: validation, test or all; where nothing is said, test to mask and else validation.
    /// CoKV's split, 30 or 50 records of each task are for validation
    #[arg(long, value_parser = by_name::<Split>)]
    pub split: Option<Split>,
    /// Longer prompts lose their middle
    #[arg(long)]
    pub max_prompt_tokens: Option<usize>,
    /// What records of one's own mean, as a `[data]` table says that has the same source.
    #[arg(skip)]
    #[serde(skip)]
    pub description: Description,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            source: SYNTHETIC.into(),
            tasks: Vec::new(),
            records: None,
            context_tokens: Vec::new(),
            data_seed: None,
            questions: None,
            split: None,
            max_prompt_tokens: None,
            description: Description::default(),
        }
    }
}

impl Records {
    /// The keys, in the tables that have them beside their own.
    pub const KEYS: [&str; 8] =
        ["data", "tasks", "records", "context_tokens", "data_seed", "questions", "split", "max_prompt_tokens"];

    /// The first setting that makes no sense whatever the model is, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let foreign: &[_] = match self.source == SYNTHETIC {
            true => &[("split", self.split.is_some())],
            false => &[
                ("context_tokens", !self.context_tokens.is_empty()),
                ("data_seed", self.data_seed.is_some()),
                ("questions", self.questions.is_some()),
            ],
        };
        if let Some((key, _)) = foreign.iter().find(|(_, given)| *given) {
            let kind = if self.source == SYNTHETIC { "records of files" } else { "synthetic data" };
            return Err((key, format!("`{key}` is for {kind} and contradicts data = \"{}\"", self.source)));
        }
        if self.records == Some(0) {
            return Err(("records", "records is 0: there would be nothing to do".into()));
        }
        if let Some(limit @ 0..2) = self.max_prompt_tokens {
            let message = format!("max_prompt_tokens is {limit}: no half of it would hold a token");
            return Err(("max_prompt_tokens", message));
        }
        match wrong_lengths(&self.context_tokens).filter(|_| !self.context_tokens.is_empty()) {
            Some(message) => Err(("context_tokens", message)),
            None => Ok(()),
        }
    }

    /// The records, as the benchmark would ask for them; `unsaid` stands for what is not said. Its `split` is for LongBench.
    pub fn or(&self, unsaid: DataSettings) -> DataSettings {
        let Self {
            source,
            tasks,
            records,
            context_tokens,
            data_seed,
            questions,
            split,
            max_prompt_tokens,
            description,
        } = self.clone();
        let split_unsaid = if source == SYNTHETIC { Split::All } else { unsaid.split };
        let own = SourceKind::of(&source) == SourceKind::Own;
        let settings = DataSettings {
            tasks: match tasks.is_empty() {
                true if own => vec!["all".into()],
                true => unsaid.tasks,
                false => tasks,
            },
            records: records.unwrap_or(unsaid.records),
            context_lengths: if context_tokens.is_empty() { unsaid.context_lengths } else { Some(context_tokens) },
            seed: data_seed.unwrap_or(unsaid.seed),
            split: split.unwrap_or(split_unsaid),
            source,
            questions,
            max_prompt_tokens,
            ..unsaid
        };
        settings.described(description)
    }

    /// Whether nothing says what is asked: files of one's own are all tasks that there are.
    pub fn names_no_task(&self) -> bool {
        self.tasks.is_empty() && SourceKind::of(&self.source) != SourceKind::Own
    }

    /// Takes over what a `[data]` table of the same source says of its records.
    pub fn described_as(&mut self, data: &DataSettings) {
        if self.source == data.source {
            self.description = data.description();
        }
    }
}

/// A length, or a list of lengths.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a number of tokens, or a list of such")]
    enum Written {
        One(usize),
        Several(Vec<usize>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(length) => vec![length],
        Written::Several(lengths) => lengths,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_mean_nothing_for_the_data_are_refused() {
        let refused = |records: Records| records.check().unwrap_err();
        assert_eq!(refused(Records { split: Some(Split::Test), ..Records::default() }).0, "split");
        let longbench = Records { source: "x".into(), ..Records::default() };
        let (key, message) = refused(Records { context_tokens: vec![500], ..longbench.clone() });
        assert_eq!(
            (key, message.as_str()),
            ("context_tokens", "`context_tokens` is for synthetic data and contradicts data = \"x\"")
        );
        assert_eq!(refused(Records { data_seed: Some(1), ..longbench.clone() }).0, "data_seed");
        assert!(longbench.check().is_ok());
        assert_eq!(refused(Records { context_tokens: vec![500, 500], ..Records::default() }).0, "context_tokens");
    }

    #[test]
    fn what_is_said_goes_before_what_is_not() {
        let unsaid = DataSettings { records: 16, seed: 1, split: Split::Validation, ..DataSettings::default() };
        let read = |text: &str| toml::from_str::<Records>(text).unwrap().or(unsaid.clone());
        let one = read("tasks = ['passkey']\ncontext_tokens = 500");
        assert_eq!((one.lengths(), one.records, one.seed, one.split), (&[500][..], 16, 1, Split::All));
        let several = read("data = 'x'\nrecords = 3\ncontext_tokens = [500, 700]");
        assert_eq!((several.lengths(), several.records, several.split), (&[500, 700][..], 3, Split::Validation));
        assert_eq!(read("").lengths(), [1000]);
    }
}
