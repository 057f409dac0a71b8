//! Which coalitions are worth evaluating.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most players whose coalitions are enumerated: 2^20 coalitions are a million evaluations of each instance.
pub const MOST_ENUMERATED: usize = 20;

/// More players than any model has KV heads; estimators hold square matrices of them.
pub const MOST_PLAYERS: usize = 1 << 14;

/// More instances than anybody evaluates.
pub const MOST_INSTANCES: usize = 1 << 20;

/// Which coalitions a sample evaluates. A pair is a coalition S and its complement N∖S.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Design {
    /// Pairs whose |S| cycles over a few sizes, the slices of CoKV (arXiv 2502.17501, section 3): every block of as
    /// many samples as there are sizes has each size once, in a seeded order.
    Slices {
        /// Sizes of S, distinct, from 1 to n - 1.
        sizes: Vec<usize>,
    },
    /// Pairs whose |S| is uniform over a range; every block of samples has each size once, in a seeded order.
    Range {
        /// Smallest |S|, at least 1.
        smallest: usize,
        /// Largest |S|, at most n - 1.
        largest: usize,
    },
    /// [`Design::Range`] over all sizes from 1 to n - 1.
    AllSizes,
    /// Pairs whose |S| has the distribution of KernelSHAP, 1 / (|S| (n - |S|)) (Lundberg, Lee 2017).
    KernelSizes,
    /// [`Design::KernelSizes`], but no pair comes a second time before it came once with every instance; sizes of which no pair is left
    /// leave their share to the others, so that the border sizes are enumerated first.
    KernelWithoutReplacement,
    /// Pairs: every player joins S with probability 1/2, as for the Banzhaf value.
    Halves,
    /// The n - 1 proper prefixes of a random permutation, shortest first.
    Permutations {
        /// Sample 2m + 1 is sample 2m with its permutation reversed.
        antithetic: bool,
    },
    /// Sample k is everybody but player k.
    LeaveOneOut,
    /// Every pair once: the binary digits of k say who is in S; the last player never is.
    Exhaustive,
}

/// A design that cannot sample a game.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DesignError {
    /// No players or no instances.
    #[error("a game needs players and instances; this one has {players} and {instances}")]
    NothingToPlay {
        /// Players of the game.
        players: usize,
        /// Instances of the game.
        instances: usize,
    },
    /// Numbers of a damaged log: nobody could draw from them.
    #[error(
        "{players} players and {instances} instances are more than a game has ({MOST_PLAYERS} and {MOST_INSTANCES}): the file \
         that says so is damaged"
    )]
    TooLarge {
        /// Players of the game.
        players: usize,
        /// Instances of the game.
        instances: usize,
    },
    /// One player has no proper coalitions to draw.
    #[error(
        "one player alone has no coalitions to draw: it is worth U(everybody) - U(nobody), which the design \
         `exhaustive` evaluates"
    )]
    OnePlayer,
    /// No slices.
    #[error("the design `slices` needs at least one size, from 1 to {}", players - 1)]
    NoSlices {
        /// Players of the game.
        players: usize,
    },
    /// A size that leaves no pair.
    #[error(
        "coalitions of {size} of {players} players leave nobody on one side of the pair: sizes go from 1 to {}",
        players - 1
    )]
    Size {
        /// The size that was asked for.
        size: usize,
        /// Players of the game.
        players: usize,
    },
    /// A slice twice.
    #[error("the slice {0} is listed twice")]
    SliceTwice(usize),
    /// A range that ends before it starts.
    #[error("the range of sizes ends at {largest}, before it starts at {smallest}")]
    Range {
        /// Smallest size.
        smallest: usize,
        /// Largest size.
        largest: usize,
    },
    /// Enumeration is out of reach.
    #[error(
        "all coalitions of {players} players are 2^{players} = {:.3e} evaluations of each instance; at most \
         {MOST_ENUMERATED} players are enumerated: draw samples instead, or let fewer players play",
        (*players as f64).exp2()
    )]
    TooManyPlayers {
        /// Players of the game.
        players: usize,
    },
    /// A text that names no design.
    #[error(
        "`{0}` is no design: write `slices 11,22,33,45`, `range 11-79`, `all-sizes`, `kernel-sizes`, `halves`, \
         `permutations`, `antithetic-permutations`, `leave-one-out` or `exhaustive`"
    )]
    Unknown(String),
    /// A sample of no instances, or of more than there are.
    #[error("a sample evaluates 1 to {instances} instances, not {asked}")]
    InstancesPerSample {
        /// Instances of a sample.
        asked: usize,
        /// Instances of the game.
        instances: usize,
    },
}

impl Design {
    /// The slices of CoKV's authors (32, 64, 96 and 128 of 256 heads) for any number of players: n/8, n/4, 3n/8, n/2.
    pub fn authors(players: usize) -> Self {
        let mut sizes: Vec<usize> = (1..=4).map(|eighths| (eighths * players / 8).max(1)).collect();
        sizes.dedup();
        Self::Slices { sizes }
    }

    /// Sizes from n/8 to 7n/8. A pair of size s says 4 s (n - s) / n^2 about a linear effect, so that the extreme
    /// sizes, which say little, are left out; the middle alone would know only half of the Shapley value's sizes.
    pub fn middle(players: usize) -> Self {
        Self::Range { smallest: (players / 8).max(1), largest: players - (players / 8).max(1).min(players) }
    }

    /// Whether the design can sample a game of so many players.
    pub fn check(&self, players: usize) -> Result<(), DesignError> {
        let size = |size: usize| {
            if size == 0 || size >= players { Err(DesignError::Size { size, players }) } else { Ok(()) }
        };
        match (self, players) {
            (_, 0) => Err(DesignError::NothingToPlay { players, instances: 1 }),
            (Self::LeaveOneOut, _) => Ok(()),
            (Self::Exhaustive, players) if players > MOST_ENUMERATED => Err(DesignError::TooManyPlayers { players }),
            (Self::Exhaustive, _) => Ok(()),
            (_, 1) => Err(DesignError::OnePlayer),
            (Self::Slices { sizes }, _) => {
                if sizes.is_empty() {
                    return Err(DesignError::NoSlices { players });
                }
                for (place, &slice) in sizes.iter().enumerate() {
                    size(slice)?;
                    if sizes[..place].contains(&slice) {
                        return Err(DesignError::SliceTwice(slice));
                    }
                }
                Ok(())
            }
            (&Self::Range { smallest, largest }, _) => {
                size(smallest)?;
                size(largest)?;
                if largest < smallest { Err(DesignError::Range { smallest, largest }) } else { Ok(()) }
            }
            (
                Self::AllSizes
                | Self::KernelSizes
                | Self::KernelWithoutReplacement
                | Self::Halves
                | Self::Permutations { .. },
                _,
            ) => Ok(()),
        }
    }

    /// Number of samples of a finite design; none where sampling never ends.
    pub fn samples(&self, players: usize) -> Option<u64> {
        match self {
            Self::LeaveOneOut => Some(players as u64),
            Self::Exhaustive => Some(1u64.checked_shl(players.saturating_sub(1) as u32).unwrap_or(u64::MAX)),
            _ => None,
        }
    }

    /// Whether every sample is a coalition and its complement.
    pub fn is_paired(&self) -> bool {
        !matches!(self, Self::Permutations { .. } | Self::LeaveOneOut)
    }

    /// The name that the design has in a log and in a configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slices { .. } => "slices",
            Self::Range { .. } => "range",
            Self::AllSizes => "all-sizes",
            Self::KernelSizes => "kernel-sizes",
            Self::KernelWithoutReplacement => "kernel-without-replacement",
            Self::Halves => "halves",
            Self::Permutations { .. } => "permutations",
            Self::LeaveOneOut => "leave-one-out",
            Self::Exhaustive => "exhaustive",
        }
    }

    /// The sizes that a balanced design cycles over.
    pub(crate) fn balanced_sizes(&self, players: usize) -> Vec<usize> {
        match self {
            Self::Slices { sizes } => sizes.clone(),
            Self::Range { smallest, largest } => (*smallest..=*largest).collect(),
            Self::AllSizes => (1..players).collect(),
            _ => Vec::new(),
        }
    }
}

/// As configurations and the command line write it.
impl FromStr for Design {
    type Err = DesignError;

    fn from_str(text: &str) -> Result<Self, DesignError> {
        let unknown = || DesignError::Unknown(text.into());
        let size = |size: &str| size.trim().parse::<usize>().map_err(|_| unknown());
        let (name, sizes) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        Ok(match (name, sizes) {
            ("slices", sizes) => Self::Slices { sizes: sizes.split(',').map(size).collect::<Result<_, _>>()? },
            ("range", sizes) => {
                let (smallest, largest) = sizes.split_once('-').ok_or_else(unknown)?;
                Self::Range { smallest: size(smallest)?, largest: size(largest)? }
            }
            ("all-sizes", "") => Self::AllSizes,
            ("kernel-sizes", "") => Self::KernelSizes,
            ("kernel-without-replacement", "") => Self::KernelWithoutReplacement,
            ("halves", "") => Self::Halves,
            ("permutations", "") => Self::Permutations { antithetic: false },
            ("antithetic-permutations", "") => Self::Permutations { antithetic: true },
            ("leave-one-out", "") => Self::LeaveOneOut,
            ("exhaustive", "") => Self::Exhaustive,
            _ => return Err(unknown()),
        })
    }
}

impl fmt::Display for Design {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slices { sizes } => {
                let sizes: Vec<String> = sizes.iter().map(usize::to_string).collect();
                write!(f, "slices {}", sizes.join(","))
            }
            Self::Range { smallest, largest } => write!(f, "range {smallest}-{largest}"),
            Self::Permutations { antithetic: true } => f.write_str("antithetic-permutations"),
            other => f.write_str(other.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn designs_read_back_as_they_are_written() {
        for design in [
            Design::authors(90),
            Design::middle(90),
            Design::AllSizes,
            Design::KernelSizes,
            Design::KernelWithoutReplacement,
            Design::Halves,
            Design::Permutations { antithetic: false },
            Design::Permutations { antithetic: true },
            Design::LeaveOneOut,
            Design::Exhaustive,
        ] {
            assert_eq!(design.to_string().parse::<Design>().unwrap(), design);
        }
        for text in ["slices", "slices 1,x", "range 5", "range", "halves 3", "thirds", ""] {
            assert_eq!(text.parse::<Design>().unwrap_err(), DesignError::Unknown(text.into()));
        }
    }

    #[test]
    fn impossible_designs_say_why() {
        let slices = |sizes: &[usize]| Design::Slices { sizes: sizes.to_vec() };
        assert_eq!(slices(&[0]).check(8).unwrap_err(), DesignError::Size { size: 0, players: 8 });
        assert_eq!(slices(&[2, 8]).check(8).unwrap_err(), DesignError::Size { size: 8, players: 8 });
        assert_eq!(slices(&[]).check(8).unwrap_err(), DesignError::NoSlices { players: 8 });
        assert_eq!(slices(&[2, 3, 2]).check(8).unwrap_err(), DesignError::SliceTwice(2));
        let range = Design::Range { smallest: 5, largest: 4 };
        assert_eq!(range.check(8).unwrap_err(), DesignError::Range { smallest: 5, largest: 4 });
        assert_eq!(Design::AllSizes.check(0).unwrap_err(), DesignError::NothingToPlay { players: 0, instances: 1 });
        for design in [Design::middle(1), Design::authors(1), Design::Halves, Design::Permutations { antithetic: true }]
        {
            assert_eq!(design.check(1).unwrap_err(), DesignError::OnePlayer, "{design:?}");
        }
        let message = Design::Exhaustive.check(90).unwrap_err().to_string();
        assert!(message.contains("2^90 = 1.238e27 evaluations"), "{message}");
    }

    #[test]
    fn the_usual_designs_fit_any_number_of_players() {
        for players in 2..300 {
            Design::authors(players).check(players).unwrap();
            Design::middle(players).check(players).unwrap();
        }
        assert_eq!(Design::authors(256), Design::Slices { sizes: vec![32, 64, 96, 128] });
        assert_eq!(Design::authors(5), Design::Slices { sizes: vec![1, 2] });
        assert_eq!(Design::middle(90), Design::Range { smallest: 11, largest: 79 });
        assert_eq!(Design::Exhaustive.samples(12), Some(2048));
        assert_eq!(Design::LeaveOneOut.samples(12), Some(12));
        assert_eq!(Design::AllSizes.samples(12), None);
    }
}
