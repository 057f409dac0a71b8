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
    /// Members of all groups.
    pub members: usize,
}

/// Fewer members than this cannot be told from chance at 95 %: of five signs, all are equal by chance once in sixteen.
const FEWEST: usize = 6;

/// Resamples of an interval: its ends are then known to about a twentieth of its width.
const RESAMPLES: usize = 2000;

/// The mean of groups that weigh the same whatever their size; groups without members do not count. None where there is no
/// member.
pub fn mean_of_groups<G: AsRef<[f64]>>(groups: &[G]) -> Option<f64> {
    let members = groups.iter().map(AsRef::as_ref).filter(|group| !group.is_empty());
    let means: Vec<f64> = members.map(average).collect();
    (!means.is_empty()).then(|| average(&means))
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

impl Estimate {
    /// The mean of groups that weigh the same whatever their size, such as tasks, with the percentile bootstrap's interval
    /// (Efron 1979): members are drawn again within each group, because other records of the same tasks might have been
    /// asked. Differences of pairs make it the paired bootstrap. None where there is no member; groups without members do
    /// not count.
    ///
    /// Of n members n - 1 are drawn, which makes the interval as wide as it should be where groups are small (McCarthy and
    /// Snowden 1985). Groups of one, which say nothing of their spread, are drawn from one another, and a lone one spreads as
    /// the members of the other groups do; where there is one member in all, the ends are NaN.
    ///
    /// The same numbers give the same interval: resamples are drawn with a fixed seed.
    pub fn of_groups(groups: &[Vec<f64>]) -> Option<Self> {
        let groups: Vec<&[f64]> = groups.iter().map(Vec::as_slice).filter(|group| !group.is_empty()).collect();
        let mean = mean_of_groups(&groups)?;
        let members = groups.iter().map(|group| group.len()).sum();
        let (singles, groups): (Vec<&[f64]>, Vec<&[f64]>) = groups.into_iter().partition(|group| group.len() == 1);
        let singles = singles.concat();
        if groups.is_empty() && singles.len() == 1 {
            return Some(Self { mean, low: f64::NAN, high: f64::NAN, members });
        }
        let mut random = Pcg64::seed_from_u64(0);
        let mut drawn = |members: &[f64], count: usize| {
            let sum: f64 = (0..count).map(|_| members[random.random_range(0..members.len())]).sum();
            sum / count as f64
        };
        let from_mean = |group: &&[f64]| {
            let mean = average(group);
            group.iter().map(|member| member - mean).collect::<Vec<_>>()
        };
        let deviations = groups.iter().map(from_mean).collect::<Vec<_>>().concat();
        let weight = (groups.len() + singles.len()) as f64;
        let mut resampled: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let of_groups: f64 = groups.iter().map(|group| drawn(group, group.len() - 1)).sum();
                let of_singles = match singles.len() {
                    0 => 0.0,
                    1 => singles[0] + drawn(&deviations, 1),
                    count => drawn(&singles, (count - 1).max(1)) * count as f64,
                };
                (of_groups + of_singles) / weight
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let at = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize];
        Some(Self { mean, low: at(0.025), high: at(0.975), members })
    }

    /// Whether a difference is more than chance, at 95 %: zero is outside of the interval, and there are enough members for
    /// that to say something.
    pub fn excludes_zero(&self) -> bool {
        self.members >= FEWEST && (self.low > 0.0 || self.high < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_weigh_the_same_whatever_their_size() {
        let estimate = Estimate::of_groups(&[vec![1.0; 9], vec![0.0; 2], vec![]]).unwrap();
        assert_eq!(estimate, Estimate { mean: 0.5, low: 0.5, high: 0.5, members: 11 });
        assert_eq!(Estimate::of_groups(&[vec![], vec![]]), None);
        assert_eq!(mean_of_groups(&[vec![1.0; 9], vec![0.0; 2], vec![]]), Some(0.5));
        assert_eq!(mean_of_groups(&[vec![], vec![]]), None);
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_where_there_are_many() {
        // 400 values of standard deviation 0.5: the mean's is 0.025.
        let values: Vec<f64> = (0..400).map(|place| f64::from(place % 2)).collect();
        let Estimate { mean, low, high, .. } = Estimate::of_groups(&[values]).unwrap();
        assert_eq!(mean, 0.5);
        assert!(
            (low - (0.5 - 1.96 * 0.025)).abs() < 0.005 && (high - (0.5 + 1.96 * 0.025)).abs() < 0.005,
            "{low} {high}"
        );
    }

    #[test]
    fn small_groups_are_not_taken_for_sure() {
        // Pairs of 0 and 1 have a standard deviation of 0.71; the mean of 100 pairs one of 0.05.
        let Estimate { low, high, .. } = Estimate::of_groups(&vec![vec![0.0, 1.0]; 100]).unwrap();
        assert!((low - 0.4).abs() < 0.015 && (high - 0.6).abs() < 0.015, "{low} {high}");
        // So does that of 200 groups of one, which are told apart from nothing but one another.
        let singles: Vec<Vec<f64>> = (0..200).map(|place| vec![f64::from(place % 2)]).collect();
        let Estimate { low, high, .. } = Estimate::of_groups(&singles).unwrap();
        assert!((low - 0.43).abs() < 0.015 && (high - 0.57).abs() < 0.015, "{low} {high}");
        // A lone one is as unsure as the others are.
        let Estimate { low, high, .. } = Estimate::of_groups(&[vec![0.0, 1.0, 0.0, 1.0], vec![5.0]]).unwrap();
        assert!(high - low > 0.5, "{low} {high}");
        let few = Estimate::of_groups(&[vec![1.0, 2.0]]).unwrap();
        assert!(few.low > 0.0 && !few.excludes_zero());
        let one = Estimate::of_groups(&[vec![1.0]]).unwrap();
        assert!(one.mean == 1.0 && one.low.is_nan() && !one.excludes_zero());
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        let sure: Vec<f64> = (0..30).map(|place| 1.0 + f64::from(place % 3)).collect();
        assert!(Estimate::of_groups(std::slice::from_ref(&sure)).unwrap().excludes_zero());
        let unsure: Vec<f64> = (0..30).map(|place| f64::from(place % 3) - 1.0).collect();
        assert!(!Estimate::of_groups(&[unsure]).unwrap().excludes_zero());
    }
}
