//! A method from the command line, for one prompt.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use cokv_core::{Budget, ConfigError, ConfigTable, Frame, HeadLayout, Method, PolicyError, Registry};

use crate::learned::LearnedFile;
use crate::scores::{FittedScores, ModelStamp, ScoreFile};

/// Which tokens of a prompt are kept.
#[derive(clap::Args)]
pub struct MethodArguments {
    /// Compressor or preset: a name, or an inline TOML table with its settings; `cokv methods` lists them
    #[arg(long, default_value = "full")]
    method: String,
    #[command(flatten)]
    sharing: SharingArguments,
    /// Cache kept: tokens per KV head (128), a share of the prompt (10%) or bytes ('8 MiB')
    #[arg(long, default_value = "100%")]
    pub budget: Budget,
}

impl MethodArguments {
    /// The method; what it says is checked before a model is loaded.
    pub fn build(&self, registry: &Registry) -> Result<Method> {
        self.sharing.build(registry, &self.method)
    }

    /// Gives the method its head scores, and finds out what does not fit the model.
    pub fn fit(&self, method: &mut Method, model: &ModelStamp, layout: HeadLayout) -> Result<()> {
        self.sharing.fit(method, model, layout)
    }

    /// What was said, as a table of configurations.
    pub fn table(&self) -> Result<toml::Table> {
        let toml = self.sharing.toml(&self.method)?.0;
        toml::from_str(&toml).map_err(|error| anyhow!("{}", error.message()))
    }
}

/// Which tokens of a prompt are kept, by several methods at several budgets.
#[derive(clap::Args)]
pub struct SeveralArguments {
    /// Compressor or preset: a name, or an inline TOML table with its settings; `cokv methods` lists them. Several give an
    /// answer each, from one prefill
    #[arg(long = "method", value_name = "METHOD", default_value = "full")]
    methods: Vec<String>,
    #[command(flatten)]
    sharing: SharingArguments,
    /// Cache kept: tokens per KV head (128), a share of the prompt (10%) or bytes ('8 MiB'); several with commas
    #[arg(long = "budget", value_name = "BUDGET,…", value_delimiter = ',', default_value = "100%")]
    pub budgets: Vec<Budget>,
}

impl SeveralArguments {
    /// The methods; what they say is checked before a model is loaded.
    pub fn build(&self, registry: &Registry) -> Result<Vec<Method>> {
        let methods = self.methods.iter().map(|name| self.sharing.build(registry, name));
        let methods: Vec<Method> = methods.collect::<Result<_>>()?;
        if let Some(twice) = (1..methods.len()).find(|&at| methods[..at].iter().any(|m| m.name() == methods[at].name()))
        {
            bail!("--method: `{}` is named twice", methods[twice].name());
        }
        Ok(methods)
    }

    /// Gives a method its head scores, and finds out what does not fit the model.
    pub fn fit(&self, method: &mut Method, model: &ModelStamp, layout: HeadLayout) -> Result<()> {
        self.sharing.fit(method, model, layout)
    }
}

/// How heads share a budget.
#[derive(clap::Args)]
struct SharingArguments {
    /// Allocator: a name, or an inline TOML table with its settings [default: the preset's, or uniform]
    #[arg(long)]
    allocator: Option<String>,
    /// Evict while the model answers, too, so that the cache never outgrows the budget by more than a block: a compressor, or an
    /// inline TOML table such as '{ every = 64, compressor = "snapkv" }'
    #[arg(long, value_name = "COMPRESSOR")]
    while_decoding: Option<String>,
    /// Head scores for the allocator, from cokv estimate or cokv scores import
    #[arg(long)]
    scores: Option<PathBuf>,
    /// What was learned of the model, for compressors that need it, from cokv learn
    #[arg(long, value_name = "FILE")]
    learned: Option<PathBuf>,
}

impl SharingArguments {
    fn build(&self, registry: &Registry, compressor: &str) -> Result<Method> {
        method(registry, compressor, self.allocator.as_deref(), self.while_decoding.as_deref())
    }

    fn toml(&self, compressor: &str) -> Result<(String, Vec<&'static str>)> {
        toml(compressor, self.allocator.as_deref(), self.while_decoding.as_deref())
    }

    fn fit(&self, method: &mut Method, model: &ModelStamp, layout: HeadLayout) -> Result<()> {
        if let Some(path) = &self.scores {
            let FittedScores { scores, notice, worth, seen: _ } = ScoreFile::read_for(path, model)?;
            notice.iter().for_each(|notice| eprintln!("note: {notice}"));
            if let Some(reason) = worth.unworthy {
                eprintln!("note: {}: these head scores are noise: {reason}", path.display());
            }
            method.set_head_scores(scores);
        }
        if let Some(path) = &self.learned {
            let (learned, notice) = LearnedFile::read_for(path, model)?;
            notice.iter().for_each(|notice| eprintln!("note: {notice}"));
            method.set_learned(learned.into());
        }
        method.check(layout).map_err(|error| match error {
            PolicyError::NotLearned { .. } => {
                anyhow!("{error}: give --learned FILE; cokv learn --text book.txt --out FILE makes one")
            }
            PolicyError::MissingScores(message) if self.scores.is_none() => {
                anyhow!("{message}: give --scores FILE; cokv estimate --task passkey --out FILE makes one")
            }
            other => other.into(),
        })
    }
}

/// What a user should know of a budget that does not do what it seems to. All heads together were `allowed` so many tokens of a prompt.
pub fn budget_remark(
    method: &Method,
    budget: Budget,
    frame: Frame,
    layout: HeadLayout,
    prompt_len: usize,
    allowed: usize,
) -> Option<String> {
    let (name, protected) = (method.name(), method.protected(frame));
    match method.evicts() {
        false => (budget != Budget::Share(1.0)).then(|| format!("{name} keeps everything, whatever the budget")),
        true if allowed >= layout.heads() * prompt_len => {
            Some("the budget is at least the prompt, of which nothing was evicted".into())
        }
        true if allowed <= layout.heads() * (protected.window + protected.sinks) => {
            Some(format!("the budget covers only the tokens that {name} always keeps: no score mattered"))
        }
        true => None,
    }
}

/// What `--method`, `--allocator` and `--while-decoding` stand for; each is a name or an inline table.
pub fn method(
    registry: &Registry,
    compressor: &str,
    allocator: Option<&str>,
    while_decoding: Option<&str>,
) -> Result<Method> {
    let scores_tokens =
        registry.compressors().chain(registry.presets().map(|(name, _)| name)).any(|name| name == compressor);
    if !scores_tokens && registry.allocators().any(|name| name == compressor) {
        bail!("--method: `{compressor}` is an allocator: --method snapkv --allocator {compressor}");
    }
    let (toml, written) = toml(compressor, allocator, while_decoding)?;
    let of_option = |error: ConfigError| {
        let option = error.line.and_then(|line| written.get(line - 1)).unwrap_or(&"--method");
        without_line(ConfigError { file: (*option).into(), ..error })
    };
    ConfigTable::parse("--method", &toml)
        .and_then(|table| registry.method(table))
        .map_err(|error| of_option(error).into())
}

/// Options as lines of a configuration, and which option each line is.
fn toml(
    compressor: &str,
    allocator: Option<&str>,
    while_decoding: Option<&str>,
) -> Result<(String, Vec<&'static str>)> {
    let options = [
        ("--method", "compressor", Some(compressor)),
        ("--allocator", "allocator", allocator),
        ("--while-decoding", "while_decoding", while_decoding),
    ];
    let (mut toml, mut written) = (String::new(), Vec::new());
    for (option, key, value) in options {
        let Some(value) = value else { continue };
        let line = match value.trim_start().starts_with('{') {
            true => format!("{key} = {}\n", value.replace('\n', " ")),
            false => format!("{key} = {value:?}\n"),
        };
        ConfigTable::parse(option, &line).map_err(without_line)?;
        toml += &line;
        written.push(option);
    }
    Ok((toml, written))
}

/// An option has but one line.
fn without_line(error: ConfigError) -> ConfigError {
    ConfigError { line: None, ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(compressor: &str, allocator: Option<&str>) -> String {
        method(&cokv_policies::registry(), compressor, allocator, None).err().unwrap().to_string()
    }

    #[test]
    fn a_preset_brings_its_allocator_and_others_are_uniform() {
        let settings = |compressor: &str, allocator| {
            let method = method(&cokv_policies::registry(), compressor, allocator, None).unwrap();
            (method.name().to_owned(), method.settings().allocator.name().to_owned())
        };
        assert_eq!(settings("snapkv", None), ("snapkv".into(), "uniform".into()));
        assert_eq!(settings("snapkv-paper", Some("ada-kv")), ("snapkv-paper+ada-kv".into(), "ada-kv".into()));
        assert_eq!(settings("{ name = 'ada-snapkv', window = 8 }", None), ("ada-snapkv".into(), "ada-kv".into()));
    }

    /// Regression: the place of a mistake was "--method and --allocator:1".
    #[test]
    fn mistakes_name_their_option() {
        assert!(error("{ name = 'snapkv', windw = 3 }", None).starts_with("--method: unknown key `windw`"));
        assert!(
            error("{ name = 'snapkv',\n windw = 3 }", Some("uniform")).starts_with("--method: unknown key `windw`")
        );
        assert!(error("snapkv", Some("{ name = 'ada-kv', flor = 0 }")).starts_with("--allocator: unknown key `flor`"));
        assert!(error("{ name = 'snapkv'", None).starts_with("--method: "));
        assert!(error("snapkv", Some("{ name")).starts_with("--allocator: "));
        assert!(error("ada-snapkv", Some("ada-kv")).starts_with("--allocator: `ada-snapkv` is a whole method"));
        let again = |value| method(&cokv_policies::registry(), "snapkv", None, Some(value)).err().unwrap().to_string();
        assert!(again("{ evry = 3 }").starts_with("--while-decoding: unknown key `evry`"), "{}", again("{ evry = 3 }"));
        assert!(again("{ every = 0 }").starts_with("--while-decoding: `every` is"), "{}", again("{ every = 0 }"));
        assert!(again("full").starts_with("--while-decoding: `full` keeps everything"), "{}", again("full"));
    }

    #[test]
    fn an_allocator_for_a_method_is_put_right() {
        assert_eq!(error("ada-kv", None), "--method: `ada-kv` is an allocator: --method snapkv --allocator ada-kv");
        assert!(error("snapkv", Some("tova")).starts_with("--allocator: `tova` is no allocator"));
    }
}
