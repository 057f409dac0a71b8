//! What is masked on which records: the keys of `[mask]` are the options of `cokv mask`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cokv_core::{ConfigError, ConfigTable, Registry};
use cokv_models::game::UtilityKind;
use serde::Deserialize;

use crate::data::{DataSettings, Records, Split};
use crate::importance::Importance;
use crate::model::ModelSettings;
use crate::names::{by_name, names_file};

/// Which heads are masked, and where it is seen.
#[derive(Clone, Debug, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct MaskSettings {
    /// Score files of this model's heads
    #[arg(long, num_args = 1.., required_unless_present = "config")]
    pub scores: Vec<PathBuf>,
    /// How many heads are masked; by default up to half of them, in eighths of that
    #[arg(long, value_delimiter = ',')]
    pub counts: Vec<usize>,
    /// What utilities are averaged over.
    #[command(flatten)]
    #[serde(skip)]
    pub records: Records,
    /// answer-probability, log-likelihood, agreement, retention or metric
    #[arg(long, value_parser = by_name::<UtilityKind>, default_value_t = UtilityKind::default())]
    pub utility: UtilityKind,
    /// Last prompt tokens that a masked head sees
    #[arg(long, default_value_t = MaskSettings::default().window)]
    pub window: usize,
}

impl Default for MaskSettings {
    fn default() -> Self {
        Self {
            scores: Vec::new(),
            counts: Vec::new(),
            records: Records::default(),
            utility: UtilityKind::default(),
            window: 8,
        }
    }
}

impl MaskSettings {
    /// The first setting that makes no sense whatever the model is, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self.records.names_no_task() {
            true => Err(("tasks", "no task to mask heads on: name one, such as tasks = [\"passkey\"]".into())),
            false => self.records.check(),
        }
    }

    /// The records, as the benchmark would ask for them.
    pub fn data(&self) -> DataSettings {
        self.records.or(DataSettings { records: 8, split: Split::Test, ..DataSettings::default() })
    }
}

/// A whole experiment.
pub struct MaskConfig {
    /// The model.
    pub model: ModelSettings,
    /// What is masked.
    pub settings: MaskSettings,
    /// Scores that are measured; each gives orders, as score files do.
    pub importance: BTreeMap<String, Importance>,
    /// Where the results are written, if anywhere.
    pub folder: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopLevel {
    name: String,
}

impl MaskConfig {
    /// Reads a configuration; `file` is what errors call it.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Self, ConfigError> {
        let mut table = ConfigTable::parse(file, text)?;
        let mut importance = BTreeMap::new();
        for (name, table) in table.take_named_tables("importance")? {
            let wrong = |message: &str| Err(table.error(format!("[importance.{name}] {message}")));
            if !names_file(&name) {
                return wrong("cannot name files: use letters, digits, `-`, `_` and `.`");
            }
            let read = Importance::read(table.clone(), registry)?;
            if read.per_task || !read.settings.heads.is_empty() {
                return wrong("must score all heads, for all tasks: masks have one order of heads");
            }
            importance.insert(name, read);
        }
        let (model, mask) = (table.take_table("model")?, table.take_table("mask")?);
        let TopLevel { name } = table.read_beside(&["model", "mask", "importance"])?;
        if !names_file(&name) {
            let message = format!("`{name}` cannot name a folder: use letters, digits, `-`, `_` and `.`");
            return Err(table.error_at("name", message));
        }
        let mut rest = mask.clone();
        let records = rest.take_keys(&Records::KEYS).read()?;
        let settings = MaskSettings { records, ..rest.read_beside(&Records::KEYS)? };
        if settings.scores.is_empty() && importance.is_empty() {
            return Err(mask.error("no order to mask in: list files under `scores`, or add [importance.NAME] tables"));
        }
        settings.check().map_err(|(key, message)| mask.error_at(key, message))?;
        Ok(Self { model: model.read()?, settings, importance, folder: Some(Path::new("runs").join(name)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_experiment_reads() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/experiments/mask-heads.toml");
        let config =
            MaskConfig::parse(file, &std::fs::read_to_string(file).unwrap(), &cokv_policies::registry()).unwrap();
        assert!(!config.importance.is_empty());
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error =
            |text: &str| MaskConfig::parse("m.toml", text, &cokv_policies::registry()).err().unwrap().to_string();
        assert!(
            error("name = 'x'\n[mask]\ntask = ['passkey']")
                .contains("m.toml:3: unknown key `task`; did you mean `tasks`?")
        );
        assert!(error("name = 'x'\n[mask]\ntasks = ['passkey']").contains("m.toml:2: no order to mask in"));
        assert!(error("name = '../x'\n[mask]\nscores = ['a']").contains("m.toml:1: `../x` cannot name a folder"));
        let per_task = "name = 'x'\n[mask]\ntasks = ['passkey']\n[importance.a]\nper_task = true";
        assert!(error(per_task).contains("m.toml:4: [importance.a] must score all heads, for all tasks"));
        assert!(error("name = 'x'\n[mask]\nscores = ['a']").contains("m.toml:2: no task"));
    }
}
