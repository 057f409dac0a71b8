//! What changes with the size of the coalition: terms of third order of the strongest players.

use crate::linear_algebra::dot;
use crate::pairs::Pair;
use crate::regression::{Posterior, Relevance, Ridge};
use crate::statistics::mean;

/// How many players are taken for the strongest. More of them are chosen where that makes the samples more probable.
const STRONGEST: [usize; 2] = [8, 12];

/// Powers of √10 that the variance of a term may be times that of effects as strong.
const VARIANCES: std::ops::RangeInclusive<i32> = -6..=2;

/// Terms of third order that few samples can tell: with T the strongest players, `x_a (c² - 1/3)` for each of T and
/// `s_a s_b c` for each two of T.
///
/// Pairs of a coalition and its complement see odd orders alone, so that behind the players' own effects the third is next
/// (paired KernelSHAP is second-order PolySHAP, arXiv 2601.18608). Of its n³/6 terms, those with two strong players hang
/// together: `Σ_i s_a s_b s_i / n` is `s_a s_b c`. Their Shapley values are known: `s_a s_b c` gives a and b a third more
/// than anybody else, and `x_a (c² - 1/3)` gives a `-2/(3n)` more.
pub(super) struct Terms {
    players: usize,
    /// Ascending.
    strongest: Vec<usize>,
}

/// Effects with what the terms add to them, and how well they explain the samples.
pub(super) struct ThirdOrder {
    /// One for each player, up to what all share.
    pub effects: Vec<f64>,
    /// Posterior standard deviations of the effects less their mean.
    pub errors: Vec<f64>,
    /// As in [`Posterior`].
    pub log_evidence: f64,
}

impl Terms {
    /// Those of the `count` players of the largest effects, of which only differences mean something.
    fn new(effects: &[f64], count: usize) -> Self {
        let center = mean(effects);
        let size = |&player: &usize| (effects[player] - center).abs();
        let mut strongest: Vec<usize> = (0..effects.len()).collect();
        strongest.sort_by(|left, right| size(right).total_cmp(&size(left)));
        strongest.truncate(count);
        strongest.sort_unstable();
        Self { players: effects.len(), strongest }
    }

    fn couples(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let strongest = &self.strongest;
        let with_later = |(place, &first): (usize, &usize)| {
            let later = strongest[place + 1..].to_vec();
            later.into_iter().map(move |second| (first, second))
        };
        strongest.iter().enumerate().flat_map(with_later)
    }

    /// What a pair of coalitions is in every term.
    fn features(&self, pair: &Pair) -> Vec<f64> {
        let size = pair.centred_size();
        let modulated = self.strongest.iter().map(|&player| (pair.sign(player) - size) * (size * size - 1.0 / 3.0));
        modulated.chain(self.couples().map(|(a, b)| pair.sign(a) * pair.sign(b) * size)).collect()
    }

    /// Prior standard deviations of players and terms: a term of strong players is as strong as they are.
    fn scales(&self, relevance: &[f64], ratio: f64) -> Vec<f64> {
        let modulated = self.strongest.iter().map(|&player| ratio * relevance[player]);
        let couples = self.couples().map(|(a, b)| ratio * relevance[a] * relevance[b]);
        relevance.iter().copied().chain(modulated).chain(couples).collect()
    }

    /// What coefficients of players and terms are worth to each player, as rows `[players, coefficients]`, up to what all
    /// players share.
    fn worth(&self) -> Vec<Vec<f64>> {
        let (players, strong) = (self.players, self.strongest.len());
        let width = players + strong + strong * strong.saturating_sub(1) / 2;
        let mut rows = vec![vec![0.0; width]; players];
        for (player, row) in rows.iter_mut().enumerate() {
            row[player] = 1.0;
        }
        for (place, &player) in self.strongest.iter().enumerate() {
            rows[player][players + place] = -2.0 / (3.0 * players as f64);
        }
        for (place, (a, b)) in self.couples().enumerate() {
            rows[a][players + strong + place] = 1.0 / 3.0;
            rows[b][players + strong + place] = 1.0 / 3.0;
        }
        rows
    }
}

/// The most probable of a few numbers of strongest players and of a few variances of their terms. Players are strong by what was
/// expected of them and what was found beyond. `regression` is that on the
/// players and on what it is told about each pair; none where that says nothing.
pub(super) fn fit(
    relevance: &Relevance,
    expected: &[f64],
    regression: impl Fn(&dyn Fn(&Pair) -> Vec<f64>) -> Ridge,
) -> Option<ThirdOrder> {
    let players = relevance.scales.len();
    let found = relevance.posterior.mean.iter().zip(expected).map(|(beyond, expected)| beyond + expected);
    let found: Vec<f64> = found.collect();
    let mut best: Option<(Terms, Ridge, Vec<f64>, Posterior)> = None;
    for count in STRONGEST {
        let terms = Terms::new(&found, count);
        let ridge = regression(&|pair| terms.features(pair));
        let of = |power: i32| {
            let scales = terms.scales(&relevance.scales, 10f64.powf(0.25 * f64::from(power)));
            ridge.fit_scaled(&scales).map(|posterior| (scales, posterior))
        };
        let (scales, posterior) = most_probable(of)?;
        if best.as_ref().is_none_or(|(.., best)| posterior.log_evidence > best.log_evidence) {
            best = Some((terms, ridge, scales, posterior));
        }
        if count >= players {
            break;
        }
    }
    let (terms, ridge, scales, posterior) = best?;
    let worth = terms.worth();
    let effects = worth.iter().map(|row| dot(row, &posterior.mean)).collect();
    let mut center = vec![0.0; scales.len()];
    for row in &worth {
        center.iter_mut().zip(row).for_each(|(sum, value)| *sum += value / players as f64);
    }
    let centred = |row: &Vec<f64>| row.iter().zip(&center).map(|(value, center)| value - center).collect();
    let errors = ridge.deviations(&posterior, &scales, worth.iter().map(centred))?;
    Some(ThirdOrder { effects, errors, log_evidence: posterior.log_evidence })
}

/// Uphill from a variance in the middle, until neither neighbour is more probable.
fn most_probable(of: impl Fn(i32) -> Option<(Vec<f64>, Posterior)>) -> Option<(Vec<f64>, Posterior)> {
    let start = -1;
    let mut best = of(start)?;
    for step in [-1, 1] {
        let mut power = start + step;
        let mut moved = false;
        while VARIANCES.contains(&power) {
            let next = of(power)?;
            if next.1.log_evidence <= best.1.log_evidence {
                break;
            }
            (best, moved) = (next, true);
            power += step;
        }
        if moved {
            break;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use cokv_core::{Coalition, Game, GameError, Query};

    use super::*;
    use crate::exact_shapley;

    /// A term as a game whose complementary contribution it is.
    struct Alone(usize);

    const PLAYERS: usize = 7;

    fn terms() -> Terms {
        Terms::new(&[0.0, 4.0, 0.1, -2.0, 0.2, 0.3, 9.0], 3)
    }

    fn pair(coalition: &Coalition) -> Pair {
        let (size, coalition) = (coalition.size(), coalition.clone());
        Pair { size, coalition, instances: vec![0], weight: 1.0, contribution: 0.0, even: 0.0 }
    }

    impl Game for Alone {
        fn players(&self) -> usize {
            PLAYERS
        }

        fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
            for (query, utility) in queries.iter().zip(utilities) {
                *utility = 0.5 * terms().features(&pair(query.coalition))[self.0];
            }
            Ok(())
        }
    }

    #[test]
    fn terms_are_worth_their_shapley_values() {
        let terms = terms();
        assert_eq!(terms.strongest, [1, 3, 6]);
        assert_eq!(terms.couples().collect::<Vec<_>>(), [(1, 3), (1, 6), (3, 6)]);
        let worth = terms.worth();
        for term in 0..6 {
            let values = exact_shapley(&mut Alone(term)).unwrap();
            let ours: Vec<f64> = worth.iter().map(|row| row[PLAYERS + term]).collect();
            for (value, ours_of_player) in values.iter().zip(&ours) {
                assert!(
                    (value - mean(&values) - ours_of_player + mean(&ours)).abs() < 1e-14,
                    "{term}: {values:?} {ours:?}"
                );
            }
        }
    }
}
