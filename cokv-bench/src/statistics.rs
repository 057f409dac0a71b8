//! How sure a mean is.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The mean of the groups' means.
    pub mean: f64,
    /// 2.5 % of resamples are below.
    pub low: f64,
    /// 2.5 % of resamples are above.
    pub high: f64,
}

/// Resamples of an interval: its ends are then known to about a twentieth of its width.
const RESAMPLES: usize = 2000;

impl Estimate {
    /// The mean of groups that weigh the same whatever their size, such as tasks, with the percentile bootstrap's interval
    /// (Efron 1979): members are drawn again within each group, because other records of the same tasks might have been
    /// asked. Differences of pairs make it the paired bootstrap. None where there is no member; groups without members do
    /// not count.
    ///
    /// The same numbers give the same interval: resamples are drawn with a fixed seed.
    pub fn of_groups(groups: &[Vec<f64>]) -> Option<Self> {
        let groups: Vec<&Vec<f64>> = groups.iter().filter(|group| !group.is_empty()).collect();
        if groups.is_empty() {
            return None;
        }
        let mean_of = |draw: &mut dyn FnMut(&[f64]) -> f64| {
            groups.iter().map(|group| draw(group)).sum::<f64>() / groups.len() as f64
        };
        let mean = mean_of(&mut |group| group.iter().sum::<f64>() / group.len() as f64);
        let mut random = Pcg64::seed_from_u64(0);
        let mut resampled: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                mean_of(&mut |group| {
                    let drawn = (0..group.len()).map(|_| group[random.random_range(0..group.len())]);
                    drawn.sum::<f64>() / group.len() as f64
                })
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let at = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize];
        Some(Self { mean, low: at(0.025), high: at(0.975) })
    }

    /// Whether zero is outside of the interval: a difference that is more than chance, at 95 %.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }

    /// In another unit.
    pub fn times(self, factor: f64) -> Self {
        Self { mean: self.mean * factor, low: self.low * factor, high: self.high * factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_weigh_the_same_whatever_their_size() {
        let estimate = Estimate::of_groups(&[vec![1.0; 9], vec![0.0], vec![]]).unwrap();
        assert_eq!(estimate, Estimate { mean: 0.5, low: 0.5, high: 0.5 });
        assert_eq!(Estimate::of_groups(&[vec![], vec![]]), None);
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_where_there_are_many() {
        // 400 values of standard deviation 0.5: the mean's is 0.025.
        let values: Vec<f64> = (0..400).map(|place| f64::from(place % 2)).collect();
        let Estimate { mean, low, high } = Estimate::of_groups(&[values]).unwrap();
        assert_eq!(mean, 0.5);
        assert!(
            (low - (0.5 - 1.96 * 0.025)).abs() < 0.005 && (high - (0.5 + 1.96 * 0.025)).abs() < 0.005,
            "{low} {high}"
        );
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        let sure: Vec<f64> = (0..30).map(|place| 1.0 + f64::from(place % 3)).collect();
        assert!(Estimate::of_groups(std::slice::from_ref(&sure)).unwrap().excludes_zero());
        let unsure: Vec<f64> = (0..30).map(|place| f64::from(place % 3) - 1.0).collect();
        assert!(!Estimate::of_groups(&[unsure]).unwrap().excludes_zero());
    }
}
