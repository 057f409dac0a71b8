//! What has been evaluated so far.

mod error;
mod file;
mod notice;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{DesignError, SamplingPlan};
pub use error::LogError;
pub use file::{LogFile, is_log_of, read_log, read_log_of};
pub use notice::Notice;
use notice::Repeats;

/// Estimators sum squares of utilities.
const LARGEST_UTILITY: f64 = 1e100;

/// What sample `k` gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Which sample of the plan.
    pub k: u64,
    /// `[coalitions, instances]`, row-major, in the order of [`SamplingPlan::draw`].
    pub utilities: Vec<f64>,
}

/// What nobody and everybody achieve on each instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// U(nobody): `[instances]`.
    pub empty: Vec<f64>,
    /// U(everybody): `[instances]`.
    pub full: Vec<f64>,
}

impl Ends {
    /// U(everybody) - U(nobody), averaged over some instances.
    pub(crate) fn difference(&self, instances: impl IntoIterator<Item = usize>) -> f64 {
        let (sum, count) = instances
            .into_iter()
            .fold((0.0, 0), |(sum, count), instance| (sum + self.full[instance] - self.empty[instance], count + 1));
        sum / f64::from(count)
    }

    /// U(everybody) - U(nobody), averaged over all instances.
    pub fn mean_difference(&self) -> f64 {
        self.difference(0..self.full.len().min(self.empty.len()))
    }
}

/// Which game was sampled, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHeader {
    /// Fingerprint of the game: model, records, utility, whatever its values depend on.
    pub game: String,
    /// What its samples evaluate.
    pub plan: SamplingPlan,
    /// What computes the utilities, for whoever asks why a log is refused; logs of earlier builds do not say.
    pub computed_by: Option<String>,
    /// Settings that made the game what it is, for whoever asks which of them differs; logs of earlier builds do not say.
    pub about: BTreeMap<String, String>,
}

impl LogHeader {
    /// Of a game that does not say what computes it.
    pub fn new(game: impl Into<String>, plan: SamplingPlan) -> Self {
        Self { game: game.into(), plan, computed_by: None, about: BTreeMap::new() }
    }

    /// The first field that differs, with the value here and there.
    fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        let fields = |header: &Self| {
            let plan = &header.plan;
            // What is not known differs from nothing.
            let computed_by = |header: &Self| header.computed_by.clone();
            let known = computed_by(self).and(computed_by(other)).and(computed_by(header));
            [
                // First, because it is why the game is another.
                ("computed_by", known.unwrap_or_default()),
                ("game", header.game.clone()),
                ("plan.players", plan.players.to_string()),
                ("plan.instances", plan.instances.to_string()),
                ("plan.instances_per_sample", plan.instances_per_sample.to_string()),
                ("plan.seed", plan.seed.to_string()),
                ("plan.design", plan.design.to_string()),
            ]
        };
        let mut pairs = fields(self).into_iter().zip(fields(other));
        let ((field, here), (_, there)) = pairs.find(|(here, there)| here != there)?;
        // A hash tells nobody what to change.
        let said = (field == "game").then(|| self.said_otherwise(other)).flatten();
        Some(said.unwrap_or((field.into(), here, there)))
    }

    /// The first setting that both logs name and that differs, with the value here and there.
    fn said_otherwise(&self, other: &Self) -> Option<(String, String, String)> {
        let mut both = self.about.iter().filter_map(|(name, here)| Some((name, here, other.about.get(name)?)));
        let (name, here, there) = both.find(|(_, here, there)| here != there)?;
        Some((name.clone(), here.clone(), there.clone()))
    }
}

/// Whether an inserted sample was there already.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Inserted {
    /// It was not.
    New,
    /// It was, with utilities that differ by at most this: 0 where one machine evaluated both, a rounding error where
    /// processors of different registers did. The first stay.
    Known(f64),
}

/// Largest difference between two evaluations of one thing that passes for rounding, relative to the utilities where these
/// are above 1. Sums in registers of other widths differ in the last bits of f32, and with quantised products a bit may move
/// the rounding of an activation. Measured on SmolLM2 (Q4_1) and Qwen2.5-Coder (Q4) with 16 coalitions: AVX2 and AVX-512 have
/// the same utilities; plain registers move answer probabilities by up to 1.5e-3 and log-likelihoods by up to 1.2e-2.
const ROUNDING: f64 = 3e-2;

/// Largest difference between utilities that are the same but for rounding; none where they are not.
fn rounding(first: &[f64], second: &[f64]) -> Option<f64> {
    let difference = |(first, second): (&f64, &f64)| (first - second).abs();
    let same = |(first, second): (&f64, &f64)| {
        difference((first, second)) <= ROUNDING * first.abs().max(second.abs()).max(1.0)
    };
    let mut pairs = first.iter().zip(second);
    pairs.clone().all(same).then(|| pairs.by_ref().map(difference).fold(0.0, f64::max))
}

/// All samples of one plan that have been evaluated, in the order of k.
///
/// Estimators are functions of the log, so that it does not matter who evaluated what, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleLog {
    header: LogHeader,
    ends: Option<Ends>,
    samples: BTreeMap<u64, Sample>,
}

impl SampleLog {
    /// Nothing evaluated yet.
    pub fn new(header: LogHeader) -> Result<Self, DesignError> {
        header.plan.check()?;
        Ok(Self { header, ends: None, samples: BTreeMap::new() })
    }

    /// Which game, and how.
    pub fn header(&self) -> &LogHeader {
        &self.header
    }

    /// What the samples evaluate; drawing from it cannot fail.
    pub fn plan(&self) -> &SamplingPlan {
        &self.header.plan
    }

    /// What nobody and everybody achieve, once known.
    pub fn ends(&self) -> Option<&Ends> {
        self.ends.as_ref()
    }

    /// Adds the ends.
    pub fn set_ends(&mut self, ends: Ends) -> Result<Inserted, LogError> {
        check_ends(self.plan(), &ends)?;
        match &self.ends {
            None => {
                self.ends = Some(ends);
                Ok(Inserted::New)
            }
            Some(known) => known_already(
                || "U(nobody) and U(everybody)".into(),
                &[&known.empty[..], &known.full].concat(),
                [ends.empty, ends.full].concat(),
            ),
        }
    }

    /// Adds a sample.
    pub fn insert(&mut self, sample: Sample) -> Result<Inserted, LogError> {
        check_sample(&self.header.plan, &sample)?;
        match self.samples.entry(sample.k) {
            Entry::Vacant(place) => {
                place.insert(sample);
                Ok(Inserted::New)
            }
            Entry::Occupied(known) => {
                known_already(|| format!("sample {}", sample.k), &known.get().utilities, sample.utilities)
            }
        }
    }

    /// Adds all samples of another log of the same game and plan, such as another shard's. Every shard evaluates the ends, and
    /// machines round differently: what is known already stays.
    pub fn merge(&mut self, other: Self) -> Result<Option<Notice>, LogError> {
        if let Some((field, found, expected)) = other.header.difference(&self.header) {
            return Err(LogError::OtherHeader { field, found, expected });
        }
        let mut repeats = Repeats::default();
        if let Some(ends) = other.ends {
            repeats.count(self.set_ends(ends)?);
        }
        for sample in other.samples.into_values() {
            repeats.count(self.insert(sample)?);
        }
        Ok(repeats.rounding())
    }

    /// Whether sample `k` has been evaluated.
    pub fn contains(&self, k: u64) -> bool {
        self.samples.contains_key(&k)
    }

    /// The samples in the order of k.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> + Clone {
        self.samples.values()
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What the log cost: utilities of one coalition on one instance, the ends included.
    pub fn evaluations(&self) -> u64 {
        let ends = self.ends.as_ref().map_or(0, |ends| ends.empty.len() + ends.full.len());
        ends as u64 + self.len() as u64 * self.plan().evaluations_per_sample()
    }

    /// Two logs of alternate samples, in the order of k. Not of even and odd k: a shard may own only one of them.
    pub fn halves(&self) -> (Self, Self) {
        let half = |parity: usize| self.filtered(|place, _| place % 2 == parity);
        (half(0), half(1))
    }

    /// The first `count` samples.
    pub fn prefix(&self, count: usize) -> Self {
        self.slice(0..count)
    }

    /// The samples at some places in the order of k.
    pub fn slice(&self, places: Range<usize>) -> Self {
        self.filtered(|place, _| places.contains(&place))
    }

    /// The samples that are kept, by their places in the order of k, and by k.
    pub(crate) fn filtered(&self, keep: impl Fn(usize, u64) -> bool) -> Self {
        let samples = self.samples.iter().enumerate().filter(|(place, (k, _))| keep(*place, **k));
        Self {
            header: self.header.clone(),
            ends: self.ends.clone(),
            samples: samples.map(|(_, (&k, sample))| (k, sample.clone())).collect(),
        }
    }
}

fn known_already(what: impl FnOnce() -> String, first: &[f64], second: Vec<f64>) -> Result<Inserted, LogError> {
    match rounding(first, &second) {
        Some(difference) => Ok(Inserted::Known(difference)),
        None => Err(LogError::Conflict { what: what(), first: first.to_vec(), second }),
    }
}

fn check_sample(plan: &SamplingPlan, sample: &Sample) -> Result<(), LogError> {
    if let Some(samples) = plan.samples().filter(|&samples| sample.k >= samples) {
        return Err(LogError::NoSuchSample { k: sample.k, samples });
    }
    check_utilities(|| format!("sample {}", sample.k), &sample.utilities, plan.evaluations_per_sample() as usize)
}

fn check_ends(plan: &SamplingPlan, ends: &Ends) -> Result<(), LogError> {
    check_utilities(|| "U(nobody)".into(), &ends.empty, plan.instances)?;
    check_utilities(|| "U(everybody)".into(), &ends.full, plan.instances)
}

fn check_utilities(what: impl Fn() -> String, utilities: &[f64], expected: usize) -> Result<(), LogError> {
    if utilities.len() != expected {
        return Err(LogError::WrongLength { what: what(), found: utilities.len(), expected });
    }
    match utilities.iter().find(|utility| utility.is_nan() || utility.abs() > LARGEST_UTILITY) {
        Some(&value) => Err(LogError::NotFinite { what: what(), value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Design;

    fn log(seed: u64) -> SampleLog {
        let plan = SamplingPlan { players: 4, instances: 3, instances_per_sample: 1, seed, design: Design::middle(4) };
        SampleLog::new(LogHeader::new("toy", plan)).unwrap()
    }

    fn sample(k: u64, first: f64) -> Sample {
        Sample { k, utilities: vec![first, 0.5] }
    }

    #[test]
    fn samples_must_fit_and_agree() {
        let mut log = log(1);
        assert_eq!(log.insert(sample(3, 0.1)).unwrap(), Inserted::New);
        assert_eq!(log.insert(sample(3, 0.1)).unwrap(), Inserted::Known(0.0));
        let conflict = log.insert(sample(3, 0.2)).unwrap_err().to_string();
        assert!(conflict.contains("sample 3 was evaluated twice with different utilities ([0.1, 0.5]"), "{conflict}");
        assert!(matches!(log.insert(sample(4, f64::NAN)), Err(LogError::NotFinite { .. })));
        assert!(matches!(log.insert(sample(4, 1e200)), Err(LogError::NotFinite { .. })));
        let short = Sample { k: 5, utilities: vec![1.0] };
        assert!(matches!(log.insert(short), Err(LogError::WrongLength { found: 1, expected: 2, .. })));
        assert_eq!(log.set_ends(Ends { empty: vec![0.0; 3], full: vec![1.0; 3] }).unwrap(), Inserted::New);
        assert!(log.set_ends(Ends { empty: vec![0.0; 3], full: vec![2.0; 3] }).is_err());
        assert!(log.set_ends(Ends { empty: vec![0.0; 2], full: vec![1.0; 3] }).is_err());
        assert_eq!(log.evaluations(), 2 + 6);
    }

    #[test]
    fn logs_of_other_plans_do_not_merge() {
        let message = log(1).merge(log(2)).unwrap_err().to_string();
        assert!(message.contains("`plan.seed` is 2 in one and 1 in the other"), "{message}");
        let conflict = {
            let (mut left, mut right) = (log(1), log(1));
            left.insert(sample(0, 0.0)).unwrap();
            right.insert(sample(0, 1.0)).unwrap();
            left.merge(right)
        };
        assert!(matches!(conflict, Err(LogError::Conflict { .. })));
    }

    #[test]
    fn halves_alternate_in_the_order_of_k() {
        let mut log = log(1);
        for k in [8, 0, 4, 2, 6] {
            log.insert(sample(k, k as f64)).unwrap();
        }
        let order = |log: &SampleLog| log.samples().map(|sample| sample.k).collect::<Vec<_>>();
        let (first, second) = log.halves();
        assert_eq!((order(&first), order(&second)), (vec![0, 4, 8], vec![2, 6]));
        assert_eq!(order(&log.prefix(2)), [0, 2]);
    }

    #[test]
    fn impossible_plans_have_no_log() {
        let mut header = log(1).header().clone();
        header.plan.design = Design::Slices { sizes: vec![4] };
        assert_eq!(SampleLog::new(header).unwrap_err(), DesignError::Size { size: 4, players: 4 });
    }
}
