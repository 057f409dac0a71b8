//! Which instances are worth more samples than others.

use std::ops::Range;

use crate::diagnostics::spreads;
use crate::{SampleLog, SamplingPlan};

/// No instance is drawn less often than that, whatever the pilot says of it.
const LEAST: f64 = 1.0 / 16.0;

/// How often each instance is drawn behind a pilot: in proportion to how much its utilities vary (Neyman 1934), which makes the
/// variance of a mean over instances least. Estimators weigh the samples by how often their instance is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pilot {
    /// Samples of every instance that are played whatever they say.
    samples: u64,
    /// Share of an instance's samples that are played behind them.
    shares: Vec<f64>,
}

impl Pilot {
    /// The pilot's samples.
    pub fn end(plan: &SamplingPlan, samples: u64) -> u64 {
        samples.saturating_mul(plan.instances as u64)
    }

    /// From the first `samples` of every instance; none where these are not all in the log.
    pub fn of(log: &SampleLog, samples: u64) -> Option<Self> {
        let (plan, end) = (log.plan(), Self::end(log.plan(), samples));
        if samples == 0 {
            return Some(Self { samples, shares: vec![1.0; plan.instances] });
        }
        let pilot = log.filtered(|_, k| k < end);
        if (pilot.len() as u64) < end {
            return None;
        }
        let spreads = spreads(&pilot);
        let most = spreads.iter().copied().fold(0.0, f64::max);
        let share = |spread: f64| if most > 0.0 { (spread / most).max(LEAST) } else { 1.0 };
        Some(Self { samples, shares: spreads.into_iter().map(share).collect() })
    }

    /// The samples of a round that are played.
    pub fn of_round(&self, plan: &SamplingPlan, round: Range<u64>) -> Vec<u64> {
        round.filter(|&k| self.has(plan, k)).collect()
    }

    /// Whether sample `k` is played.
    pub fn has(&self, plan: &SamplingPlan, k: u64) -> bool {
        if self.samples == 0 || k < Self::end(plan, self.samples) {
            return true;
        }
        let block = k / plan.instances as u64;
        let share = plan.instances_of(k).first().map_or(1.0, |&instance| self.shares[instance]);
        ((block + 1) as f64 * share).floor() > (block as f64 * share).floor()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Design, LogHeader, Sample};

    #[test]
    fn instances_are_drawn_by_how_much_they_vary() {
        let plan =
            SamplingPlan { players: 6, instances: 4, instances_per_sample: 1, seed: 1, design: Design::AllSizes };
        let mut log = SampleLog::new(LogHeader::new("toy", plan.clone())).unwrap();
        let scales = [1.0, 0.5, 0.0, 0.25];
        for k in 0..32 {
            assert_eq!(Pilot::of(&log, 8), None);
            let instance = plan.instances_of(k)[0];
            // Half of the pairs are worth as much as the other half costs.
            let sign = if k / 4 % 2 == 0 { 1.0 } else { -1.0 };
            log.insert(Sample { k, utilities: vec![scales[instance] * sign, 0.0] }).unwrap();
        }
        let pilot = Pilot::of(&log, 8).unwrap();
        assert_eq!(pilot.shares, [1.0, 0.5, LEAST, 0.25]);
        let mut counts = [0; 4];
        (32..32 + 4 * 160).filter(|&k| pilot.has(&plan, k)).for_each(|k| counts[plan.instances_of(k)[0]] += 1);
        assert_eq!(counts, [160, 80, 10, 40]);
        assert!((0..32).all(|k| pilot.has(&plan, k)));
    }
}
