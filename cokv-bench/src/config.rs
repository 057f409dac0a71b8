//! The TOML file that describes a run.

mod columns;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cokv_core::{Budget, ConfigError, ConfigTable, Registry};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::columns::{Column, Measured, MeasuredScores, MethodError, ScoreSource, Variant, check_unseen};
use crate::data::{DataSettings, Protocols};
use crate::importance::Importance;
use crate::model::ModelSettings;
use crate::names::{file_name, names_file};

/// Everything but the methods, defaults filled in.
#[derive(Clone, Debug, Serialize)]
pub struct RunConfig {
    /// Name of the run and of its folder.
    pub name: String,
    /// What each method is run at.
    pub budgets: Vec<Budget>,
    /// Which model, and how it is held.
    pub model: ModelSettings,
    /// What it is asked.
    pub data: DataSettings,
    /// How the run goes.
    pub run: RunSettings,
}

/// Keys outside of tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopLevel {
    name: Option<String>,
    #[serde(default)]
    budgets: Budgets,
}

/// As an array, with an error that shows one.
#[derive(Default)]
struct Budgets(Vec<Budget>);

impl<'de> Deserialize<'de> for Budgets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Listed;

        impl<'de> Visitor<'de> for Listed {
            type Value = Budgets;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list: budgets = [64] or budgets = [64, \"10%\", \"8 MiB\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut listed: A) -> Result<Budgets, A::Error> {
                let mut budgets = Vec::new();
                while let Some(budget) = listed.next_element()? {
                    budgets.push(budget);
                }
                Ok(Budgets(budgets))
            }
        }
        deserializer.deserialize_seq(Listed)
    }
}

/// `[run]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSettings {
    /// Where run folders are made.
    pub folder: PathBuf,
    /// Tokens of the reference answer that damage is measured on, at most.
    pub answer_tokens: usize,
    /// Whether all cells of a prompt come from one prefill and are decoded as one batch. Without, every cell prefills and
    /// decodes alone, which is what tools that cannot share do: for comparing times.
    pub share_prefill: bool,
    /// When prompts are compressed: after the question, before it, or both.
    pub protocol: Protocols,
    /// What becomes of methods whose head scores are noise.
    pub noisy_scores: NoisyScores,
}

/// What becomes of methods whose head scores are noise: see [`HeadScoresWorth`](crate::scores::HeadScoresWorth).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoisyScores {
    /// The run stops before it begins.
    #[default]
    Stop,
    /// Their results are marked wherever they are shown.
    Mark,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self {
            folder: "runs".into(),
            answer_tokens: 64,
            share_prefill: true,
            protocol: Protocols::default(),
            noisy_scores: NoisyScores::Stop,
        }
    }
}

/// A whole configuration file.
#[derive(Clone)]
pub struct Config {
    /// All settings but the methods.
    pub run: RunConfig,
    /// All models of the file; [`RunConfig::model`] is the first of them until another's turn comes.
    pub models: Vec<ModelSettings>,
    /// The methods, in the order of the file.
    pub columns: Vec<Column>,
    /// What is measured for methods that name it: `[importance.NAME]`.
    pub importance: BTreeMap<String, Importance>,
}

/// What a run is called whose configuration does not say: as the file is.
fn name_of(file: &str) -> String {
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    Some(file_name(stem)).filter(|name| names_file(name)).unwrap_or_else(|| "run".into())
}

impl Config {
    /// The configuration of each of its models.
    pub fn of_models(&self) -> impl Iterator<Item = Self> {
        self.models.iter().map(|model| {
            let mut config = self.clone();
            config.run.model = model.clone();
            config
        })
    }

    /// Reads a configuration; `file` is what errors call it, and what the run is called where it has no name.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Self, ConfigError> {
        let mut table = ConfigTable::parse(file, text)?;
        let tables = table.take_tables("method")?;
        let mut importance = BTreeMap::new();
        for (name, table) in table.take_named_tables("importance")? {
            if !names_file(&name) {
                let message = format!("`{name}` cannot name files: use letters, digits, `-`, `_` and `.`");
                return Err(table.error(message));
            }
            importance.insert(name, Importance::read(table, registry)?);
        }
        let models = table.take_table_or_tables("model")?;
        let [data, run] = ["data", "run"].map(|key| table.take_table(key));
        let (data, run) = (data?, run?);
        let top: TopLevel = table.read_beside(&["model", "data", "run", "method", "importance"])?;
        let name = top.name.unwrap_or_else(|| name_of(file));
        if !names_file(&name) {
            let message = format!("`{name}` cannot name a folder: use letters, digits, `-`, `_` and `.`");
            return Err(table.error_at("name", message));
        }
        let Budgets(budgets) = top.budgets;
        if budgets.is_empty() {
            let message = "no budget: write, for example, budgets = [64, \"10%\", \"8 MiB\"] above all tables";
            return Err(table.error_at("budgets", message));
        }
        if let Some(twice) = (1..budgets.len()).find(|&at| budgets[..at].contains(&budgets[at])) {
            return Err(table.error_at("budgets", format!("the budget `{}` is listed twice", budgets[twice])));
        }
        if tables.is_empty() {
            return Err(table.error("no method: add a table such as [[method]] with compressor = \"snapkv\""));
        }
        let mut several: Vec<ModelSettings> = Vec::new();
        for table in models {
            let model: ModelSettings = table.read()?;
            if several.iter().any(|other| file_name(&other.source) == file_name(&model.source)) {
                let message =
                    format!("the model `{}` is listed twice, or its files would have another's name", model.source);
                return Err(table.error_at("source", message));
            }
            several.push(model);
        }
        let Some(first) = several.first() else {
            return Err(table.error("no model: write [model], or one [[model]] or more"));
        };
        let data = DataSettings::read(&data)?;
        importance.values_mut().for_each(|importance| importance.settings.records.described_as(&data));
        let run = RunConfig { name, budgets, model: first.clone(), data, run: run.read()? };
        let mut columns: Vec<Column> = Vec::new();
        for table in tables {
            let column = Column::read(table.clone(), &importance, registry)?;
            if columns.iter().any(|other| other.name == column.name) {
                let message =
                    format!("a second method is called `{}`: give one of them another name = \"…\"", column.name);
                return Err(table.error(message));
            }
            columns.push(column);
        }
        if let Some(open) = columns.iter().find(|column| column.is_open()).filter(|_| several.len() > 1) {
            let message =
                format!("`{}` has settings to choose, which is done for one model: name one [model]", open.name);
            return Err(table.error(message));
        }
        Ok(Self { run, models: several, columns, importance })
    }

    /// The run's folder.
    pub fn folder(&self) -> PathBuf {
        self.run.run.folder.join(&self.run.name)
    }
}

#[cfg(test)]
mod tests {
    use cokv_models::source::DEFAULT_MODEL;

    use super::*;

    fn error(text: &str) -> String {
        Config::parse("cokv.toml", text, &cokv_policies::registry()).err().unwrap().to_string()
    }

    #[test]
    fn a_short_file_gets_all_defaults() {
        let text = "budgets = [64, '10%']\n[[method]]\ncompressor = 'snapkv'";
        let config = Config::parse("cokv.toml", text, &cokv_policies::registry()).unwrap();
        assert_eq!(config.run.budgets, [Budget::Tokens(64), Budget::Share(0.1)]);
        assert_eq!(config.run.model.source, DEFAULT_MODEL);
        assert_eq!(config.columns[0].name, "snapkv");
        let called = |file: &str| Config::parse(file, text, &cokv_policies::registry()).unwrap().run.name;
        assert_eq!(["a/my run.toml", "x", ".toml"].map(called), ["my-run", "x", "toml"]);
        // What is written out reads back.
        let written = toml::to_string(&config.run).unwrap() + "\n[[method]]\ncompressor = 'full'";
        let again = Config::parse("again.toml", &written, &cokv_policies::registry()).unwrap();
        assert_eq!(toml::to_string(&again.run).unwrap(), toml::to_string(&config.run).unwrap());
    }

    #[test]
    fn a_preset_is_a_column_with_settings_to_choose_from() {
        let text = "budgets = [64]\n[[method]]\ncompressor = 'cokv-paper'\nselect = { drop_lowest = [1, 5] }\n";
        let config = Config::parse("cokv.toml", text, &cokv_policies::registry()).unwrap();
        let [column] = &config.columns[..] else { panic!("one method") };
        let names: Vec<&str> = column.variants.iter().map(|variant| variant.method.name()).collect();
        assert_eq!(
            (column.name.as_str(), &names[..]),
            ("cokv-paper", &["cokv-paper(drop_lowest=1)", "cokv-paper(drop_lowest=5)"][..])
        );
        let settings = column.variants[1].method.settings().to_string();
        assert!(settings.contains("drop_lowest = 5") && settings.contains("rounding = \"paper\""), "{settings}");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let method = "[[method]]\ncompressor = 'full'\n";
        assert!(error(&format!("budgets = [0]\n{method}")).starts_with("cokv.toml:1: a budget of `0` keeps nothing"));
        assert!(
            error(&format!("budget = [1]\n{method}")).contains(":1: unknown key `budget`; did you mean `budgets`?")
        );
        assert!(
            error(&format!("budgets = [1]\n[data]\ntask = []\n{method}"))
                .contains(":3: unknown key `task`; did you mean `tasks`?")
        );
        assert!(error(&format!("budgets = [1]\n{method}{method}")).contains("a second method is called `full`"));
        let longbench = format!("budgets = [1]\n[data]\nsource = 'x'\nseed = 1\n{method}");
        assert!(error(&longbench).contains(":4: `seed` is for synthetic data and contradicts source = \"x\""));
        let twice = format!("budgets = [1]\n[[model]]\nsource = 'x'\n[[model]]\nsource = 'x'\n{method}");
        assert!(error(&twice).contains(":5: the model `x` is listed twice"), "{}", error(&twice));
        let choice = "[[method]]\ncompressor = 'snapkv'\nallocator = 'ada-kv'\nselect = { floor = [0, 1] }";
        let several = format!("budgets = [1]\n[[model]]\nsource = 'x'\n[[model]]\nsource = 'y'\n{choice}");
        assert!(error(&several).contains("which is done for one model"), "{}", error(&several));
        assert!(error("budgets = [1]").contains("no method"));
        assert!(error(method).contains("no budget: write, for example"));
        assert!(error(&format!("budgets = [1, '1 tokens']\n{method}")).contains(":1: the budget `1` is listed twice"));
        assert!(
            error(&format!("budgets = 64\n{method}"))
                .contains(":1: invalid type: integer `64`, expected a list: budgets = [64]")
        );
        assert!(error(&format!("budgets = [true]\n{method}")).contains("expected a budget: tokens per head (128)"));
        assert!(error(&format!("budgets = [1]\ndata = []\n{method}")).contains(":2: `data` must be a table"));
        assert!(
            error(&format!("budgets = [1]\n[data]\nmax_prompt_tokens = 1\n{method}"))
                .contains(":3: `max_prompt_tokens` is 1")
        );
        let with =
            |lines: &str| error(&format!("budgets = [1]\n[importance.easy]\ntasks = ['passkey']\n{method}{lines}"));
        assert!(with("importance = 'esy'").contains(":6: unknown importance table `esy`; did you mean `easy`?"));
        assert!(with("importance = 'easy'\nscores = 'x'").contains(":6: `scores` and `importance` both give"));
        assert!(with("[importance.other]\nrecords = 0").contains(":7: records is 0"));
        assert!(with("[importance.other]\ntask = ['x']").contains(":7: unknown key `task`; did you mean `tasks`?"));
        assert!(
            with("[importance.other]\nestimator = 'scpp'")
                .contains(":7: unknown estimator `scpp`; did you mean `scpr`?")
        );
        assert!(
            with("[importance.other]\nsplit = 'all'").contains(":7: `split` is for records of files and contradicts")
        );
        assert!(
            with("[importance.other]\ndata = 'x'\ndata_seed = 1").contains(":8: `data_seed` is for synthetic data")
        );
        assert!(with("[importance.other]").contains(":6: no task to calibrate on"));
        assert!(error(&format!("budgets = []\n{method}")).contains("no budget"));
        assert!(error(&format!("budgets = [1]\nname = '../x'\n{method}")).contains(":2: `../x` cannot name a folder"));
        assert!(error(&format!("budgets = [1]\n[model]\ncache = 'f8'\n{method}")).contains(":3: unknown value `f8`"));
    }
}
