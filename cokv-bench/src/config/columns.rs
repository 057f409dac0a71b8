//! The columns of the matrix: methods, their variants, and where their head scores come from.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cokv_core::config::unknown_name;
use cokv_core::{ConfigError, ConfigTable, HeadScores, Method, PolicyError, Registry};
use thiserror::Error;

use super::{Config, NoisyScores};
use crate::importance::Importance;
use crate::learned::{LearnedFile, LearnedFileError};
use crate::markdown;
use crate::names::file_name;
use crate::scores::{FittedScores, HeadScoresWorth, ModelStamp, ScoreFile, ScoreFileError};

/// A method; or several that differ in settings which are listed to choose from, of which every task and budget gets one.
#[derive(Clone)]
pub struct Column {
    /// Name in tables.
    pub name: String,
    /// At least one.
    pub variants: Vec<Variant>,
    /// Where head scores come from, if it needs any.
    pub scores: Option<ScoreSource>,
    /// The file of what was learned of the model, in which `{model}` stands for its name.
    pub learned: Option<String>,
}

/// One method of a column.
#[derive(Clone)]
pub struct Variant {
    /// What distinguishes it, such as `drop_lowest=5`; empty where there is no choice.
    pub settings: String,
    /// The method.
    pub method: Method,
    /// The method with the head scores of a task, where tasks have their own.
    pub of_task: BTreeMap<String, Method>,
    /// How well its head scores are known, by the task where tasks have their own.
    pub worth: BTreeMap<Option<String>, HeadScoresWorth>,
}

impl Variant {
    /// The method, as a task has it.
    pub fn method(&self, task: &str) -> &Method {
        self.of_task.get(task).unwrap_or(&self.method)
    }

    /// How well the head scores are known that it uses on a task.
    pub fn worth(&self, task: &str) -> Option<&HeadScoresWorth> {
        self.worth.get(&Some(task.to_owned())).or_else(|| self.worth.get(&None))
    }
}

/// Head scores that were measured, by the name of the importance table and, where every task has its own, the task.
pub type Measured = BTreeMap<(String, Option<String>), MeasuredScores>;

/// Head scores, and how well they are known.
#[derive(Clone, Debug)]
pub struct MeasuredScores {
    /// One for each KV head.
    pub scores: HeadScores,
    /// How well.
    pub worth: HeadScoresWorth,
}

/// Where head scores come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScoreSource {
    /// `scores = "FILE"`, in which `{model}` and `{task}` stand for names.
    File(String),
    /// `importance = "NAME"`: the table of that name.
    Importance(String),
}

impl Column {
    /// Reads a `[[method]]` table.
    pub(super) fn read(
        table: ConfigTable<'_>,
        importance: &BTreeMap<String, Importance>,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        let mut table = registry.expand(table)?;
        let scores = ScoreSource::take(&mut table, importance)?;
        let learned = table.take_choice("learned")?.map(|file| file.name);
        let mut variants = Vec::new();
        for (settings, table) in table.variants("select", "allocator")? {
            let method = registry.method(table)?;
            variants.push(Variant { settings, method, of_task: BTreeMap::new(), worth: BTreeMap::new() });
        }
        let name = variants[0].method.name().to_owned();
        for Variant { settings, method, .. } in variants.iter_mut().filter(|variant| !variant.settings.is_empty()) {
            method.rename(format!("{name}({})", settings.replace(['"', '\''], "")));
        }
        Ok(Self { name, variants, scores, learned })
    }

    /// All variants score and protect alike; whether the budget matters at all.
    pub fn evicts(&self) -> bool {
        self.variants[0].method.evicts()
    }

    /// Whether there is something to choose.
    pub fn is_open(&self) -> bool {
        self.variants.len() > 1
    }
}

impl ScoreSource {
    /// Takes the key that says where a method's head scores come from.
    fn take(
        table: &mut ConfigTable<'_>,
        importance: &BTreeMap<String, Importance>,
    ) -> Result<Option<Self>, ConfigError> {
        let whole = table.clone();
        let file = table.take_choice("scores")?.map(|file| Self::File(file.name));
        let Some(name) = table.take_choice("importance")?.map(|choice| choice.name) else { return Ok(file) };
        if file.is_some() {
            let message = "`scores` and `importance` both give head scores: keep one of them";
            return Err(whole.error_at("importance", message));
        }
        if !importance.contains_key(&name) {
            let message = match importance.is_empty() {
                true => format!("there is no table [importance.{name}]"),
                false => unknown_name("importance table", &name, importance.keys().map(String::as_str)),
            };
            return Err(whole.error_at("importance", message));
        }
        if !importance[&name].settings.heads.is_empty() {
            let message = format!("[importance.{name}] scores some heads only, and a method needs scores of all");
            return Err(whole.error_at("importance", message));
        }
        Ok(Some(Self::Importance(name)))
    }

    /// Whether every task has its own.
    fn is_per_task(&self, importance: &BTreeMap<String, Importance>) -> bool {
        match self {
            Self::File(name) => name.contains(TASK),
            Self::Importance(name) => importance[name].per_task,
        }
    }
}

/// What stands for the names of the task and of the model in the name of a score file.
const TASK: &str = "{task}";
const MODEL: &str = "{model}";

impl Config {
    /// All methods, variants included, whatever scores tasks have of their own.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.columns.iter().flat_map(|column| &column.variants).map(|variant| &variant.method)
    }

    /// What stands behind each column, as a Markdown table: settings with defaults, what the budget counts, and how what is
    /// spent relates to it.
    pub fn methods_table(&self) -> String {
        let mut table = markdown::table(["method", "budget counts", "spends", "settings"], 4);
        for Column { name, variants, .. } in &self.columns {
            let method = &variants[0].method;
            let settings = match &variants[..] {
                [_] => method.settings().to_string(),
                variants => {
                    let chosen: Vec<&str> = variants.iter().map(|variant| variant.settings.as_str()).collect();
                    format!("{}; one of {} for each task and budget", method.settings(), chosen.join(" | "))
                }
            };
            table.add_row([name.clone(), method.gqa().to_string(), method.spending().to_string(), settings]);
        }
        markdown::text(&table)
    }

    /// Names of the importance tables that a method uses, each once.
    pub fn importance_used(&self) -> Vec<String> {
        let used = |name: &String| {
            let source = Some(ScoreSource::Importance(name.clone()));
            self.columns.iter().any(|column| column.scores == source)
        };
        self.importance.keys().filter(|name| used(name)).cloned().collect()
    }

    /// Gives the methods their head scores, on every one of `tasks` its own where there are such, and checks every method
    /// on the model's heads, before any long work. Returns what the user should know of the score files. `tested` holds
    /// the fingerprints of the records that the methods will run on.
    pub fn fit_to(
        &mut self,
        model: &ModelStamp,
        tasks: &[String],
        measured: &Measured,
        tested: &HashSet<String>,
    ) -> Result<Vec<String>, MethodError> {
        let layout = model.layout().map_err(|problem| problem.at(Path::new(&model.name)))?;
        let mut notices = Vec::new();
        for column in &mut self.columns {
            if let Some(name) = &column.learned {
                let path = PathBuf::from(name.replace(MODEL, &file_name(&model.name)));
                let (learned, notice) = LearnedFile::read_for(&path, model)?;
                notices.extend(notice);
                let learned = Arc::new(learned);
                column.variants.iter_mut().for_each(|variant| variant.method.set_learned(Arc::clone(&learned)));
            }
            let per_task = column.scores.as_ref().is_some_and(|scores| scores.is_per_task(&self.importance));
            let whose: Vec<Option<&String>> = if per_task { tasks.iter().map(Some).collect() } else { vec![None] };
            for task in whose {
                let scores = match &column.scores {
                    None => None,
                    Some(ScoreSource::Importance(name)) => measured.get(&(name.clone(), task.cloned())).cloned(),
                    Some(ScoreSource::File(name)) => {
                        let name = name.replace(MODEL, &file_name(&model.name));
                        let path = PathBuf::from(task.map_or(name.clone(), |task| name.replace(TASK, task)));
                        let FittedScores { scores, seen, notice, worth } = ScoreFile::read_for(&path, model)?;
                        check_unseen(&path.display().to_string(), &seen, tested)?;
                        notices.extend(notice);
                        Some(MeasuredScores { scores, worth })
                    }
                };
                if let Some(reason) = scores.as_ref().and_then(|scores| scores.worth.unworthy.as_ref()) {
                    let noise = MethodError::Noise {
                        method: column.name.clone(),
                        task: task.map_or(String::new(), |task| format!(" on {task}")),
                        reason: reason.clone(),
                    };
                    match self.run.run.noisy_scores {
                        NoisyScores::Stop => return Err(noise),
                        NoisyScores::Mark => notices.push(noise.to_string()),
                    }
                }
                for Variant { method, of_task, worth, .. } in &mut column.variants {
                    let method = match task {
                        None => method,
                        Some(task) => of_task.entry(task.clone()).or_insert_with(|| method.clone()),
                    };
                    if let Some(known) = &scores {
                        let dropped = drop_lowest(method).and_then(|count| known.worth.of_dropping(count));
                        notices.extend(dropped.map(|notice| format!("{}: {notice}", method.name())));
                        method.set_head_scores(known.scores.clone());
                        worth.insert(task.cloned(), known.worth.clone());
                    }
                    let failed = |error| MethodError::Policy { method: method.name().into(), error };
                    method.check(layout).map_err(failed)?;
                }
            }
        }
        Ok(notices)
    }
}

/// Heads that its allocator leaves with nothing, where it says so.
fn drop_lowest(method: &Method) -> Option<usize> {
    let settings = method.settings();
    settings.allocator.table().get("drop_lowest").and_then(toml::Value::as_integer).map(|count| count as usize)
}

/// Refuses what was made from records that are now to be tested.
pub fn check_unseen(what: &str, seen: &[String], tested: &HashSet<String>) -> Result<(), MethodError> {
    match seen.iter().filter(|record| tested.contains(*record)).count() {
        0 => Ok(()),
        count => Err(MethodError::Seen { what: what.into(), count, records: seen.len() }),
    }
}

/// Why a method cannot be run on a model.
#[derive(Debug, Error)]
pub enum MethodError {
    /// Its score file cannot be used.
    #[error(transparent)]
    Scores(#[from] ScoreFileError),
    /// What was learned of the model cannot be used.
    #[error(transparent)]
    Learned(#[from] LearnedFileError),
    /// It was made from what it would be tested on.
    #[error(
        "{what}: {count} of the {records} records that it was made from are among the tested ones, which would flatter \
         the method; test on others: [data] split = \"test\" for records of files, another seed for synthetic data"
    )]
    Seen {
        /// Scores or settings.
        what: String,
        /// Records in both.
        count: usize,
        /// Records of the scores.
        records: usize,
    },
    /// Its head scores say nothing.
    #[error(
        "method `{method}`{task}: its head scores are noise: {reason}. Measure more (records, max_evaluations, minutes under \
         [importance.NAME]), or write noisy_scores = \"mark\" under [run] to have its results with a mark"
    )]
    Noise {
        /// Name of the method.
        method: String,
        /// On which task, if tasks have their own.
        task: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Its settings do not fit the model, or it needs scores.
    #[error(
        "method `{method}`: {error}; head scores are named by scores = \"FILE\" or importance = \"NAME\" in its table, what \
         was learned of the model by learned = \"FILE\" (cokv learn makes one)"
    )]
    Policy {
        /// Name of the method.
        method: String,
        /// What is wrong.
        error: PolicyError,
    },
}
