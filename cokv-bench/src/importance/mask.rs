//! What is lost when the heads that some scores call strong, or weak, see only the end of the prompt (CoKV,
//! arXiv 2502.17501, the experiments on masked heads).

mod settings;

use cokv_core::random::mix;
use cokv_core::{Coalition, Game, GameError, Query};
use cokv_shapley::statistics::mean;

pub use self::settings::{MaskConfig, MaskSettings};
use crate::chart::Series;
use crate::scores::statistics::descending;

/// Heads in the order in which they are masked, with a name for tables.
pub struct MaskOrder {
    /// Name of the curve that the order is part of; orders of the same name are averaged.
    pub name: String,
    /// Flat indices, first masked first.
    pub heads: Vec<usize>,
}

/// Utility by the number of masked heads.
#[derive(Clone, Debug, PartialEq)]
pub struct MaskCurve {
    /// Name of its orders.
    pub name: String,
    /// Masked heads and the mean utility over records and orders.
    pub points: Vec<(usize, f64)>,
}

impl MaskOrder {
    /// The highest scores first, and the lowest first; the lower index among equals.
    pub fn of_scores(name: &str, scores: &[f64]) -> [Self; 2] {
        let highest = descending(scores);
        let lowest = descending(&scores.iter().map(|score| -score).collect::<Vec<_>>());
        [(format!("{name}, highest first"), highest), (format!("{name}, lowest first"), lowest)]
            .map(|(name, heads)| Self { name, heads })
    }

    /// Orders that know nothing.
    pub fn random(heads: usize, orders: usize, seed: u64) -> Vec<Self> {
        let order = |order: usize| {
            let scores: Vec<f64> =
                (0..heads).map(|head| mix(seed ^ mix((order * heads + head) as u64)) as f64).collect();
            Self { name: "random".into(), heads: descending(&scores) }
        };
        (0..orders).map(order).collect()
    }

    fn coalition(&self, masked: usize) -> Coalition {
        Coalition::from_members(self.heads.len(), self.heads.iter().copied().skip(masked))
    }
}

impl MaskCurve {
    /// As a line of a chart.
    pub fn series(&self) -> Series {
        let points = self.points.iter().map(|&(masked, utility)| (masked as f64, utility)).collect();
        Series { name: self.name.clone(), points, ..Series::default() }
    }
}

/// Plays all orders at all counts on all records. `done` hears the number of records played.
pub fn mask(
    game: &mut dyn Game,
    orders: &[MaskOrder],
    counts: &[usize],
    mut done: impl FnMut(usize),
) -> Result<Vec<MaskCurve>, GameError> {
    let coalitions: Vec<Coalition> =
        orders.iter().flat_map(|order| counts.iter().map(|&masked| order.coalition(masked))).collect();
    let mut utilities = vec![Vec::new(); coalitions.len()];
    for instance in 0..game.instances() {
        let queries: Vec<Query<'_>> = coalitions.iter().map(|coalition| Query { coalition, instance }).collect();
        let mut answers = vec![0.0; queries.len()];
        game.evaluate(&queries, &mut answers)?;
        utilities.iter_mut().zip(answers).for_each(|(utilities, utility)| utilities.push(utility));
        done(instance + 1);
    }
    let mut names: Vec<&str> = Vec::new();
    orders.iter().for_each(|order| {
        if !names.contains(&order.name.as_str()) {
            names.push(&order.name);
        }
    });
    let curve = |name: &str| {
        let places: Vec<usize> = (0..orders.len()).filter(|&place| orders[place].name == name).collect();
        let point = |at: usize| {
            let all: Vec<f64> = places.iter().flat_map(|place| utilities[place * counts.len() + at].clone()).collect();
            (counts[at], mean(&all))
        };
        MaskCurve { name: name.into(), points: (0..counts.len()).map(point).collect() }
    };
    Ok(names.into_iter().map(curve).collect())
}

#[cfg(test)]
mod tests {
    use cokv_shapley::games::Additive;

    use super::*;

    #[test]
    fn masking_the_strong_costs_more_than_masking_the_weak() {
        let weights = vec![4.0, 1.0, 3.0, 2.0];
        let mut orders: Vec<MaskOrder> = MaskOrder::of_scores("true", &weights).into();
        orders.extend(MaskOrder::random(4, 3, 1));
        let curves = mask(&mut Additive::new(weights), &orders, &[0, 1, 2, 4], |_| ()).unwrap();
        let utilities = |at: usize| curves[at].points.iter().map(|point| point.1).collect::<Vec<_>>();
        assert_eq!(curves.len(), 3);
        assert_eq!(utilities(0), [1.0, 0.6, 0.3, 0.0]);
        assert_eq!(utilities(1), [1.0, 0.9, 0.7, 0.0]);
        assert_eq!((curves[2].name.as_str(), utilities(2)[0], utilities(2)[3]), ("random", 1.0, 0.0));
    }
}
