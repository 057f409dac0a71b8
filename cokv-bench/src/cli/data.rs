//! `cokv data`

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};
use clap::Subcommand;
use cokv_core::ConfigTable;
use cokv_models::Outline;
use serde_json::json;

use super::bar::fetching;
use super::load::outline;
use super::output::print;
use crate::data::longbench::Fetcher;
use crate::data::prompt::{self, Prompt};
use crate::data::{DataSettings, Protocol, Record, Records, Suite, TaskProtocol, TaskRecords};
use crate::model::ModelSettings;

/// Look at data
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(Check),
}

/// Read records as a run would, and show what a model would be asked
///
/// Says what was guessed of the records' fields, how long prompts and answers are in tokens of the model, and shows some
/// prompts with their answers. Nothing is run. What is guessed wrong is said in the [data] table of a configuration.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv data check my.jsonl
  cokv data check hub:rajpurkar/squad:validation --records 500
  cokv data check cokv.toml                     # the [data] table of a configuration

A [data] table for records of your own; everything but the source may be left out, and is guessed then:
  [data]
  source = \"my.jsonl\"               # or .json, .csv, .tsv, .parquet, a folder of
                                    # such, hub:owner/dataset[:split]
  prompt = \"Read this.\\n{context}\\n\\nQuestion: {question}\\nAnswer:\"
  metric = \"f1\"                     # or exact, contains, rouge-l, number, choice,
                                    # edit-similarity, classification, …
  max_new_tokens = 32
  stop = [\"\\n\"]
  [data.fields]
  context = \"text\"
  question = \"q\"
  answers = \"gold\"                  # one text, or a list of alternatives")]
struct Check {
    /// A file, a folder, a dataset of the hub, LongBench, or a configuration (.toml)
    source: String,
    /// Tasks, where the source has several
    #[arg(long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Records of each task that are read; where nothing is said, what the configuration says, or 100
    #[arg(long)]
    records: Option<usize>,
    /// Prompts of each task that are shown
    #[arg(long, default_value_t = 3)]
    prompts: usize,
    /// Show prompts from their beginning to their end
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    model: ModelSettings,
    /// Tell a program
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let Command::Check(check) = &arguments.command;
    let settings = settings(check)?;
    // What is wrong with the records is said before a model is loaded.
    let suite = Suite::open(&settings, &Fetcher::from_env(fetching()))?;
    let notices = suite.notices().to_vec();
    let model = outline(&check.model, true)?.outline;
    let holds = model.config().max_tokens();
    let limit = |protocol: &TaskProtocol| prompt::limit(holds, settings.max_prompt_tokens, protocol.max_new_tokens);
    let tasks = suite.tasks(&settings, limit, &prompt::token_counter(&model, settings.chat_template))?;
    if !check.json {
        notices.iter().try_for_each(|notice| print(notice))?;
    }
    for TaskRecords { protocol, records } in &tasks {
        let build = |record| {
            let seen = Protocol::QuestionSeen;
            prompt::build(&model, protocol, record, limit(protocol), settings.chat_template, seen)
        };
        let prompts: Vec<Prompt> = records.iter().map(build).collect::<Result<_, _>>()?;
        let checked = Checked { protocol, records, prompts: &prompts, model: &model };
        match check.json {
            true => print(&checked.json(&notices).to_string())?,
            false => checked.show(check.prompts, check.whole)?,
        }
    }
    Ok(())
}

/// The `[data]` table that is meant.
fn settings(check: &Check) -> Result<DataSettings> {
    let unsaid = match is_configuration(&check.source) {
        true => read_configuration(Path::new(&check.source))?,
        false => {
            let settings = DataSettings { records: 100, ..DataSettings::default() };
            Records { source: check.source.clone(), ..Records::default() }.or(settings)
        }
    };
    Ok(DataSettings {
        tasks: if check.tasks.is_empty() { unsaid.tasks.clone() } else { check.tasks.clone() },
        records: check.records.unwrap_or(unsaid.records),
        ..unsaid
    })
}

/// Whether a source is a configuration, whose `[data]` is meant.
fn is_configuration(source: &str) -> bool {
    Path::new(source).extension() == Some(OsStr::new("toml"))
}

/// The `[data]` table of a configuration.
fn read_configuration(path: &Path) -> Result<DataSettings> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| file.clone())?;
    let mut table = ConfigTable::parse(&file, &text)?;
    Ok(DataSettings::read(&table.take_table("data")?)?)
}

/// Records where a configuration is named for their source: those of its `[data]` table, where nothing else is said.
pub(super) fn of_configuration(records: &Records) -> Result<Records> {
    if !is_configuration(&records.source) {
        return Ok(records.clone());
    }
    let data = read_configuration(Path::new(&records.source))?;
    let mut records = Records { source: data.source.clone(), ..records.clone() };
    records.described_as(&data);
    if records.tasks.is_empty() {
        records.tasks = data.tasks;
    }
    Ok(records)
}

/// The records of a task with their prompts.
struct Checked<'a> {
    protocol: &'a TaskProtocol,
    records: &'a [Record],
    prompts: &'a [Prompt],
    model: &'a Outline,
}

impl Checked<'_> {
    fn show(&self, prompts: usize, whole: bool) -> Result<()> {
        let TaskProtocol { name, metric, max_new_tokens, stop, .. } = self.protocol;
        let [lengths, answers] = self.lengths();
        let ends = if stop.is_empty() { String::new() } else { format!(", or to one of {stop:?}") };
        print(&format!(
            "\n{name}: {} records, scored by {}, answers up to {max_new_tokens} tokens{ends}\n  prompts of {lengths} tokens, \
             reference answers of {answers}",
            self.records.len(),
            metric.name(),
        ))?;
        let shortened = self.prompts.iter().filter(|prompt| prompt.shortened_from.is_some()).count();
        if shortened > 0 {
            print(&format!("  {shortened} prompts are longer than the model can take, and lose their middle"))?;
        }
        let single = self.prompts.iter().filter(|prompt| prompt.answer.len() == 1).count();
        if single > 0 {
            print(&format!(
                "  {single} reference answers have one token, which the prefill decides: log-likelihood and calibration say \
                 nothing there"
            ))?;
        }
        for (record, prompt) in self.records.iter().zip(self.prompts).take(prompts) {
            let text = self.model.tokenizer().decode(&prompt.tokens, false)?;
            let shown = if whole { text } else { ends_of(&text) };
            print(&format!(
                "\n── record {}, {} tokens\n{shown}\n── right: {}",
                record.id,
                prompt.tokens.len(),
                answers_of(record)
            ))?;
        }
        Ok(())
    }

    fn json(&self, notices: &[String]) -> serde_json::Value {
        let prompt = |(record, prompt): (&Record, &Prompt)| {
            json!({ "record": record.id, "prompt_tokens": prompt.tokens.len(), "answer_tokens": prompt.answer.len(),
                    "shortened_from": prompt.shortened_from, "answers": record.answers })
        };
        json!({
            "task": self.protocol.name,
            "metric": self.protocol.metric,
            "max_new_tokens": self.protocol.max_new_tokens,
            "template": self.protocol.template,
            "notices": notices,
            "records": self.records.iter().zip(self.prompts).map(prompt).collect::<Vec<_>>(),
        })
    }

    /// Tokens of prompts and of reference answers.
    fn lengths(&self) -> [String; 2] {
        let range = |mut lengths: Vec<usize>| {
            lengths.sort_unstable();
            match (lengths.first(), lengths.last()) {
                (Some(least), Some(most)) if least < most => {
                    format!("{least} to {most} (median {})", lengths[lengths.len() / 2])
                }
                (Some(only), _) => only.to_string(),
                _ => "no".into(),
            }
        };
        [
            range(self.prompts.iter().map(|prompt| prompt.tokens.len()).collect()),
            range(self.prompts.iter().map(|prompt| prompt.answer.len()).collect()),
        ]
    }
}

/// Characters of a prompt that are shown at each end.
const SHOWN: usize = 500;

/// A long text without its middle.
fn ends_of(text: &str) -> String {
    let characters = text.chars().count();
    if characters <= 2 * SHOWN + 40 {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN).collect();
    let tail: String = text.chars().skip(characters - SHOWN).collect();
    format!("{head}\n   … {} characters …\n{tail}", characters - 2 * SHOWN)
}

fn answers_of(record: &Record) -> String {
    record.answers.iter().map(|answer| format!("{answer:?}")).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_prompts_are_shown_by_their_ends() {
        assert_eq!(ends_of("short"), "short");
        let long = format!("{}middle{}", "a".repeat(SHOWN), "ä".repeat(600));
        let shown = ends_of(&long);
        assert!(shown.starts_with("aaa") && shown.ends_with("äää") && shown.contains("… 106 characters …"), "{shown}");
        assert!(!shown.contains("middle"));
    }
}
