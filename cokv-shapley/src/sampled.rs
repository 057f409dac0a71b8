//! Estimators that sample coalitions, behind the seam of cokv-core.

use std::path::Path;

use cokv_core::{GameError, HeadEstimate, HeadPair, ImportanceEstimator, Named, Shard, Study, Subject, Told};

use crate::diagnostics::split_half;
use crate::statistics::mean;
use crate::{
    Design, Estimator, FitError, Kept, LogFile, LogHeader, Outcome, PlaySettings, Progress, SampleLog, SamplingPlan,
    Stop, interactions, is_log_of, play,
};

/// Players whose pairs are looked at.
const INTERACTING: usize = 14;

/// An estimator, what it samples, and rules of its own that end it: samples are appended to a log, and the values are a
/// function of the log.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// What turns samples into values.
    pub estimator: Named<dyn Estimator>,
    /// What is sampled; none for the estimator's own design.
    pub design: Option<Design>,
    /// Records that a sample evaluates its coalitions on.
    pub records_per_sample: usize,
    /// See [`Stop::two_run_mae`].
    pub two_run_mae: bool,
    /// See [`Stop::allocation_distance`].
    pub allocation_distance: Option<f64>,
}

impl Sampled {
    /// Which game, and how it is sampled: what its log begins with.
    pub fn header(&self, subject: &Subject) -> LogHeader {
        let plan = SamplingPlan {
            players: subject.players,
            instances: subject.records.max(1),
            instances_per_sample: self.records_per_sample,
            seed: subject.limits.seed,
            design: self.design.clone().unwrap_or_else(|| self.estimator.design(subject.players)),
        };
        let computed_by = Some(subject.computed_by.clone()).filter(|by| !by.is_empty());
        LogHeader { computed_by, about: subject.about.clone(), ..LogHeader::new(subject.fingerprint.clone(), plan) }
    }

    fn settings(&self, subject: &Subject) -> PlaySettings {
        let limits = &subject.limits;
        let evaluations = self.header(subject).plan.evaluations_per_sample().max(1) as usize;
        PlaySettings {
            shard: limits.shard,
            stop: Stop {
                reliability: Some(limits.reliability),
                evaluations: limits.evaluations,
                time: limits.time,
                two_run_mae: self.two_run_mae,
                allocation_distance: self.allocation_distance,
            },
            batch: limits.batch,
            // A batch for every record, so that forward passes are full.
            round: (subject.records * limits.batch / evaluations).max(1),
        }
    }

    /// What the samples say now.
    fn fitted(&self, log: &SampleLog, outcome: Outcome) -> Result<HeadEstimate, FitError> {
        let estimate = self.estimator.fit(log)?;
        // A log too short or without pairs says nothing about pairs of heads, and that is no error.
        let pairs = interactions(log, &estimate.values, INTERACTING).unwrap_or_default();
        let halves = split_half(log, &*self.estimator).ok();
        let (full, empty) = log.ends().map(|ends| (mean(&ends.full), mean(&ends.empty))).unwrap_or_default();
        let moved = halves.as_ref().map_or(String::new(), |halves| {
            format!(
                ", {:.0} % of tokens elsewhere by the other half of the samples",
                100.0 * halves.allocation_distance
            )
        });
        let summary = format!(
            "{}: reliability {:.3}{moved} after {} samples, {} evaluations; U(all heads) {full:.4}, U(none) {empty:.4}",
            outcome.sentence(),
            estimate.reliability,
            estimate.samples,
            estimate.evaluations,
        );
        Ok(HeadEstimate {
            standard_errors: Some(estimate.standard_errors),
            reliability: Some(estimate.reliability),
            split_half: halves.as_ref().map(|halves| halves.spearman).filter(|correlation| correlation.is_finite()),
            allocation_distance: halves.map(|halves| halves.allocation_distance),
            samples: Some(estimate.samples),
            evaluations: Some(estimate.evaluations),
            pairs: pairs
                .iter()
                .map(|pair| HeadPair { first: pair.first, second: pair.second, effect: pair.effect, t: pair.t })
                .collect(),
            values: estimate.values,
            summary,
        })
    }
}

impl ImportanceEstimator for Sampled {
    /// An empty log shows what is wrong with the design before anything is prefilled.
    fn check(&self, subject: &Subject) -> Result<(), GameError> {
        match self.estimator.fit(&SampleLog::new(self.header(subject))?) {
            Err(error @ FitError::Design { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn log_key(&self, subject: &Subject) -> String {
        let SamplingPlan { players, instances, instances_per_sample, seed, design } = self.header(subject).plan;
        format!("{players} {instances} {instances_per_sample} {seed} {design}")
    }

    fn is_log(&self, log: &Path, subject: &Subject) -> Result<bool, GameError> {
        Ok(is_log_of(log, &self.header(subject))?)
    }

    fn estimate(&self, study: &mut dyn Study) -> Result<Option<HeadEstimate>, GameError> {
        let (header, settings) = (self.header(study.subject()), self.settings(study.subject()));
        let path = study.log().to_path_buf();
        let (mut file, mut log, notices) = LogFile::open(&path, &header)?;
        for notice in notices {
            let _ = study.tell(&Told::Note(&format!("{}: {notice}", path.display())));
        }
        if !log.is_empty() {
            let _ = study.tell(&Told::Resumed(log.len()));
        }
        let (game, teller) = study.game()?;
        let outcome = play(
            game,
            &mut log,
            &*self.estimator,
            &settings,
            &mut |kept| match kept {
                Kept::Ends(ends) => file.append_ends(ends),
                Kept::Sample(sample) => file.append(sample),
            },
            &mut |progress| teller.tell(&played(progress)),
        )?;
        match self.fitted(&log, outcome) {
            _ if outcome == Outcome::Interrupted => Ok(None),
            // A shard of a finite design is done without knowing enough.
            Err(FitError::TooFewSamples { .. }) if settings.shard != Shard::WHOLE => Ok(None),
            fitted => Ok(Some(fitted?)),
        }
    }
}

fn played(progress: &Progress) -> Told<'static> {
    Told::Played {
        samples: progress.samples,
        evaluations_per_second: progress.new_evaluations as f64 / progress.elapsed.as_secs_f64().max(1e-9),
        reliability: progress.estimate.as_ref().map(|estimate| estimate.reliability),
        seconds_left: progress.remaining.map(|remaining| remaining.as_secs_f64()),
    }
}
