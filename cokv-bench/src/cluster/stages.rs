//! What the pieces of a run are: a function of its configuration and the number of tasks.

use std::fmt;
use std::str::FromStr;

use cokv_core::{Evidence, Shard};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::config::Config;

/// What the tasks of a stage do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Duty {
    /// Fetches models and data, and hashes the models.
    Fetch,
    /// Measures heads, a share of the samples or records each. Where what is found ends a measurement, waves follow each other,
    /// each of which doubles the samples; one that is not needed any more ends at once.
    Calibrate {
        /// Counted from 1.
        wave: u32,
    },
    /// Makes scores of what was measured.
    Scores,
    /// Runs a share of the validation records.
    Select,
    /// Chooses settings from them.
    Choose,
    /// Runs a share of the prompts.
    Matrix,
    /// Makes the table and the page.
    Report,
}

/// Waves of a calibration that ends by what it finds: the last plays up to eight times what it takes at least. What is still missing
/// then, one machine plays.
const WAVES: u32 = 4;

/// Tasks that may run at the same time, and after all of the stages before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What they do.
    pub duty: Duty,
    /// How many there are.
    pub tasks: u64,
}

/// The stages of a run, in their order.
pub fn stages(config: &Config, tasks: u64) -> Vec<Stage> {
    let one = |duty| Stage { duty, tasks: 1 };
    let shared = |duty| Stage { duty, tasks };
    let mut stages = vec![one(Duty::Fetch)];
    let measured = config.importance_used();
    if !measured.is_empty() {
        let plays = |name: &String| config.importance[name].estimator.evidence() == Evidence::Coalitions;
        let waves = if measured.iter().any(plays) { WAVES } else { 1 };
        stages.extend((1..=waves).map(|wave| shared(Duty::Calibrate { wave })));
        stages.push(one(Duty::Scores));
    }
    if config.columns.iter().any(|column| column.is_open()) {
        stages.extend([shared(Duty::Select), one(Duty::Choose)]);
    }
    stages.extend([shared(Duty::Matrix), one(Duty::Report)]);
    stages
}

/// What a task has of several things that are measured, each a number below `things` with the shard of it: a thing is cut only where
/// there are more tasks than things, so that few have to prepare it.
pub fn shares(things: usize, task: Shard) -> Vec<(usize, Shard)> {
    let parts = (task.count / things.max(1) as u64).max(1);
    let pieces = things as u64 * parts;
    let mine = (task.index..pieces).step_by(task.count as usize);
    mine.map(|piece| ((piece / parts) as usize, Shard { index: piece % parts, count: parts })).collect()
}

impl Duty {
    /// Whether it runs a model.
    pub fn computes(self) -> bool {
        !matches!(self, Self::Fetch | Self::Choose | Self::Report)
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch => f.write_str("fetch"),
            Self::Calibrate { wave } => write!(f, "calibrate-{wave}"),
            Self::Scores => f.write_str("scores"),
            Self::Select => f.write_str("select"),
            Self::Choose => f.write_str("choose"),
            Self::Matrix => f.write_str("matrix"),
            Self::Report => f.write_str("report"),
        }
    }
}

impl FromStr for Duty {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Self::Fetch, Self::Scores, Self::Select, Self::Choose, Self::Matrix, Self::Report];
        let waves = (1..=WAVES).map(|wave| Self::Calibrate { wave });
        let found = known.into_iter().chain(waves).find(|duty| duty.to_string() == text);
        found.ok_or_else(|| {
            format!(
                "there is no stage `{text}`: stages are fetch, calibrate-1 to calibrate-{WAVES}, scores, select, choose, matrix and \
                 report, of which RUN/cluster/submission.json lists those of a run"
            )
        })
    }
}

impl Serialize for Duty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let config = Config::parse("x.toml", text, &cokv_policies::registry()).unwrap();
        stages(&config, 8).iter().map(|stage| format!("{}:{}", stage.duty, stage.tasks)).collect()
    }

    #[test]
    fn a_run_has_the_stages_that_it_needs() {
        let plain = "budgets = [64]\n[[method]]\ncompressor = 'snapkv'\n";
        assert_eq!(names(plain), ["fetch:1", "matrix:8", "report:1"]);
        let measured = |estimator: &str| {
            format!(
                "{plain}[[method]]\nname = 'c'\ncompressor = 'snapkv'\nallocator = 'cokv'\nimportance = 'own'\n\
                 select = {{ drop_lowest = [1, 2] }}\n[importance.own]\ntasks = ['passkey']\nestimator = '{estimator}'\n"
            )
        };
        let detected = ["fetch:1", "calibrate-1:8", "scores:1", "select:8", "choose:1", "matrix:8", "report:1"];
        assert_eq!(names(&measured("headkv-r2")), detected);
        assert_eq!(
            names(&measured("scpr"))[1..5],
            ["calibrate-1:8", "calibrate-2:8", "calibrate-3:8", "calibrate-4:8"]
        );
    }

    #[test]
    fn stages_are_written_and_read_by_their_names() {
        for name in ["fetch", "calibrate-3", "scores", "select", "choose", "matrix", "report"] {
            assert_eq!(name.parse::<Duty>().unwrap().to_string(), name);
        }
        for wrong in ["", "calibrate", "calibrate-0", "calibrate-99", "Matrix"] {
            assert!(wrong.parse::<Duty>().unwrap_err().contains("stages are fetch, calibrate-1"), "{wrong}");
        }
    }

    #[test]
    fn tasks_have_all_of_all_things_once_and_cut_few() {
        for (things, tasks) in [(1, 1), (1, 8), (3, 8), (8, 3), (5, 5), (0, 4)] {
            let shares_of = |index| shares(things, Shard { index, count: tasks });
            let mut all: Vec<(usize, u64, u64)> =
                (0..tasks).flat_map(shares_of).map(|(thing, shard)| (thing, shard.index, shard.count)).collect();
            all.sort_unstable();
            let parts = (tasks / things.max(1) as u64).max(1);
            let expected: Vec<_> =
                (0..things).flat_map(|thing| (0..parts).map(move |part| (thing, part, parts))).collect();
            assert_eq!(all, expected, "{things} things, {tasks} tasks");
        }
    }
}
