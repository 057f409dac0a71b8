//! Our format: `*.scores.json`.

use std::path::Path;

use cokv_core::HeadScores;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Serializer;

use super::row_format::RowFormatter;
use super::stamp::{GameStamp, ModelStamp};
use super::storage::{read_bytes, write_bytes};
use super::worth::HeadScoresWorth;
use super::{Problem, ScoreFileError};

/// What each KV head of a model is worth, and how that was found out.
///
/// Written with one layer a line. Numbers keep all their bits. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreFile {
    /// Always `cokv-head-scores`.
    pub format: Format,
    /// Always 1.
    pub version: Version,
    /// Whose heads were scored.
    pub model: ModelStamp,
    /// Name of the estimator or of the published method.
    pub estimator: String,
    /// `[layers][kv_heads]`; only differences between heads of one file mean anything.
    pub scores: Vec<Vec<f64>>,
    /// `[layers][kv_heads]`; infinite for a head about which nothing is known, which is written as `null`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "null_is_infinite")]
    pub standard_errors: Option<Vec<Vec<f64>>>,
    /// Estimated squared correlation of the scores with the true ones, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<f64>,
    /// Correlation between the scores of two halves of the samples, in [-1, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_half: Option<f64>,
    /// Share of all tokens that goes to other heads under the scores of the one half of the samples than of the other, by
    /// CoKV's allocation, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_distance: Option<f64>,
    /// As `reliability`, among all heads but the five strongest, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability_of_others: Option<f64>,
    /// Share of all tokens that is expected to go to other heads if the true scores were known, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_to_move: Option<f64>,
    /// Records whose utilities depend on the coalition as much as a tenth of those of the record that does most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records_with_signal: Option<usize>,
    /// Samples drawn, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<u64>,
    /// Times that a utility was evaluated, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<u64>,
    /// The game that was played, if it was one of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub game: Option<GameStamp>,
    /// `[layer, kv_head]` of the heads that played, if not all did: the others kept the whole prompt and score 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub players: Vec<[usize; 2]>,
    /// Pairs of heads that are worth more (or less) together than apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interactions: Vec<Interaction>,
    /// The published files that this one was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Program and version that wrote the file.
    pub created_by: String,
}

/// Scores of a file, for a model that its heads fit.
#[derive(Clone, Debug)]
pub struct FittedScores {
    /// One for each KV head.
    pub scores: HeadScores,
    /// Hashes of the records that they were made from, as far as the file says.
    pub seen: Vec<String>,
    /// What the user should know where they may be another model's.
    pub notice: Option<String>,
    /// How well they are known.
    pub worth: HeadScoresWorth,
}

/// The format's name in its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Scores of KV heads.
    #[default]
    #[serde(rename = "cokv-head-scores")]
    HeadScores,
}

/// Version 1 of the format, the only one so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Version;

impl TryFrom<u32> for Version {
    type Error = String;

    fn try_from(version: u32) -> Result<Self, String> {
        let message = || format!("the file has version {version}, this cokv reads version 1: update cokv");
        (version == 1).then_some(Self).ok_or_else(message)
    }
}

impl From<Version> for u32 {
    fn from(_: Version) -> Self {
        1
    }
}

/// What two heads are worth together beyond what they are worth apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interaction {
    /// `[layer, kv_head]`
    pub first: [usize; 2],
    /// `[layer, kv_head]`
    pub second: [usize; 2],
    /// Positive where they complement, negative where they replace each other; in units of the utility.
    pub effect: f64,
    /// The effect in standard errors.
    pub t: f64,
}

impl ScoreFile {
    /// A file with scores in flat order and nothing else known. Scores of a wrong number are found out when the file is
    /// written.
    pub fn new(model: ModelStamp, estimator: &str, scores: &[f64]) -> Self {
        Self {
            format: Format::HeadScores,
            version: Version,
            scores: layers(&model, scores),
            model,
            estimator: estimator.into(),
            standard_errors: None,
            reliability: None,
            split_half: None,
            allocation_distance: None,
            reliability_of_others: None,
            tokens_to_move: None,
            records_with_signal: None,
            samples: None,
            evaluations: None,
            game: None,
            players: vec![],
            interactions: vec![],
            source: None,
            created_by: concat!("cokv ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// Adds standard errors in flat order.
    pub fn with_standard_errors(mut self, standard_errors: &[f64]) -> Self {
        self.standard_errors = Some(layers(&self.model, standard_errors));
        self
    }

    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ScoreFileError> {
        Self::parse(&read_bytes(path)?).map_err(|problem| problem.at(path))
    }

    /// How well its scores are known.
    pub fn worth(&self) -> HeadScoresWorth {
        let known = HeadScoresWorth {
            reliability: self.reliability,
            records: self.game.as_ref().map(|game| game.records),
            evaluations: self.evaluations.map(|count| count as usize),
            halves_apart: self.allocation_distance,
            reliability_of_others: self.reliability_of_others,
            unworthy: None,
        };
        known.judged()
    }

    /// Reads a file for a model whose methods will use it; an error where the model's heads are arranged differently.
    pub fn read_for(path: &Path, model: &ModelStamp) -> Result<FittedScores, ScoreFileError> {
        let file = Self::read(path)?;
        let scores = file.head_scores(model).map_err(|problem| problem.at(path))?;
        let notice = file.model.notice(model).map(|notice| format!("{}: {notice}", path.display()));
        let worth = file.worth();
        Ok(FittedScores { scores, notice, worth, seen: file.game.map_or_else(Vec::new, |game| game.seen) })
    }

    /// Checks and writes a file, replacing an old one at once.
    pub fn write(&self, path: &Path) -> Result<(), ScoreFileError> {
        write_bytes(path, &self.text().map_err(|problem| problem.at(path))?)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let file: Self = serde_json::from_slice(bytes)?;
        file.check()?;
        Ok(file)
    }

    pub(super) fn text(&self) -> Result<Vec<u8>, Problem> {
        self.check()?;
        let mut text = Vec::new();
        self.serialize(&mut Serializer::with_formatter(&mut text, RowFormatter::default()))?;
        text.push(b'\n');
        Ok(text)
    }

    /// The scores in flat order.
    pub fn flat(&self) -> Vec<f64> {
        self.scores.concat()
    }

    /// The scores for a model; an error where its heads are arranged differently.
    ///
    /// A model of the same shape may still be another one: see [`ModelStamp::notice`].
    pub fn head_scores(&self, model: &ModelStamp) -> Result<HeadScores, Problem> {
        let layout = model.layout()?;
        if (self.model.layers, self.model.kv_heads) != (layout.layers, layout.kv_heads) {
            return Err(Problem::OtherShape { scored: self.model.to_string(), model: model.to_string() });
        }
        if !self.players.is_empty() {
            return Err(Problem::SomeHeads { scored: self.players.len(), heads: layout.heads() });
        }
        Ok(HeadScores::new(layout, self.flat())?)
    }
}

/// Flat scores as layers.
fn layers(model: &ModelStamp, flat: &[f64]) -> Vec<Vec<f64>> {
    flat.chunks(model.kv_heads.max(1)).map(<[f64]>::to_vec).collect()
}

fn null_is_infinite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Vec<f64>>>, D::Error> {
    let table = Option::<Vec<Vec<Option<f64>>>>::deserialize(deserializer)?;
    let row = |row: Vec<Option<f64>>| row.into_iter().map(|value| value.unwrap_or(f64::INFINITY)).collect();
    Ok(table.map(|rows| rows.into_iter().map(row).collect()))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    pub fn model(name: &str, layers: usize, group: usize, kv_heads: usize) -> ModelStamp {
        ModelStamp {
            name: name.into(),
            fingerprint: None,
            layers,
            query_heads: group * kv_heads,
            kv_heads,
            head_dim: 64,
        }
    }

    pub fn full() -> ScoreFile {
        let file = ScoreFile::new(model("toy", 2, 3, 2), "scpr", &[0.1, -0.25, 1e-300, 3.0]).with_standard_errors(&[
            0.5,
            f64::INFINITY,
            0.25,
            0.125,
        ]);
        ScoreFile {
            model: ModelStamp { fingerprint: Some("ab12".into()), ..file.model },
            reliability: Some(0.91),
            split_half: Some(0.8),
            samples: Some(960),
            evaluations: Some(1920),
            game: Some(GameStamp {
                fingerprint: "cd34".into(),
                utility: "probability".into(),
                window: 8,
                holdout_suffix: 4,
                tasks: vec!["passkey".into(), "qasper".into()],
                records: 30,
                seen: vec!["ef56".into()],
            }),
            interactions: vec![Interaction { first: [1, 0], second: [1, 1], effect: 0.142, t: 13.1 }],
            ..file
        }
    }

    #[test]
    fn the_text_has_one_line_per_layer() {
        let expected = r#"{
  "format": "cokv-head-scores",
  "version": 1,
  "model": {
    "name": "toy",
    "fingerprint": "ab12",
    "layers": 2,
    "query_heads": 6,
    "kv_heads": 2,
    "head_dim": 64
  },
  "estimator": "scpr",
  "scores": [
    [0.1, -0.25],
    [1e-300, 3.0]
  ],
  "standard_errors": [
    [0.5, null],
    [0.25, 0.125]
  ],
  "reliability": 0.91,
  "split_half": 0.8,
  "samples": 960,
  "evaluations": 1920,
  "game": {
    "fingerprint": "cd34",
    "utility": "probability",
    "window": 8,
    "holdout_suffix": 4,
    "tasks": [
      "passkey",
      "qasper"
    ],
    "records": 30,
    "seen": [
      "ef56"
    ]
  },
  "interactions": [
    {"first": [1, 0], "second": [1, 1], "effect": 0.142, "t": 13.1}
  ],
  "created_by": "cokv 0.1.0"
}
"#;
        assert_eq!(String::from_utf8(full().text().unwrap()).unwrap(), expected);
    }

    #[test]
    fn nan_is_not_written_and_leaves_the_old_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.scores.json");
        full().write(&path).unwrap();
        let wrong = ScoreFile { scores: vec![vec![0.0, f64::NAN], vec![0.0, 0.0]], ..full() };
        assert!(wrong.write(&path).unwrap_err().to_string().contains("`scores` is NaN for head 1 of layer 0"));
        assert_eq!(ScoreFile::read(&path).unwrap(), full());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = ScoreFile::read(&folder.path().join("b.scores.json")).unwrap_err();
        assert!(matches!(missing.problem, Problem::Io(_)) && missing.to_string().contains("b.scores.json: "));
    }

    #[test]
    fn scores_are_handed_out_for_models_of_their_shape() {
        let file = full();
        assert_eq!(file.head_scores(&file.model).unwrap().values(), [0.1, -0.25, 1e-300, 3.0]);
        let error = file.head_scores(&model("other", 4, 3, 1)).unwrap_err().to_string();
        assert!(error.contains("toy (2 layers × 2 KV heads)") && error.contains("other (4 layers × 1 KV heads)"));
    }

    proptest! {
        #[test]
        fn every_number_keeps_its_bits(
            scores in prop::collection::vec(any::<f64>().prop_filter("finite", |value| value.is_finite()), 6),
            errors in prop::collection::vec(prop_oneof![Just(f64::INFINITY), 0.0..f64::MAX], 6),
        ) {
            let file = ScoreFile::new(model("toy", 3, 1, 2), "test", &scores).with_standard_errors(&errors);
            let read = ScoreFile::parse(&file.text().unwrap()).unwrap();
            prop_assert_eq!(&read, &file);
            let bits = |file: &ScoreFile| file.flat().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), bits(&file));
        }

        #[test]
        fn cut_files_are_refused(share in 0.0..1.0) {
            let text = full().text().unwrap();
            let length = ((text.len() - 2) as f64 * share) as usize;
            prop_assert!(ScoreFile::parse(&text[..length]).is_err());
        }
    }
}
