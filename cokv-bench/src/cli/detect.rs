//! `cokv detect`

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::ValueEnum;
use cokv_core::HeadScores;
use cokv_core::random::mix;

use super::bar::{bar, fetching};
use super::choice::refused;
use super::load::load;
use super::output::print;
use crate::data::longbench::Fetcher;
use crate::data::prompt;
use crate::data::{DataSettings, Records, Split, Suite, TaskRecords};
use crate::importance::detection::{Detected, Detection, DetectionLog, mean_scores};
use crate::model::{Loaded, ModelSettings};
use crate::scores::show::{TerminalColours, extremes, heat_map, summary};
use crate::scores::{GameStamp, ModelStamp, ScoreFile};

/// Find the heads that retrieve, as HeadKV does
///
/// The model answers questions about long texts, and every head is scored by where it attends meanwhile: to the token that
/// is being copied (headkv-r), or to the answer (headkv-r2). Records say nothing whose answer is right by half or less:
/// by its ROUGE-1 recall for headkv-r, by the F1 of its words for headkv-r2, as HeadKV filters them. Every record is kept
/// as it is done; a stopped or killed run goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv detect --kind headkv-r2 --out r2.scores.json
  cokv detect --kind headkv-r --task passkey --task multi-key-needle --records 20 --out r.scores.json
  cokv detect --kind random --out random.scores.json        # scores to compare with")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelSettings,
    /// How heads score
    #[arg(long)]
    kind: Kind,
    /// What is asked; where no task is named, passkey and multi-key-needle, whose answers stand in the text word for word
    #[command(flatten)]
    records: Records,
    /// The score file; what each record says lies beside it
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Copying (HeadKV-R)
    HeadkvR,
    /// Retrieval and reasoning (HeadKV-R2)
    HeadkvR2,
    /// Numbers from 0 to 1 that mean nothing
    Random,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    arguments.records.check().map_err(refused)?;
    let data = arguments.records.or(DataSettings {
        tasks: ["passkey", "multi-key-needle"].map(str::to_owned).into(),
        records: 10,
        context_lengths: Some(vec![500, 1000]),
        seed: 1,
        split: Split::Validation,
        ..DataSettings::default()
    });
    let Loaded { model, fingerprint } = load(&arguments.model)?;
    let layout = model.config().layout;
    let stamp = ModelStamp::of(&arguments.model.source, &fingerprint, layout);
    let detection = match arguments.kind {
        Kind::HeadkvR => Detection::HeadkvR,
        Kind::HeadkvR2 => Detection::HeadkvR2,
        Kind::Random => {
            let number = |head: usize| mix(data.seed << 32 | head as u64) as f64 / u64::MAX as f64;
            let scores: Vec<f64> = (0..layout.heads()).map(number).collect();
            return finish(ScoreFile::new(stamp, "random", &scores), arguments);
        }
    };
    let held_as = arguments.model.held_as();
    let mut work = Vec::new();
    let limit = |protocol: &crate::data::TaskProtocol| prompt::room(&model, protocol.max_new_tokens);
    for TaskRecords { protocol, records } in Suite::open(&data, &Fetcher::from_env(fetching()))?.tasks(
        &data,
        limit,
        &prompt::token_counter(&model, data.chat_template),
    )? {
        for record in records {
            let built = prompt::build(&model, &protocol, &record, limit(&protocol), data.chat_template)?;
            work.push((protocol.clone(), record, built));
        }
    }
    let path = super::estimate::beside(&arguments.out, "detected.jsonl");
    let mut log = DetectionLog::open(&path)?;
    let tokens: usize = work.iter().map(|(_, _, prompt)| prompt.tokens.len()).sum();
    let bar = bar(false, "{wide_bar} {pos}/{len} tokens, {eta} left  {msg}", tokens);
    let mut detected: Vec<Detected> = Vec::new();
    let mut done = 0;
    for (protocol, record, prompt) in &work {
        let name = detection.fingerprint(&fingerprint, &held_as, protocol, record, prompt);
        let known = match log.find(&name) {
            Some(known) => known.clone(),
            None => {
                bar.set_message(format!("{} {}", protocol.name, record.id));
                let hear = |tokens: usize| bar.set_position((done + tokens) as u64);
                let scores = detection.look(&model, protocol, record, &prompt.tokens, hear)?;
                let new = Detected { fingerprint: name, scores };
                log.append(new.clone())?;
                new
            }
        };
        detected.push(known);
        done += prompt.tokens.len();
        bar.set_position(done as u64);
    }
    bar.finish_and_clear();
    let answered = detected.iter().filter(|record| record.scores.is_some()).count();
    eprintln!("{answered} of {} records were answered rightly and say something", detected.len());
    let Some(per_query_head) = mean_scores(layout, &detected) else {
        bail!("the model answered none of the records rightly: try an easier task or shorter prompts");
    };
    let scores = HeadScores::per_query_head(layout, per_query_head)?;
    let mut file = ScoreFile::new(stamp, detection.name(), scores.values());
    file.samples = Some(answered as u64);
    file.game = Some(GameStamp {
        fingerprint: crate::fingerprint::fingerprint(detected.iter().map(|record| record.fingerprint.clone())),
        utility: "attention".into(),
        window: 0,
        holdout_suffix: 0,
        tasks: data.tasks.clone(),
        records: work.len(),
        seen: work.iter().map(|(_, record, _)| record.fingerprint.clone()).collect(),
    });
    finish(file, arguments)
}

fn finish(file: ScoreFile, arguments: &Arguments) -> Result<()> {
    file.write(&arguments.out)?;
    let colours = TerminalColours::detect(std::io::stdout().is_terminal(), |name| std::env::var(name).ok());
    print(&format!("{}\n{}\n{}", summary(&file), heat_map(&file, colours), extremes(&file, 5)))
}
