//! Estimators that sample coalitions, behind the seam of cokv-core.

use std::path::{Path, PathBuf};

use cokv_core::{Effort, GameError, HeadEstimate, HeadPair, ImportanceEstimator, Named, Shard, Study, Subject, Told};

use crate::diagnostics::{Allocation, silent, split_half, spreads};
use crate::play::settled;
use crate::statistics::mean;
use crate::{
    Design, Estimator, FitError, Kept, LogError, LogFile, LogHeader, Outcome, PlaySettings, Progress, SampleLog,
    SamplingPlan, Stop, interactions, is_log_of, play, read_log_of,
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
    /// See [`Stop::allocation`].
    pub allocation: Option<Allocation>,
    /// See [`PlaySettings::pilot`].
    pub pilot: u64,
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
        let (limits, plan) = (&subject.limits, self.header(subject).plan);
        let each = plan.evaluations_per_sample().max(1);
        let samples = |evaluations: u64| evaluations.saturating_sub(2 * plan.instances as u64) / each;
        let stop = Stop {
            reliability: Some(limits.reliability),
            evaluations: limits.evaluations,
            time: limits.time,
            two_run_mae: self.two_run_mae,
            allocation_distance: self.allocation_distance,
            allocation: self.allocation,
        };
        // A shard does its share of all evaluations that are allowed: whether they are enough, all shards say together.
        let of_shard = limits.evaluations.filter(|_| limits.shard != Shard::WHOLE);
        let share =
            Stop { reliability: None, evaluations: None, two_run_mae: false, allocation_distance: None, ..stop };
        PlaySettings {
            shard: limits.shard,
            samples: of_shard.map(samples),
            stop: if of_shard.is_some() { share } else { stop },
            batch: limits.batch,
            // A batch for every record, so that forward passes are full.
            round: (subject.records * limits.batch / each as usize).max(1),
            pilot: self.pilot,
        }
    }

    /// What several logs hold of a subject together; logs that are not there yet hold nothing.
    fn joined(&self, logs: &[PathBuf], subject: &Subject) -> Result<(SampleLog, Vec<String>), LogError> {
        let header = self.header(subject);
        let (mut all, mut notices) = (SampleLog::new(header.clone())?, Vec::new());
        for path in logs {
            if let Some(log) = read_log_of(path, &header)? {
                notices.extend(all.merge(log)?.map(|notice| format!("{}: {notice}", path.display())));
            }
        }
        Ok((all, notices))
    }

    /// When a play of this subject ends, in evaluations of its log.
    fn effort_of(&self, subject: &Subject) -> Effort {
        let (plan, settings) = (self.header(subject).plan, self.settings(subject));
        let each = plan.evaluations_per_sample();
        let ends = 2 * plan.instances as u64;
        let of_samples = |samples: u64| samples.saturating_mul(each).saturating_add(ends);
        let share = settings.share(&plan).map(of_samples);
        let most = settings.stop.evaluations.into_iter().chain(share).min();
        // Rules are looked at behind whole rounds, and reliability does not count before.
        let first = settings.stop.least_samples(&plan).max(1).next_multiple_of(settings.round as u64);
        // A shard has nothing to find out before its share is done.
        let least = if settings.samples.is_some() { u64::MAX } else { of_samples(first) };
        Effort { least: least.min(most.unwrap_or(u64::MAX)), most, done: 0 }
    }

    /// What the samples say now.
    fn fitted(&self, log: &SampleLog, outcome: Outcome) -> Result<HeadEstimate, FitError> {
        let estimate = self.estimator.fit(log)?;
        // A log too short or without pairs says nothing about pairs of heads, and that is no error.
        let pairs = interactions(log, &estimate.values, INTERACTING).unwrap_or_default();
        let halves = split_half(log, &*self.estimator).ok();
        let (full, empty) = log.ends().map(|ends| (mean(&ends.full), mean(&ends.empty))).unwrap_or_default();
        let rule = self.allocation.unwrap_or_else(|| Allocation::authors(estimate.values.len()));
        let tokens_to_move = rule.foreseen(&estimate);
        let of_others =
            halves.as_ref().map(|halves| halves.reliability_of_others).filter(|reliability| reliability.is_finite());
        let others = of_others.map_or(String::new(), |others| format!(" ({others:.2} without the five strongest)"));
        let moved = match tokens_to_move {
            0.0 => String::new(),
            share => format!(", {:.0} % of tokens would move if more were known,", 100.0 * share),
        };
        let summary = format!(
            "{}: reliability {:.3}{others}{moved} after {} samples, {} evaluations; U(all heads) {full:.4}, U(none) {empty:.4}",
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
            reliability_of_others: of_others,
            tokens_to_move: Some(tokens_to_move),
            silent: silent(&spreads(log)),
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
        if self.pilot > 0 && (self.records_per_sample != 1 || self.header(subject).plan.samples().is_some()) {
            return Err("a pilot needs pairs on one record each, of a design without an end".into());
        }
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

    fn effort(&self, subject: &Subject, _records: &[String], log: Option<&Path>) -> Result<Option<Effort>, GameError> {
        let log = log.map(|path| read_log_of(path, &self.header(subject))).transpose()?.flatten();
        let done = log.map_or(0, |log| log.evaluations());
        Ok(Some(Effort { done, ..self.effort_of(subject) }))
    }

    /// A clock that ends a study is one machine's.
    fn is_shared(&self, subject: &Subject) -> bool {
        subject.limits.time.is_none() && self.pilot == 0
    }

    fn join(&self, logs: &[PathBuf], into: &Path, subject: &Subject) -> Result<Vec<String>, GameError> {
        let ((all, notices), settings) = (self.joined(logs, subject)?, self.settings(subject));
        let kept = match settings.shard {
            Shard::WHOLE => match settled(&all, &*self.estimator, &settings)? {
                Some((count, _)) => all.prefix(count),
                None => all,
            },
            _ => all.filtered(|_, k| settings.has(k)),
        };
        let (mut file, ..) = LogFile::open(into, kept.header())?;
        if let Some(ends) = kept.ends() {
            file.append_ends(ends)?;
        }
        kept.samples().try_for_each(|sample| file.append(sample))?;
        Ok(notices)
    }

    fn is_enough(&self, logs: &[PathBuf], subject: &Subject) -> Result<bool, GameError> {
        let (all, _) = self.joined(logs, subject)?;
        Ok(settled(&all, &*self.estimator, &self.settings(subject))?.is_some())
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
        // Where nothing is left to be played, no record has to be prefilled.
        if let Some((count, outcome)) = settled(&log, &*self.estimator, &settings)?
            && count == log.len()
            && settings.shard == Shard::WHOLE
        {
            return Ok(Some(self.fitted(&log, outcome)?));
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

#[cfg(test)]
mod tests {
    use cokv_core::{ConfigTable, HeadLayout, Limits};

    use super::*;

    fn subject(players: usize, records: usize, evaluations: Option<u64>) -> Subject {
        Subject {
            layout: HeadLayout::new(1, players, players, 2).unwrap(),
            players,
            records,
            fingerprint: "game".into(),
            computed_by: String::new(),
            about: Default::default(),
            limits: Limits { seed: 0, reliability: 0.9, evaluations, time: None, batch: 8, shard: Shard::WHOLE },
        }
    }

    fn sampled(design: Design, two_run_mae: bool) -> Sampled {
        let mut table = ConfigTable::parse("", "estimator = 'scpr'").unwrap();
        Sampled {
            estimator: crate::estimator(&table.take_choice("estimator").unwrap().unwrap()).unwrap(),
            design: Some(design),
            records_per_sample: 1,
            two_run_mae,
            allocation_distance: None,
            allocation: None,
            pilot: 0,
        }
    }

    #[test]
    fn the_effort_is_what_the_stop_rules_leave() {
        let effort = |sampled: &Sampled, subject: &Subject| sampled.effort(subject, &[], None).unwrap().unwrap();
        // Rounds of 3 * 8 / 2 = 12 samples of two coalitions; 2 * 30 pairs are the fewest that count: five rounds. The
        // ends are two coalitions on each of three records.
        let pairs = sampled(Design::AllSizes, false);
        assert_eq!(effort(&pairs, &subject(30, 3, None)), Effort { least: 6 + 5 * 12 * 2, most: None, done: 0 });
        assert_eq!(effort(&pairs, &subject(30, 3, Some(500))).most, Some(500));
        assert_eq!(effort(&pairs, &subject(30, 3, Some(50))), Effort { least: 50, most: Some(50), done: 0 });
        // The authors' rule counts from the first round on.
        assert_eq!(effort(&sampled(Design::AllSizes, true), &subject(30, 3, None)).least, 6 + 12 * 2);
        // Every player is left out once, on all records.
        let one_out = sampled(Design::LeaveOneOut, false);
        assert_eq!(effort(&one_out, &subject(30, 3, None)).most, Some(6 + 30 * 3));
        let mut quarter = subject(30, 3, None);
        quarter.limits.shard = "1/4".parse().unwrap();
        assert_eq!(effort(&one_out, &quarter).most, Some(6 + 8 * 3));
    }

    #[test]
    fn what_a_log_holds_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.samples.jsonl");
        let (sampled, subject) = (sampled(Design::AllSizes, false), subject(4, 2, None));
        let done = || sampled.effort(&subject, &[], Some(&path)).map(|effort| effort.unwrap().done);
        assert_eq!(done().unwrap(), 0);
        let (mut file, ..) = LogFile::open(&path, &sampled.header(&subject)).unwrap();
        file.append(&crate::Sample { k: 0, utilities: vec![0.5, 0.25] }).unwrap();
        drop(file);
        assert_eq!(done().unwrap(), 2);
        let other = Subject { fingerprint: "another".into(), ..subject.clone() };
        assert!(sampled.effort(&other, &[], Some(&path)).unwrap_err().to_string().contains("log of another play"));
    }
}
