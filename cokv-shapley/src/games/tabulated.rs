//! A game whose utilities are all known.

use cokv_core::{Coalition, Game, GameError, Query};

use crate::{Design, Draw, FitError, SampleLog};

/// The game that a complete log of the exhaustive design was played on: it answers from the log, so that estimators can
/// be tried on a real game at no cost, with any seed and as often as it takes to compare them.
#[derive(Clone, Debug)]
pub struct Tabulated {
    players: usize,
    /// `[instances][2^players]`, by the coalition's binary digits.
    utilities: Vec<Vec<f64>>,
}

impl Tabulated {
    /// Takes all utilities from a log; an error where some are missing.
    pub fn new(log: &SampleLog) -> Result<Self, FitError> {
        const NAME: &str = "tabulated game";
        let plan = log.plan();
        if plan.design != Design::Exhaustive {
            return Err(FitError::Design { estimator: NAME, design: plan.design.name(), needed: "`exhaustive`" });
        }
        let needed = plan.samples().unwrap_or(u64::MAX) as usize;
        if log.len() < needed {
            return Err(FitError::TooFewSamples { estimator: NAME, found: log.len(), needed });
        }
        let mut utilities = vec![vec![0.0; 2 * needed]; plan.instances];
        for sample in log.samples() {
            let Draw { coalitions, instances } = plan.draw(sample.k);
            for (coalition, row) in coalitions.iter().zip(sample.utilities.chunks(plan.instances)) {
                instances.iter().zip(row).for_each(|(&instance, &utility)| {
                    utilities[instance][digits(coalition)] = utility;
                });
            }
        }
        Ok(Self { players: plan.players, utilities })
    }
}

fn digits(coalition: &Coalition) -> usize {
    coalition.members().map(|player| 1 << player).sum()
}

impl Game for Tabulated {
    fn players(&self) -> usize {
        self.players
    }

    fn instances(&self) -> usize {
        self.utilities.len()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        for (query, utility) in queries.iter().zip(utilities) {
            *utility = self.utilities[query.instance][digits(query.coalition)];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::games::{Instances, Majority};
    use crate::{LogHeader, PlaySettings, SamplingPlan, Stop, estimators::Exact, exact_shapley, play};

    fn majority() -> Majority {
        Majority { weights: vec![1.0, 2.0, 3.0, 4.0, 5.0], quota: 8.0 }
    }

    fn log(design: Design, evaluations: Option<u64>) -> SampleLog {
        let mut game = Instances::new(majority(), 3, 0.5, 1);
        let plan = SamplingPlan { players: 5, instances: 3, instances_per_sample: 1, seed: 1, design };
        let mut log = SampleLog::new(LogHeader::new("toy", plan)).unwrap();
        let settings = PlaySettings {
            stop: Stop { reliability: None, evaluations, ..Stop::default() },
            ..PlaySettings::default()
        };
        let proceed = &mut |_: &_| ControlFlow::Continue(());
        let estimator: &dyn crate::Estimator = match log.plan().design {
            Design::Exhaustive => &Exact {},
            _ => &crate::estimators::Scpr::default(),
        };
        play(&mut game, &mut log, estimator, &settings, &mut |_| Ok(()), proceed).unwrap();
        log
    }

    #[test]
    fn the_table_is_the_game() {
        let mut table = Tabulated::new(&log(Design::Exhaustive, None)).unwrap();
        let mut game = Instances::new(majority(), 3, 0.5, 1);
        assert_eq!(exact_shapley(&mut table).unwrap(), exact_shapley(&mut game).unwrap());
        let coalition = Coalition::from_members(5, [0, 3, 4]);
        let queries = [0, 1, 2].map(|instance| Query { coalition: &coalition, instance });
        let (mut known, mut played) = ([0.0; 3], [0.0; 3]);
        table.evaluate(&queries, &mut known).unwrap();
        game.evaluate(&queries, &mut played).unwrap();
        assert_eq!(known, played);
    }

    #[test]
    fn an_incomplete_log_is_no_game() {
        let half = log(Design::Exhaustive, Some(40));
        assert!(matches!(Tabulated::new(&half), Err(FitError::TooFewSamples { needed: 16, .. })));
        assert!(matches!(Tabulated::new(&log(Design::AllSizes, Some(40))), Err(FitError::Design { .. })));
    }
}
