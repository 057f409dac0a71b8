//! Heads that look at what the model is just saying: retrieval heads (Wu et al., arXiv 2404.15574) as HeadKV finds them
//! (Fu et al., arXiv 2410.19258).
//!
//! The model answers a question about a long text; then the prompt is prefilled once more with the answer behind it,
//! whose queries are the window that prefill records. A step of the answer is the query from which its token came.

use std::ops::Range;
use std::path::{Path, PathBuf};

use cokv_core::{
    Answered, CacheCompressor, Effort, Evidence, GameError, HeadEstimate, HeadLayout, ImportanceEstimator, Shard,
    Study, Subject, Told,
};
use cokv_policies::compressors::KvZip;
use cokv_shapley::lines::{LineLog, Lines};
use cokv_shapley::lock::LockError;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::fingerprint::fingerprint;
use crate::metrics::Metric;

/// How a head scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detection {
    /// Copying (HeadKV-R): where a head attends most to a token of the needle that is the one being said, it gains
    /// 1/needle. The needle is the sentence that holds the answer.
    HeadkvR,
    /// Retrieval and reasoning (HeadKV-R2): of the `needle` most attended tokens of each step, those within the answer
    /// gain their attention/needle.
    HeadkvR2,
    /// Reconstruction (KVzip, arXiv 2505.23416): the largest weight that the head gives to any token of the prompt while the model
    /// repeats it. Needs no question and no answer.
    Kvzip,
}

/// What one record says of every query head.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detected {
    /// Hash of all that it depends on.
    pub fingerprint: String,
    /// `[layers, query_heads]`; none where the model did not find the needle, so that its attention says nothing.
    pub scores: Option<Vec<f64>>,
}

/// Why a record could not be looked at.
#[derive(Debug, Error)]
pub enum DetectionError {
    /// No record was answered rightly.
    #[error("the model answered none of the records rightly: try an easier task or shorter prompts")]
    NothingSaid,
    /// The file of what was found cannot be used.
    #[error(transparent)]
    Log(#[from] LockError),
    /// The file of what was found holds something else.
    #[error("{path}: {wrong}; move it away, or choose another --out")]
    Foreign {
        /// The file.
        path: String,
        /// What it holds.
        wrong: String,
    },
}

impl Detection {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::HeadkvR, Self::HeadkvR2, Self::Kvzip];

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeadkvR => "headkv-r",
            Self::HeadkvR2 => "headkv-r2",
            Self::Kvzip => "kvzip",
        }
    }

    /// What a record that was looked at is called; `record` is the hash of what its answer depends on.
    fn fingerprint(self, record: &str) -> String {
        fingerprint([self.name().into(), record.into()])
    }

    /// How far the model's answer is the right one, from 0 to 1: HeadKV's filters, the ROUGE-1 recall where heads copy and
    /// the F1 of question answering where they reason.
    fn agreement(self, prediction: &str, answer: &str) -> f64 {
        match self {
            Self::HeadkvR => rouge_1_recall(prediction, answer),
            Self::HeadkvR2 | Self::Kvzip => Metric::QaF1.score(prediction, answer, &[]),
        }
    }

    /// Lets the model answer and looks at where every head attended meanwhile; none where half of the answer or more is
    /// wrong, or the right one is not in the prompt word for word.
    fn look(self, study: &mut dyn Study, record: usize) -> Result<Option<Vec<f64>>, GameError> {
        if self == Self::Kvzip {
            return repeated(study, record).map(Some);
        }
        let Answered { prompt, pieces, said, prediction, answers } = study.answer(record)?;
        let right = !said.is_empty() && answers.iter().any(|answer| self.agreement(&prediction, answer) > 0.5);
        let Some(needle) = self.needle(&pieces, &answers).filter(|_| right) else { return Ok(None) };
        let seen = [&prompt[..], &said[..said.len() - 1]].concat();
        let mut scores = Vec::new();
        study.attention(record, &said, &mut |layer| {
            for query_head in 0..layer.layout.query_heads {
                let rows = layer.last_rows(query_head, said.len())?.chunks_exact(seen.len());
                scores.push(rows.zip(&said).map(|(row, &token)| self.step(row, token, &seen, &needle)).sum());
            }
            Ok(())
        })?;
        Ok(Some(scores))
    }

    /// What one step of the answer is worth: `attention` over `seen`, from which came `said`.
    fn step(self, attention: &[f32], said: u32, seen: &[u32], needle: &Range<usize>) -> f64 {
        match self {
            Self::HeadkvR => {
                let most = attention.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(at, _)| at);
                let copied = most.is_some_and(|at| needle.contains(&at) && seen[at] == said);
                if copied { 1.0 / needle.len() as f64 } else { 0.0 }
            }
            Self::HeadkvR2 | Self::Kvzip => {
                let mut order: Vec<usize> = (0..attention.len()).collect();
                let count = needle.len().min(order.len());
                if count < order.len() {
                    order.select_nth_unstable_by(count, |&a, &b| attention[b].total_cmp(&attention[a]));
                }
                let inside = order[..count].iter().filter(|at| needle.contains(at));
                inside.map(|&at| f64::from(attention[at])).sum::<f64>() / needle.len() as f64
            }
        }
    }

    /// Where the prompt holds the first of the answers that it holds: the answer itself, or its sentence.
    fn needle(self, pieces: &[String], answers: &[String]) -> Option<Range<usize>> {
        let mut ends = Vec::with_capacity(pieces.len());
        let mut text = String::new();
        for piece in pieces {
            text += piece;
            ends.push(text.len());
        }
        let found = answers.iter().filter(|answer| !answer.trim().is_empty()).find_map(|answer| {
            let start = text.find(answer.trim())?;
            Some(start..start + answer.trim().len())
        });
        let mut bytes = found?;
        if self == Self::HeadkvR {
            let ends_sentence = |c: &(usize, char)| ['.', '!', '?', '\n', '。'].contains(&c.1);
            let after = |(at, c): (usize, char)| at + c.len_utf8();
            bytes.start = text[..bytes.start].char_indices().rev().find(ends_sentence).map_or(0, after);
            let rest = &text[bytes.end..];
            bytes.end += rest.char_indices().find(ends_sentence).map_or(rest.len(), after);
        }
        let first = ends.partition_point(|&end| end <= bytes.start);
        let last = ends.partition_point(|&end| end < bytes.end);
        Some(first..(last + 1).min(pieces.len()))
    }
}

impl ImportanceEstimator for Detection {
    fn evidence(&self) -> Evidence {
        Evidence::Answers
    }

    fn effort(&self, subject: &Subject, records: &[String], log: Option<&Path>) -> Result<Option<Effort>, GameError> {
        let Shard { index, count } = subject.limits.shard;
        let ours = (0..).zip(records).filter(|(record, _)| *record % count == index).map(|(_, record)| record);
        let found = log.map_or(Ok(Vec::new()), DetectionLog::read)?;
        let is_done = |record: &String| found.iter().any(|found| found.fingerprint == self.fingerprint(record));
        let (all, done) = (ours.clone().count() as u64, ours.filter(|record| is_done(record)).count() as u64);
        Ok(Some(Effort { least: all, most: Some(all), done }))
    }

    fn is_shared(&self, _subject: &Subject) -> bool {
        true
    }

    fn join(&self, logs: &[PathBuf], into: &Path, _subject: &Subject) -> Result<Vec<String>, GameError> {
        let mut joined = DetectionLog::open(into)?;
        for path in logs {
            for detected in DetectionLog::read(path)? {
                if joined.find(&detected.fingerprint).is_none() {
                    joined.append(detected)?;
                }
            }
        }
        Ok(Vec::new())
    }

    fn estimate(&self, study: &mut dyn Study) -> Result<Option<HeadEstimate>, GameError> {
        let mut log = DetectionLog::open(study.log())?;
        let Subject { layout, records, limits, .. } = study.subject().clone();
        let mut detected: Vec<Detected> = Vec::new();
        for record in 0..records {
            let name = self.fingerprint(study.record(record));
            let ours = record as u64 % limits.shard.count == limits.shard.index;
            match log.find(&name) {
                Some(known) => detected.push(known.clone()),
                None if ours => {
                    let new = Detected { scores: self.look(study, record)?, fingerprint: name };
                    log.append(new.clone())?;
                    detected.push(new);
                }
                None => continue,
            }
            if study.tell(&Told::Looked { records: record + 1, of: records }).is_break() && record + 1 < records {
                return Ok(None);
            }
        }
        // The others' records are in files of theirs.
        if detected.len() < records {
            return Ok(None);
        }
        let answered = detected.iter().filter(|record| record.scores.is_some()).count();
        let values = mean_scores(layout, &detected).ok_or(DetectionError::NothingSaid)?;
        let summary = match self {
            Self::Kvzip => format!("{records} prompts were repeated"),
            _ => format!("{answered} of {records} records were answered rightly and say something"),
        };
        Ok(Some(HeadEstimate { values, samples: Some(answered as u64), summary, ..HeadEstimate::default() }))
    }
}

/// What each query head gives at most to a token of a prompt that is repeated: `[layers, query_heads]`.
fn repeated(study: &mut dyn Study, record: usize) -> Result<Vec<f64>, GameError> {
    let Some(replay) = KvZip::default().replay() else { return Ok(Vec::new()) };
    let mut scores = Vec::new();
    study.repeated(record, &replay, &mut |layer| {
        let weights = &layer.replayed(&replay)?.weights;
        let most = |head: &[f32]| f64::from(head.iter().copied().fold(0.0, f32::max));
        scores.extend(weights.chunks_exact(layer.prompt_len).map(most));
        Ok(())
    })?;
    Ok(scores)
}

/// Mean over the records that say something: `[layers, query_heads]`; none where no record does.
pub fn mean_scores(layout: HeadLayout, detected: &[Detected]) -> Option<Vec<f64>> {
    let told: Vec<&Vec<f64>> = detected.iter().filter_map(|record| record.scores.as_ref()).collect();
    let mean = |head: usize| told.iter().map(|scores| scores[head]).sum::<f64>() / told.len() as f64;
    (!told.is_empty()).then(|| (0..layout.layers * layout.query_heads).map(mean).collect())
}

/// The share of the answer's words that the prediction has too, each as often as it has it (Lin 2004). Words are runs of
/// letters and digits, in lower case, as the package `rouge-score` takes them without stemming.
fn rouge_1_recall(prediction: &str, answer: &str) -> f64 {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect()
    };
    let (mut said, wanted) = (words(prediction), words(answer));
    let mut find =
        |word: &&String| said.iter().position(|other| other == *word).map(|at| said.swap_remove(at)).is_some();
    let found = wanted.iter().filter(|word| find(word)).count();
    if wanted.is_empty() { 0.0 } else { found as f64 / wanted.len() as f64 }
}

/// What was found so far, a line for each record.
pub struct DetectionLog {
    lines: LineLog,
    /// In the order of the file.
    pub detected: Vec<Detected>,
}

impl DetectionLog {
    /// Opens the file or makes it. Lines of other games are kept, and found by nobody.
    pub fn open(path: &Path) -> Result<Self, DetectionError> {
        let (lines, detected) = LineLog::open(path, |lines| parsed(path, lines))?;
        Ok(Self { lines, detected })
    }

    /// What a file holds, without locking or changing it; nothing where it is not there.
    fn read(path: &Path) -> Result<Vec<Detected>, DetectionError> {
        let lines = Lines::read(path).map_err(|error| LockError::Io { path: path.into(), error })?;
        parsed(path, &lines)
    }

    /// What was found of a record before.
    pub fn find(&self, fingerprint: &str) -> Option<&Detected> {
        self.detected.iter().find(|detected| detected.fingerprint == fingerprint)
    }

    /// Appends what a record says.
    pub fn append(&mut self, detected: Detected) -> Result<(), DetectionError> {
        let written = self.lines.append([&detected]).and_then(|()| self.lines.sync());
        written.map_err(|error| LockError::Io { path: self.lines.path().into(), error })?;
        self.detected.push(detected);
        Ok(())
    }
}

fn parsed(path: &Path, lines: &Lines) -> Result<Vec<Detected>, DetectionError> {
    let (detected, damaged) = lines.parse();
    let begins = lines.torn().is_empty() || lines.torn().starts_with(b"{\"");
    let wrong = match damaged.first() {
        None if begins => return Ok(detected),
        None => "it is no file of detected heads".into(),
        Some((line, error)) => format!("line {line} is not what was detected of a record ({error})"),
    };
    Err(DetectionError::Foreign { path: path.display().to_string(), wrong })
}

#[cfg(test)]
mod tests {
    use cokv_core::Limits;

    use super::*;

    #[test]
    fn answers_count_as_headkv_counts_them() {
        assert_eq!(rouge_1_recall("It is 7, seven: 7!", "seven 7"), 1.0);
        assert_eq!(rouge_1_recall("seven", "Seven seven"), 0.5, "as often as it is said");
        assert_eq!(rouge_1_recall("anything", ""), 0.0);
        // Rambling on costs precision, which only reasoning asks for.
        let rambling = "the code is red fox and then some more words";
        assert!(Detection::HeadkvR.agreement(rambling, "red fox") > 0.5);
        assert!(Detection::HeadkvR2.agreement(rambling, "red fox") < 0.5);
    }

    #[test]
    fn copying_needs_the_needle_s_very_token() {
        let seen = [7, 5, 6, 7, 9];
        let step = |attention: [f32; 5], said| Detection::HeadkvR.step(&attention, said, &seen, &(1..4));
        assert_eq!(step([0.1, 0.0, 0.0, 0.8, 0.1], 7), 1.0 / 3.0);
        assert_eq!(step([0.1, 0.0, 0.0, 0.8, 0.1], 6), 0.0, "another token than the one attended to");
        assert_eq!(step([0.8, 0.1, 0.0, 0.0, 0.1], 7), 0.0, "the same token outside of the needle");
    }

    #[test]
    fn reasoning_counts_attention_among_the_most_attended() {
        let step = |attention: [f32; 5]| Detection::HeadkvR2.step(&attention, 0, &[0; 5], &(1..3));
        assert!((step([0.1, 0.4, 0.3, 0.1, 0.1]) - 0.35).abs() < 1e-6);
        assert!((step([0.5, 0.3, 0.1, 0.1, 0.0]) - 0.15).abs() < 1e-6, "only the two most attended");
        assert_eq!(step([0.5, 0.1, 0.1, 0.3, 0.0]), 0.0);
    }

    #[test]
    fn what_was_found_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        let detected = |name: &str, scores| Detected { fingerprint: name.into(), scores };
        let mut log = DetectionLog::open(&path).unwrap();
        log.append(detected("a", Some(vec![0.5, 0.25]))).unwrap();
        log.append(detected("b", None)).unwrap();
        drop(log);
        let torn = std::fs::read_to_string(&path).unwrap() + "{\"fing";
        std::fs::write(&path, torn).unwrap();
        let log = DetectionLog::open(&path).unwrap();
        assert_eq!(log.find("a").unwrap().scores, Some(vec![0.5, 0.25]));
        assert!(log.find("c").is_none());
        let layout = HeadLayout::new(1, 2, 1, 4).unwrap();
        assert_eq!(mean_scores(layout, &log.detected), Some(vec![0.5, 0.25]));
        assert_eq!(mean_scores(layout, &[detected("b", None)]), None);
        assert!(!std::fs::read_to_string(&path).unwrap().contains("fing\n"));
    }

    #[test]
    fn records_that_were_looked_at_are_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.jsonl");
        let records = ["a", "b", "c"].map(str::to_owned);
        let limits = Limits { seed: 0, reliability: 0.9, evaluations: None, time: None, batch: 1, shard: Shard::WHOLE };
        let mut subject = Subject {
            layout: HeadLayout::new(1, 2, 1, 4).unwrap(),
            players: 1,
            records: 3,
            fingerprint: String::new(),
            computed_by: String::new(),
            about: Default::default(),
            limits,
        };
        let kind = Detection::HeadkvR;
        let effort = |subject: &Subject| kind.effort(subject, &records, Some(&path)).unwrap().unwrap();
        assert_eq!(effort(&subject), Effort { least: 3, most: Some(3), done: 0 });
        assert!(!path.exists(), "a plan makes no file");
        let mut log = DetectionLog::open(&path).unwrap();
        log.append(Detected { fingerprint: kind.fingerprint("b"), scores: None }).unwrap();
        assert_eq!(effort(&subject).done, 1);
        subject.limits.shard = "1/2".parse().unwrap();
        assert_eq!(effort(&subject), Effort { least: 2, most: Some(2), done: 0 });
    }
}
