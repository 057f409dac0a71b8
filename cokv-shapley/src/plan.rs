//! What sample k evaluates.

use cokv_core::Coalition;
use serde::{Deserialize, Serialize};

use crate::design::{MOST_INSTANCES, MOST_PLAYERS};
use crate::random::{Purpose, Stream};
use crate::without_replacement::{self, Visit};
use crate::{Design, DesignError};

/// Everything that decides what is sampled. Sample k is a function of the plan and k alone, so that shards, resumed
/// runs and estimators agree on it without telling each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingPlan {
    /// Players of the game.
    pub players: usize,
    /// Instances of the game.
    pub instances: usize,
    /// Instances that a sample evaluates its coalitions on. The Shapley value is linear in the game, so that few
    /// instances and many coalitions estimate the mean game without bias. A finite design evaluates all of them.
    pub instances_per_sample: usize,
    /// Seed of all random choices.
    pub seed: u64,
    /// Which coalitions are drawn.
    pub design: Design,
}

/// What one sample evaluates: every coalition on every instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Of a paired design: S, then its complement.
    pub coalitions: Vec<Coalition>,
    /// Distinct instances.
    pub instances: Vec<usize>,
}

impl SamplingPlan {
    /// Whether the plan can be drawn from.
    pub fn check(&self) -> Result<(), DesignError> {
        let &Self { players, instances, instances_per_sample: asked, .. } = self;
        if instances == 0 {
            return Err(DesignError::NothingToPlay { players, instances });
        }
        if players > MOST_PLAYERS || instances > MOST_INSTANCES {
            return Err(DesignError::TooLarge { players, instances });
        }
        if asked == 0 || asked > instances {
            return Err(DesignError::InstancesPerSample { asked, instances });
        }
        self.design.check(players)
    }

    /// Number of samples of a finite design.
    pub fn samples(&self) -> Option<u64> {
        self.design.samples(self.players)
    }

    /// Coalitions of one sample.
    pub fn coalitions_per_sample(&self) -> usize {
        match self.design {
            Design::Permutations { .. } => self.players - 1,
            Design::LeaveOneOut => 1,
            _ => 2,
        }
    }

    /// Evaluations of one sample: its coalitions times its instances.
    pub fn evaluations_per_sample(&self) -> u64 {
        (self.coalitions_per_sample() * self.instances_of_a_sample()) as u64
    }

    fn instances_of_a_sample(&self) -> usize {
        if self.samples().is_some() { self.instances } else { self.instances_per_sample }
    }

    /// What sample `k` evaluates, of a plan that [`SamplingPlan::check`] accepts; in a finite design, `k` is below
    /// [`SamplingPlan::samples`].
    pub fn draw(&self, k: u64) -> Draw {
        Draw { coalitions: self.draw_coalitions(k), instances: self.instances_of(k) }
    }

    fn draw_coalitions(&self, k: u64) -> Vec<Coalition> {
        let players = self.players;
        let mut stream = Stream::new(self.seed, Purpose::Members, k);
        let coalition = match &self.design {
            Design::Slices { .. } | Design::Range { .. } | Design::AllSizes => {
                let size = self.balanced_size(k);
                Coalition::from_members(players, stream.choose(size, players))
            }
            Design::KernelSizes => {
                let size = kernel_size(&mut stream, players);
                Coalition::from_members(players, stream.choose(size, players))
            }
            Design::KernelWithoutReplacement => without_replacement::coalition(self.visit(k), players, self.seed),
            Design::Halves => Coalition::from_members(players, (0..players).filter(|_| stream.bits() >> 63 == 1)),
            Design::Exhaustive => {
                Coalition::from_members(players, (0..players.min(64)).filter(|player| k >> player & 1 == 1))
            }
            Design::LeaveOneOut => {
                return vec![Coalition::from_members(players, (0..players).filter(|&player| player as u64 != k))];
            }
            Design::Permutations { antithetic } => {
                let permutation = if *antithetic { k / 2 } else { k };
                let mut order = Stream::new(self.seed, Purpose::Members, permutation).choose(players, players);
                if *antithetic && k % 2 == 1 {
                    order.reverse();
                }
                return (1..players)
                    .map(|size| Coalition::from_members(players, order[..size].iter().copied()))
                    .collect();
            }
        };
        let complement = coalition.complement();
        vec![coalition, complement]
    }

    /// Of the design without replacement.
    fn visit(&self, k: u64) -> Visit {
        let rounds = self.instances / self.instances_of_a_sample();
        without_replacement::visit(k, self.players, rounds as u64, self.seed)
    }

    fn balanced_size(&self, k: u64) -> usize {
        let sizes = self.design.balanced_sizes(self.players);
        let count = sizes.len() as u64;
        let order = Stream::new(self.seed, Purpose::Sizes, k / count).choose(sizes.len(), sizes.len());
        sizes[order[(k % count) as usize]]
    }

    /// A block of samples shares out a seeded permutation of the instances; the few that are left over when a sample
    /// takes several sit this block out.
    pub(crate) fn instances_of(&self, k: u64) -> Vec<usize> {
        let (instances, taken) = (self.instances, self.instances_of_a_sample());
        if taken == instances {
            return (0..instances).collect();
        }
        if self.design == Design::KernelWithoutReplacement {
            // Whenever a pair comes again, it comes with other instances.
            let Visit { place, round, .. } = self.visit(k);
            let first = (place + round) as usize * taken;
            return (first..first + taken).map(|instance| instance % instances).collect();
        }
        let samples_per_block = (instances / taken) as u64;
        let place = (k % samples_per_block) as usize;
        let order = Stream::new(self.seed, Purpose::Instances, k / samples_per_block).choose(instances, instances);
        order[place * taken..(place + 1) * taken].to_vec()
    }
}

/// A size with probability proportional to 1 / (size (players - size)).
fn kernel_size(stream: &mut Stream, players: usize) -> usize {
    let weight = |size: usize| 1.0 / (size * (players - size)) as f64;
    let mut left = stream.unit() * (1..players).map(weight).sum::<f64>();
    for size in 1..players - 1 {
        left -= weight(size);
        if left < 0.0 {
            return size;
        }
    }
    players - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(players: usize, design: Design) -> SamplingPlan {
        SamplingPlan { players, instances: 5, instances_per_sample: 2, seed: 7, design }
    }

    fn text(draw: &Draw) -> String {
        let coalitions: Vec<String> = draw.coalitions.iter().map(ToString::to_string).collect();
        format!("{} on {:?}", coalitions.join(" "), draw.instances)
    }

    #[test]
    fn finite_designs_evaluate_all_instances() {
        let exhaustive = plan(4, Design::Exhaustive);
        assert_eq!(text(&exhaustive.draw(0)), "4:0 4:f on [0, 1, 2, 3, 4]");
        assert_eq!(text(&exhaustive.draw(5)), "4:5 4:a on [0, 1, 2, 3, 4]");
        assert_eq!(text(&plan(4, Design::LeaveOneOut).draw(2)), "4:b on [0, 1, 2, 3, 4]");
        assert_eq!(exhaustive.evaluations_per_sample(), 10);
    }

    /// A change here is a change of every log's meaning, and needs another version of the format.
    #[test]
    fn draws_have_published_vectors() {
        let vectors = |players: usize, design: Design, expected: [&str; 3]| {
            for (k, expected) in [0, 1, 1_000_000_007].into_iter().zip(expected) {
                assert_eq!(text(&plan(players, design.clone()).draw(k)), expected, "{design:?} {k}");
            }
        };
        vectors(
            20,
            Design::Slices { sizes: vec![3, 10] },
            ["20:20408 20:dfbf7 on [1, 0]", "20:eb614 20:149eb on [2, 3]", "20:7278a 20:8d875 on [2, 4]"],
        );
        vectors(
            12,
            Design::middle(12),
            ["12:4c6 12:b39 on [1, 0]", "12:f9f 12:060 on [2, 3]", "12:54e 12:ab1 on [2, 4]"],
        );
        vectors(
            12,
            Design::KernelSizes,
            ["12:440 12:bbf on [1, 0]", "12:080 12:f7f on [2, 3]", "12:ded 12:212 on [2, 4]"],
        );
        vectors(
            12,
            Design::KernelWithoutReplacement,
            ["12:421 12:bde on [0, 1]", "12:827 12:7d8 on [0, 1]", "12:cc5 12:33a on [4, 0]"],
        );
        vectors(12, Design::Halves, ["12:832 12:7cd on [1, 0]", "12:47e 12:b81 on [2, 3]", "12:0d3 12:f2c on [2, 4]"]);
        vectors(
            4,
            Design::Permutations { antithetic: false },
            ["4:1 4:9 4:d on [1, 0]", "4:1 4:5 4:d on [2, 3]", "4:4 4:c 4:d on [2, 4]"],
        );
    }

    #[test]
    fn antithetic_permutations_are_reversed() {
        let plan = plan(9, Design::Permutations { antithetic: true });
        let (forth, back) = (plan.draw(6), plan.draw(7));
        assert_eq!(forth.coalitions.len(), 8);
        for (size, prefix) in forth.coalitions.iter().enumerate() {
            assert_eq!(prefix.complement(), back.coalitions[7 - size]);
        }
    }

    #[test]
    fn kernel_sizes_have_their_distribution() {
        let plan = plan(6, Design::KernelSizes);
        let mut counts = [0.0; 6];
        (0..20_000).for_each(|k| counts[plan.draw(k).coalitions[0].size()] += 1.0);
        let weights = [0.0, 1.0 / 5.0, 1.0 / 8.0, 1.0 / 9.0, 1.0 / 8.0, 1.0 / 5.0];
        let total: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            assert!((count - 20_000.0 * weight / total).abs() < 5.0 * 65.0, "{counts:?}");
        }
    }

    #[test]
    fn plans_must_have_enough_instances() {
        let plan = SamplingPlan { instances_per_sample: 6, ..plan(4, Design::AllSizes) };
        assert_eq!(plan.check().unwrap_err(), DesignError::InstancesPerSample { asked: 6, instances: 5 });
    }

    #[test]
    fn plans_beyond_all_games_are_refused() {
        let plan = plan(4, Design::AllSizes);
        for (players, instances) in [(MOST_PLAYERS + 1, 5), (4, MOST_INSTANCES + 1), (usize::MAX, usize::MAX)] {
            let plan = SamplingPlan { players, instances, ..plan.clone() };
            assert_eq!(plan.check().unwrap_err(), DesignError::TooLarge { players, instances });
        }
        SamplingPlan { players: MOST_PLAYERS, instances: MOST_INSTANCES, ..plan }.check().unwrap();
    }

    proptest! {
        #[test]
        fn blocks_are_balanced(players in 2usize..70, seed: u64, block in 0u64..1000, taken in 1usize..5) {
            let plan = SamplingPlan { seed, instances_per_sample: taken, ..plan(players, Design::AllSizes) };
            let length = players as u64 - 1;
            let mut sizes: Vec<usize> = (block * length..(block + 1) * length)
                .map(|k| {
                    let draw = plan.draw(k);
                    assert_eq!(draw.coalitions[0].complement(), draw.coalitions[1]);
                    draw.coalitions[0].size()
                })
                .collect();
            sizes.sort_unstable();
            prop_assert!(sizes.into_iter().eq(1..players));

            let samples = (5 / taken) as u64;
            let mut instances: Vec<usize> =
                (block * samples..(block + 1) * samples).flat_map(|k| plan.draw(k).instances).collect();
            instances.sort_unstable();
            instances.dedup();
            prop_assert_eq!(instances.len(), samples as usize * taken);
        }
    }
}
