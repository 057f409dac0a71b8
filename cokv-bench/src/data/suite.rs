//! The records that a configuration asks for, wherever they come from.

use std::path::Path;

use super::longbench::{Fetcher, Files, LongBench};
use super::own::{self, OwnRecords};
use super::synthetic::{self, Haystack, Task};
use super::{DataError, DataSettings, Questions, SYNTHETIC, SourceKind, SyntheticError, TaskProtocol, TaskRecords};

/// Most records of a synthetic task; more would be a slip of the keyboard.
const MOST_RECORDS: usize = 100_000;

/// Tasks that are known to exist; their records wait for a tokenizer where they are yet to be generated.
#[derive(Debug)]
pub enum Suite {
    /// Generated tasks.
    Synthetic {
        /// Each once.
        tasks: Vec<Task>,
        /// What those ask that make nothing up.
        questions: Option<Questions>,
        /// What those hide something in that hide it in prose.
        haystack: Option<Haystack>,
    },
    /// Records of files: LongBench's, or one's own.
    Read {
        /// Task by task.
        tasks: Vec<TaskRecords>,
        /// What was guessed and left out, a line each.
        notices: Vec<String>,
    },
}

impl Suite {
    /// Finds the tasks, fetches what is not on disk, and reads it. A task named twice is run once.
    pub fn open(settings: &DataSettings, fetcher: &Fetcher) -> Result<Self, DataError> {
        if settings.source == SYNTHETIC {
            let mut tasks = Vec::new();
            for name in &settings.tasks {
                tasks.extend(Task::named(name, settings.questions.is_some())?);
            }
            let file = settings.questions.as_deref().filter(|_| tasks.iter().any(|task| task.asks_supplied()));
            let questions = file.map(Questions::read).transpose()?;
            if let Some((file, questions)) = file.zip(questions.as_ref())
                && questions.len() < settings.records
            {
                return Err(DataError::File {
                    path: file.display().to_string(),
                    message: format!(
                        "{} records are asked for, and {} questions have an answer of more than one word, without which \
                         nothing would be measured; supply more questions, or ask for fewer records",
                        settings.records,
                        questions.len()
                    ),
                });
            }
            let most = tasks.iter().map(|&task| records_of(task, settings)).max().unwrap_or(0);
            if most > MOST_RECORDS {
                return Err(DataError::Setting(format!(
                    "{most} records of a synthetic task are more than {MOST_RECORDS}"
                )));
            }
            if let Some(file) = &settings.haystack
                && !tasks.iter().any(|task| task.hides_in_prose())
            {
                return Err(DataError::Setting(format!(
                    "haystack: none of the tasks hides anything in prose that {} could stand for; needle does",
                    file.display()
                )));
            }
            let haystack = settings.haystack.as_deref().map(Haystack::read).transpose()?;
            return Ok(Suite::Synthetic { tasks: unique(tasks), questions, haystack });
        }
        if SourceKind::of(&settings.source) == SourceKind::Own && is_there(&settings.source) {
            let OwnRecords { tasks, notices } = own::open(settings, fetcher)?;
            return Ok(Suite::Read { tasks, notices });
        }
        LongBench::check_names(&settings.tasks)?;
        let longbench = LongBench::open(Files::find(&settings.source, fetcher)?)?;
        let tasks = unique(longbench.resolve(&settings.tasks)?);
        let records: Vec<TaskRecords> = tasks
            .iter()
            .map(|task| longbench.load(task, settings.split, settings.records))
            .collect::<Result<_, _>>()?;
        if records.iter().all(|task| task.records.is_empty()) {
            return Err(DataError::Setting(format!("{} holds no record of the tasks asked for", settings.source)));
        }
        Ok(Suite::Read { tasks: records, notices: Vec::new() })
    }

    /// What was guessed and left out, for users to read.
    pub fn notices(&self) -> &[String] {
        match self {
            Suite::Synthetic { .. } => &[],
            Suite::Read { notices, .. } => notices,
        }
    }

    /// Names of the tasks, in the order of [`tasks`](Self::tasks).
    pub fn names(&self) -> Vec<String> {
        match self {
            Suite::Synthetic { tasks, .. } => tasks.iter().map(Task::to_string).collect(),
            Suite::Read { tasks, .. } => tasks.iter().map(|task| task.protocol.name.clone()).collect(),
        }
    }

    /// All records. `tokens_of` counts the tokens of a text as a task's prompt, for those that are generated to a length, of
    /// at most `limit` tokens.
    pub fn tasks(
        self,
        settings: &DataSettings,
        limit: impl Fn(&TaskProtocol) -> usize,
        tokens_of: &dyn Fn(&TaskProtocol, &str) -> usize,
    ) -> Result<Vec<TaskRecords>, DataError> {
        let (tasks, questions, haystack) = match self {
            Suite::Read { tasks, .. } => return Ok(tasks),
            Suite::Synthetic { tasks, questions, haystack } => (tasks, questions, haystack),
        };
        let generate = |task: Task| {
            let protocol = TaskProtocol {
                name: task.name().into(),
                template: task.template().into(),
                max_new_tokens: task.max_new_tokens(),
                metric: task.metric(),
                chat: task.chat(),
                stop: if task.stops_at_newline() { vec!["\n".into()] } else { Vec::new() },
                first_line_only: false,
            };
            let limit = limit(&protocol);
            let tokens_of = &|text: &str| tokens_of(&protocol, text);
            let mut records = Vec::new();
            for &length in settings.lengths() {
                if length > limit {
                    let message = format!(
                        "a context of {length} tokens is more than the {limit} that a prompt may have with this model; \
                         generated prompts are not truncated"
                    );
                    return Err(DataError::Setting(message));
                }
                let DataSettings { depths, records: count, seed, .. } = *settings;
                records.extend(if task.is_grid() {
                    synthetic::generate_grid(task, length, depths, count, seed, haystack.as_ref(), tokens_of)?
                } else if task.asks_supplied() {
                    let questions = questions.as_ref().ok_or(SyntheticError::NoQuestions(task.name()))?;
                    synthetic::generate_asked(task, questions, length, count, seed, tokens_of)?
                } else {
                    synthetic::generate(task, length, count, seed, haystack.as_ref(), tokens_of)?
                });
            }
            Ok(TaskRecords { protocol, records })
        };
        tasks.into_iter().map(generate).collect()
    }
}

/// Records of a synthetic task, all lengths and depths together.
fn records_of(task: Task, settings: &DataSettings) -> usize {
    let depths = if task.is_grid() { settings.depths } else { 1 };
    settings.records.saturating_mul(settings.lengths().len()).saturating_mul(depths)
}

/// Whether a source is there to be read.
fn is_there(source: &str) -> bool {
    source.starts_with("hub:") || Path::new(source).exists()
}

/// Each once, where it came first.
fn unique<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use cokv_models::source::Observer;

    use super::*;

    fn open(settings: &DataSettings) -> Result<Suite, DataError> {
        Suite::open(settings, &Fetcher::from_env(Observer::default()))
    }

    fn settings(source: &str, tasks: &[&str]) -> DataSettings {
        let tasks = tasks.iter().map(|task| (*task).to_owned()).collect();
        DataSettings { source: source.into(), tasks, records: 1, context_tokens: 300, ..DataSettings::default() }
    }

    #[test]
    fn tasks_named_twice_are_run_once() {
        let suite = open(&settings(SYNTHETIC, &["passkey", "key-value", "passkey", "all"])).unwrap();
        let Suite::Synthetic { tasks, .. } = suite else { panic!("not synthetic") };
        assert_eq!(tasks.len(), Task::ALL.len());
        assert_eq!(tasks[..2], [Task::Passkey, Task::KeyValue]);
    }

    #[test]
    fn mistakes_are_named_before_a_model_is_loaded() {
        let error = |source: &str, tasks: &[&str]| open(&settings(source, tasks)).unwrap_err().to_string();
        assert!(error(SYNTHETIC, &["paskey"]).contains("did you mean `passkey`?"));
        assert!(error("sythetic", &["all"]).contains("did you mean `synthetic`?"));
        assert!(error("/nowhere", &["all"]).contains("`/nowhere` is no folder and no archive (a source is"));
        assert!(error("THUDM/LongBench", &["all"]).contains("did you mean `hub:THUDM/LongBench`?"));
        assert!(error("hub:LongBench", &["all"]).contains("write hub:THUDM/LongBench"));
        assert!(
            error("hub:THUDM/LongBench", &["tric"]).contains("did you mean `trec`?"),
            "before the network is asked"
        );
        let suite = open(&settings(SYNTHETIC, &["passkey"])).unwrap();
        let words = |_: &TaskProtocol, text: &str| text.split(' ').count();
        let error = suite.tasks(&settings(SYNTHETIC, &["passkey"]), |_| 299, &words).unwrap_err().to_string();
        assert!(error.contains("a context of 300 tokens is more than the 299"), "{error}");
    }
    #[test]
    fn every_length_and_depth_has_its_records() {
        let words = |_: &TaskProtocol, text: &str| text.split_whitespace().count();
        let grid = DataSettings { context_lengths: Some(vec![300, 200]), depths: 3, ..settings(SYNTHETIC, &[]) };
        let tasks = |names: &[&str]| {
            let settings = DataSettings { tasks: settings(SYNTHETIC, names).tasks, ..grid.clone() };
            open(&settings).and_then(|suite| suite.tasks(&settings, |_| 300, &words))
        };
        let needle = tasks(&["needle"]).unwrap().remove(0);
        let places: Vec<(usize, u32)> = needle
            .records
            .iter()
            .filter_map(|record| record.place)
            .map(|place| (place.context_tokens, place.depth_percent))
            .collect();
        assert_eq!(places, [(300, 0), (300, 50), (300, 100), (200, 0), (200, 50), (200, 100)]);
        let ruler = tasks(&["ruler"]).unwrap();
        assert_eq!(ruler.iter().map(|task| task.records.len()).collect::<Vec<_>>(), [2; 7]);
        assert!(ruler.iter().flat_map(|task| &task.records).all(|record| record.place.is_none()));
    }

    #[test]
    fn supplied_questions_join_ruler_s_families() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("questions.jsonl");
        let line = |at: usize| {
            let context = format!("The house of number {at} is {} green. {}", at * 7, "It has a door. ".repeat(4));
            serde_json::json!({"input": format!("Which house is {at}?"), "context": context, "answers": ["the green one"]})
                .to_string()
        };
        std::fs::write(&file, (0..30).map(line).collect::<Vec<_>>().join("\n")).unwrap();
        let words = |_: &TaskProtocol, text: &str| text.split_whitespace().count();
        let tasks = |settings: &DataSettings| open(settings)?.tasks(settings, |_| 1000, &words);
        let with = |names: &[&str], records: usize| DataSettings {
            questions: Some(file.clone()),
            records,
            ..settings(SYNTHETIC, names)
        };
        let ruler = tasks(&with(&["ruler"], 2)).unwrap();
        let names: Vec<&str> = ruler.iter().map(|task| task.protocol.name.as_str()).collect();
        assert_eq!((names.len(), names[7]), (8, "ruler-qa"));
        assert_eq!((ruler[7].records.len(), ruler[7].protocol.metric.name()), (2, "string_match_part"));
        assert!(ruler[7].records[0].context.contains("Document 2:\nThe house of number"));
        assert_eq!(tasks(&settings(SYNTHETIC, &["ruler"])).unwrap().len(), 7);

        let error = |settings: &DataSettings| tasks(settings).unwrap_err().to_string();
        let unsupplied = error(&settings(SYNTHETIC, &["ruler-qa"]));
        assert!(unsupplied.contains("ruler-qa asks questions that are supplied: name a file"), "{unsupplied}");
        let few = error(&with(&["ruler-qa"], 31));
        assert!(few.contains("31 records are asked for, and 30 questions have an answer"), "{few}");
        let short = error(&DataSettings { context_tokens: 1000, ..with(&["ruler-qa"], 2) });
        assert!(short.contains("the paragraphs supplied fill ") && short.contains(" of 1000 tokens"), "{short}");
        let none = DataSettings { questions: Some("none.jsonl".into()), ..settings(SYNTHETIC, &["ruler"]) };
        assert!(error(&none).starts_with("none.jsonl: "), "{}", error(&none));
    }

    #[test]
    fn a_grid_of_too_many_records_is_refused() {
        let grid = DataSettings { records: MOST_RECORDS / 4, ..settings(SYNTHETIC, &["needle"]) };
        let error = open(&grid).unwrap_err().to_string();
        assert!(error.contains("125000 records of a synthetic task"), "{error}");
        assert!(open(&DataSettings { depths: 4, ..grid }).is_ok());
    }

    #[test]
    fn needles_are_hidden_in_a_text_of_one_s_own() {
        let folder = tempfile::tempdir().unwrap();
        let book = folder.path().join("book.txt");
        std::fs::write(&book, (0..300).map(|at| format!("The whale number {at} swam by. ")).collect::<String>())
            .unwrap();
        let words = |_: &TaskProtocol, text: &str| text.split_whitespace().count();
        let with =
            |tasks: &[&str]| DataSettings { haystack: Some(book.clone()), depths: 2, ..settings(SYNTHETIC, tasks) };
        let tasks = open(&with(&["needle"])).unwrap().tasks(&with(&["needle"]), |_| 300, &words).unwrap();
        for record in &tasks[0].records {
            assert!(record.context.matches("The whale number").count() > 20, "{}", record.context);
            assert!(record.context.contains(&record.answers[0]));
        }
        let error = open(&with(&["key-value"])).unwrap_err().to_string();
        assert!(error.contains("haystack: none of the tasks hides anything in prose"), "{error}");
    }
}
