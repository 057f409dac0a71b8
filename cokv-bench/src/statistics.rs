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
    /// Clusters of all groups: members that are drawn together count once.
    pub members: usize,
}

/// Members of a group that are drawn together, because they ask the same: one alone, or the places of one needle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    sum: f64,
    size: usize,
}

impl Cluster {
    /// A member on its own.
    pub fn alone(value: f64) -> Self {
        Self { sum: value, size: 1 }
    }

    /// Takes in a member.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.size += 1;
    }

    fn mean(self) -> f64 {
        self.sum / self.size as f64
    }
}

/// Fewer clusters than this cannot be told from chance at 95 %: of five signs, all are equal by chance once in sixteen.
pub const FEWEST: usize = 6;

/// Resamples of an interval: its ends are then known to about a twentieth of its width.
const RESAMPLES: usize = 2000;

/// The mean of groups that weigh the same whatever their size; groups without members do not count. None where there is no
/// member.
pub fn mean_of_groups(groups: &[Vec<Cluster>]) -> Option<f64> {
    let means: Vec<f64> = groups.iter().filter(|group| !group.is_empty()).map(|group| average(group)).collect();
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
}

/// The mean over members: a cluster weighs as many as it has.
fn average(clusters: &[Cluster]) -> f64 {
    mean_over(clusters.iter().copied())
}

fn mean_over(clusters: impl Iterator<Item = Cluster>) -> f64 {
    let mut size = 0;
    let sum: f64 = clusters.inspect(|cluster| size += cluster.size).map(|cluster| cluster.sum).sum();
    sum / size as f64
}

impl Estimate {
    /// The mean of groups that weigh the same whatever their size, such as tasks, with the percentile bootstrap's interval
    /// (Efron 1979): clusters are drawn again within each group, because other records of the same tasks might have been
    /// asked. Differences of pairs make it the paired bootstrap. None where there is no member; groups without members do
    /// not count.
    ///
    /// Of n clusters n - 1 are drawn, which makes the interval as wide as it should be where groups are small (McCarthy and
    /// Snowden 1985). Groups of one, which say nothing of their spread, are drawn from one another, and a lone one spreads as
    /// the clusters of the other groups do; where there is one cluster in all, the ends are NaN.
    ///
    /// The same numbers give the same interval: resamples are drawn with a fixed seed.
    pub fn of_groups(groups: &[Vec<Cluster>]) -> Option<Self> {
        let mean = mean_of_groups(groups)?;
        let groups = groups.iter().map(Vec::as_slice).filter(|group| !group.is_empty());
        let (singles, groups): (Vec<&[Cluster]>, Vec<&[Cluster]>) = groups.partition(|group| group.len() == 1);
        let members = singles.len() + groups.iter().map(|group| group.len()).sum::<usize>();
        // Groups weigh the same, so that a cluster which is all of one counts as one member.
        let alone = |cluster: &Cluster| Cluster::alone(cluster.mean());
        let singles: Vec<Cluster> = singles.concat().iter().map(alone).collect();
        if groups.is_empty() && singles.len() == 1 {
            return Some(Self { mean, low: f64::NAN, high: f64::NAN, members });
        }
        let mut random = Pcg64::seed_from_u64(0);
        let mut drawn = |clusters: &[Cluster], count: usize| {
            mean_over((0..count).map(|_| clusters[random.random_range(0..clusters.len())]))
        };
        let from_mean = |group: &&[Cluster]| {
            let mean = average(group);
            group.iter().map(|cluster| Cluster::alone(cluster.mean() - mean)).collect::<Vec<_>>()
        };
        let deviations = groups.iter().map(from_mean).collect::<Vec<_>>().concat();
        let weight = (groups.len() + singles.len()) as f64;
        let mut resampled: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let of_groups: f64 = groups.iter().map(|group| drawn(group, group.len() - 1)).sum();
                let of_singles = match singles.len() {
                    0 => 0.0,
                    1 => singles[0].mean() + drawn(&deviations, 1),
                    count => drawn(&singles, (count - 1).max(1)) * count as f64,
                };
                (of_groups + of_singles) / weight
            })
            .collect();
        resampled.sort_by(f64::total_cmp);
        let at = |share: f64| resampled[(share * (RESAMPLES - 1) as f64).round() as usize];
        Some(Self { mean, low: at(0.025), high: at(0.975), members })
    }

    /// Whether a difference is more than chance, at 95 %: zero is outside of the interval, and there are enough clusters
    /// for that to say something.
    pub fn excludes_zero(&self) -> bool {
        self.members >= FEWEST && (self.low > 0.0 || self.high < 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Groups whose members are clusters of their own.
    fn groups(values: &[Vec<f64>]) -> Vec<Vec<Cluster>> {
        values.iter().map(|group| group.iter().map(|&value| Cluster::alone(value)).collect()).collect()
    }

    fn of_values(values: &[Vec<f64>]) -> Option<Estimate> {
        Estimate::of_groups(&groups(values))
    }

    #[test]
    fn groups_weigh_the_same_whatever_their_size() {
        let estimate = of_values(&[vec![1.0; 9], vec![0.0; 2], vec![]]).unwrap();
        assert_eq!(estimate, Estimate { mean: 0.5, low: 0.5, high: 0.5, members: 11 });
        assert_eq!(of_values(&[vec![], vec![]]), None);
        assert_eq!(mean_of_groups(&groups(&[vec![1.0; 9], vec![0.0; 2], vec![]])), Some(0.5));
        assert_eq!(mean_of_groups(&groups(&[vec![], vec![]])), None);
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_where_there_are_many() {
        // 400 values of standard deviation 0.5: the mean's is 0.025.
        let values: Vec<f64> = (0..400).map(|place| f64::from(place % 2)).collect();
        let Estimate { mean, low, high, .. } = of_values(&[values]).unwrap();
        assert_eq!(mean, 0.5);
        assert!(
            (low - (0.5 - 1.96 * 0.025)).abs() < 0.005 && (high - (0.5 + 1.96 * 0.025)).abs() < 0.005,
            "{low} {high}"
        );
    }

    #[test]
    fn small_groups_are_not_taken_for_sure() {
        // Pairs of 0 and 1 have a standard deviation of 0.71; the mean of 100 pairs one of 0.05.
        let Estimate { low, high, .. } = of_values(&vec![vec![0.0, 1.0]; 100]).unwrap();
        assert!((low - 0.4).abs() < 0.015 && (high - 0.6).abs() < 0.015, "{low} {high}");
        // So does that of 200 groups of one, which are told apart from nothing but one another.
        let singles: Vec<Vec<f64>> = (0..200).map(|place| vec![f64::from(place % 2)]).collect();
        let Estimate { low, high, .. } = of_values(&singles).unwrap();
        assert!((low - 0.43).abs() < 0.015 && (high - 0.57).abs() < 0.015, "{low} {high}");
        // A lone one is as unsure as the others are.
        let Estimate { low, high, .. } = of_values(&[vec![0.0, 1.0, 0.0, 1.0], vec![5.0]]).unwrap();
        assert!(high - low > 0.5, "{low} {high}");
        let few = of_values(&[vec![1.0, 2.0]]).unwrap();
        assert!(few.low > 0.0 && !few.excludes_zero());
        let one = of_values(&[vec![1.0]]).unwrap();
        assert!(one.mean == 1.0 && one.low.is_nan() && !one.excludes_zero());
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        let sure: Vec<f64> = (0..30).map(|place| 1.0 + f64::from(place % 3)).collect();
        assert!(of_values(std::slice::from_ref(&sure)).unwrap().excludes_zero());
        let unsure: Vec<f64> = (0..30).map(|place| f64::from(place % 3) - 1.0).collect();
        assert!(!of_values(&[unsure]).unwrap().excludes_zero());
    }

    #[test]
    fn members_of_their_own_are_drawn_as_before_there_were_clusters() {
        let value = |place: u32| f64::from(place * 37 % 11) / 7.0;
        let Estimate { low, high, .. } =
            of_values(&[(0..12).map(value).collect(), (12..17).map(value).collect(), vec![value(17)]]).unwrap();
        assert_eq!((low, high), (0.2633477633477634, 0.8737373737373737));
        let Estimate { low, high, .. } = of_values(&[vec![value(1)], vec![value(2)], vec![value(3)]]).unwrap();
        assert_eq!((low, high), (0.14285714285714285, 1.1428571428571428));
    }

    #[test]
    fn what_asks_the_same_is_drawn_together() {
        let one = |value: f64| {
            let mut cluster = Cluster::alone(value);
            (1..25).for_each(|_| cluster.add(value));
            cluster
        };
        // 25 members that all say the same are as sure as one of them.
        let values = [0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.5, 1.0];
        let together = Estimate::of_groups(&[values.map(one).to_vec()]).unwrap();
        assert_eq!(together, of_values(&[values.to_vec()]).unwrap());
        assert_eq!(together.members, 8);
        // Of clusters that differ in size, every member counts the same.
        let uneven = [one(1.0), Cluster::alone(0.0)].to_vec();
        assert_eq!(mean_of_groups(&[uneven]), Some(25.0 / 26.0));
        let few = Estimate::of_groups(&[[1.0; 5].map(one).to_vec()]).unwrap();
        assert!(few.low > 0.0 && !few.excludes_zero(), "five questions, whatever the number of places");
    }
}
