//! The TOML file that describes a run.

use std::path::PathBuf;

use cokv_core::{Budget, ConfigError, ConfigTable, Method, Registry};
use cokv_models::cache::CacheType;
use cokv_models::linear::WeightType;
use cokv_models::source::DEFAULT_MODEL;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::prompt::ChatUse;

/// Everything but the methods, defaults filled in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Name of the run and of its folder.
    #[serde(default = "default_name")]
    pub name: String,
    /// What each method is run at.
    pub budgets: Vec<Budget>,
    /// Which model, and how it is held.
    #[serde(default)]
    pub model: ModelSettings,
    /// What it is asked.
    #[serde(default)]
    pub data: DataSettings,
    /// How the run goes.
    #[serde(default)]
    pub run: RunSettings,
    /// Taken out before this is read; named so that a misspelt key finds its nearest neighbour.
    #[serde(default, rename = "method", skip_serializing)]
    _method: IgnoredAny,
}

fn default_name() -> String {
    "default".into()
}

/// `[model]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSettings {
    /// A preset, `hub:owner/repo[@revision][/file]`, `path:…` or `pip:package==version/file`.
    pub source: String,
    /// `stored` (quantised files stay in 8 bits or fewer) or `f32`.
    pub weights: WeightType,
    /// `f32`, `f16` or `bf16`.
    pub cache: CacheType,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self { source: DEFAULT_MODEL.into(), weights: WeightType::default(), cache: CacheType::default() }
    }
}

/// `[data]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// `synthetic`, or a LongBench folder.
    pub source: String,
    /// Names of tasks, or `all`.
    pub tasks: Vec<String>,
    /// Records of each task.
    pub records: usize,
    /// Tokens of a synthetic prompt.
    pub context_tokens: usize,
    /// Which synthetic records.
    pub seed: u64,
    /// Longer prompts lose their middle; the default leaves room for the answer in the model's context.
    pub max_prompt_tokens: Option<usize>,
    /// `auto` or `never`.
    pub chat_template: ChatUse,
}

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            source: SYNTHETIC.into(),
            tasks: vec!["all".into()],
            records: 8,
            context_tokens: 1000,
            seed: 0,
            max_prompt_tokens: None,
            chat_template: ChatUse::Auto,
        }
    }
}

/// The `source` of generated data.
pub const SYNTHETIC: &str = "synthetic";

/// `[run]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSettings {
    /// Where run folders are made.
    pub folder: PathBuf,
    /// Tokens of the reference answer that damage is measured on, at most.
    pub answer_tokens: usize,
}

impl Default for RunSettings {
    fn default() -> Self {
        Self { folder: "runs".into(), answer_tokens: 64 }
    }
}

/// A whole configuration file.
pub struct Config {
    /// All settings but the methods.
    pub run: RunConfig,
    /// The methods, in the order of the file.
    pub methods: Vec<Method>,
}

impl Config {
    /// Reads a configuration; `file` is what errors call it.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Self, ConfigError> {
        let mut table = ConfigTable::parse(file, text)?;
        let tables = table.take_tables("method")?;
        let run: RunConfig = table.read()?;
        let whole = table;
        if tables.is_empty() {
            return Err(whole.error("no method: add a table such as [[method]] with compressor = \"snapkv\""));
        }
        if run.budgets.is_empty() {
            return Err(whole.error("`budgets` is empty: write, for example, budgets = [64, \"10%\", \"8 MiB\"]"));
        }
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if run.name.is_empty() || !run.name.chars().all(safe) || run.name.starts_with('.') {
            return Err(
                whole.error(format!("`{}` cannot name a folder: use letters, digits, `-`, `_` and `.`", run.name))
            );
        }
        if run.data.source != SYNTHETIC && run.data.tasks.is_empty() {
            return Err(whole.error("[data] `tasks` is empty: name tasks, or \"all\""));
        }
        if run.data.records == 0 {
            return Err(whole.error("[data] `records` is 0: there would be nothing to do"));
        }
        let mut methods: Vec<Method> = Vec::new();
        for table in tables {
            let method = registry.method(table.clone())?;
            if methods.iter().any(|other| other.name() == method.name()) {
                let message =
                    format!("a second method is called `{}`: give one of them another name = \"…\"", method.name());
                return Err(table.error(message));
            }
            methods.push(method);
        }
        Ok(Self { run, methods })
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(config.methods[0].name(), "snapkv");
        // What is written out reads back.
        let written = toml::to_string(&config.run).unwrap() + "\n[[method]]\ncompressor = 'full'";
        let again = Config::parse("again.toml", &written, &cokv_policies::registry()).unwrap();
        assert_eq!(toml::to_string(&again.run).unwrap(), toml::to_string(&config.run).unwrap());
    }

    #[test]
    fn every_shipped_configuration_reads() {
        let root = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let mut files = vec![root.join("cokv.toml")];
        files.extend(std::fs::read_dir(root.join("configs")).unwrap().map(|entry| entry.unwrap().path()));
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            if let Err(error) = Config::parse(&file.display().to_string(), &text, &cokv_policies::registry()) {
                panic!("{error}");
            }
        }
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
        assert!(error("budgets = [1]").contains("no method"));
        assert!(error(&format!("budgets = []\n{method}")).contains("`budgets` is empty"));
        assert!(error(&format!("budgets = [1]\nname = '../x'\n{method}")).contains("cannot name a folder"));
        assert!(error(&format!("budgets = [1]\n[model]\ncache = 'f8'\n{method}")).contains(":3: unknown value `f8`"));
    }
}
