//! How sure a mean is, and whether two differ by more than chance.
//!
//! An interval is Student's, of the mean of groups that weigh the same whatever their size, such as tasks: records are
//! drawn within each, because other records of the same tasks might have been asked. Its degrees of freedom are those of
//! Satterthwaite (Biometrics Bulletin 2, 1946) and Welch (Biometrika 34, 1947). Where values are skewed, Student's errs on
//! the side of the long tail: that end is moved outwards as Johnson does (JASA 73, 1978), twice as far, because a dozen
//! values show about half of the skewness that they come from. Nothing is drawn at random.
//!
//! Chosen by simulation (`rates.rs`; the table is in docs/statistics.md): of a hundred comparisons of what does not differ
//! at most six are marked, from 4 records a task to 200, for normal, three-valued, skewed and mostly zero differences. The
//! percentile bootstrap marks up to 20 there. Flipping the signs of pairs (Fisher 1935; inverted by Hartigan's typical
//! values, JASA 64, 1969) holds as well, but takes what differs from task to task for chance.

mod cluster;
mod multiplicity;
#[cfg(test)]
mod rates;
mod spread;

use serde::Serialize;

pub use cluster::{Cluster, mean_of_groups};
pub use multiplicity::Comparisons;
use spread::Spread;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean of the groups' means.
    pub mean: f64,
    /// Lower end; NaN where one cluster is all there is.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Clusters of all groups: members that are drawn together count once.
    pub members: usize,
}

impl Estimate {
    /// The mean of groups that weigh the same whatever their size. None where there is no member; groups without members do
    /// not count.
    ///
    /// Groups of one, which say nothing of their spread, are taken for draws of one another, and a lone one spreads as the
    /// clusters of the other groups do; where there is one cluster in all, the ends are NaN.
    pub fn of_groups(groups: &[Vec<Cluster>]) -> Option<Self> {
        let spread = Spread::of(groups)?;
        let (low, high) = spread.interval();
        Some(Self { mean: spread.mean, low, high, members: spread.members })
    }

    /// The interval without what cannot be, such as scores above 100.
    pub fn within(self, (lowest, highest): (f64, f64)) -> Self {
        // NaN stays.
        Self { low: self.low.clamp(lowest, highest), high: self.high.clamp(lowest, highest), ..self }
    }
}

/// What a difference deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Zero is in the interval.
    None,
    /// Zero is outside of the interval, which stands alone: of twenty that differ by chance, one does so.
    Alone,
    /// It also stands among all comparisons of its table.
    Corrected,
}

/// The mean of paired differences with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The mean of the groups' means.
    pub mean: f64,
    /// Lower end of the interval; NaN where one cluster is all there is.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Clusters of all groups.
    pub members: usize,
    /// Those that are not zero.
    pub informative: usize,
    /// How probable a mean as far from zero is by chance, of this comparison alone.
    pub p: f64,
    /// Whether zero is outside of the interval, and whether that stands among the other comparisons.
    pub mark: Mark,
}

/// Clusters that are not zero which a mark takes: fewer can all have one sign by chance, and their skewness is not seen.
pub const FEWEST: usize = 10;

impl Difference {
    /// Of groups of differences; see [`Estimate::of_groups`].
    ///
    /// Where fewer than [`FEWEST`] clusters are not zero, or the groups that differ most have so few that the whole is no
    /// surer than fewer would be, the interval is widened until it has zero in it: no mark.
    pub fn of_groups(groups: &[Vec<Cluster>]) -> Option<Self> {
        let spread = Spread::of(groups)?;
        let (mut low, mut high) = spread.interval();
        let mut p = spread.p();
        // Of k clusters in one group the number is k but for rounding.
        if spread.effective < FEWEST as f64 - 1e-9 {
            // NaN stays.
            low = if low > 0.0 { 0.0 } else { low };
            high = if high < 0.0 { 0.0 } else { high };
            p = 1.0;
        }
        let Spread { mean, members, informative, .. } = spread;
        let mark = if low > 0.0 || high < 0.0 { Mark::Alone } else { Mark::None };
        Some(Self { mean, low, high, members, informative, p, mark })
    }

    /// Whether a difference is more than chance, at 95 %, taken alone.
    pub fn excludes_zero(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
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

    fn difference(values: &[Vec<f64>]) -> Difference {
        Difference::of_groups(&groups(values)).unwrap()
    }

    #[test]
    fn groups_weigh_the_same_whatever_their_size() {
        let estimate = of_values(&[vec![1.0; 9], vec![0.0; 2], vec![]]).unwrap();
        assert_eq!(estimate, Estimate { mean: 0.5, low: 0.5, high: 0.5, members: 11 });
        assert_eq!(of_values(&[vec![], vec![]]), None);
        assert_eq!(mean_of_groups(&groups(&[vec![1.0; 9], vec![0.0; 2], vec![]])), Some(0.5));
        assert_eq!(mean_of_groups(&groups(&[vec![], vec![]])), None);
    }

    /// Mean 3, variance of the mean 0.13, quantile 2.776445: Student's interval is 1.998939 … 4.001061.
    #[test]
    fn the_interval_is_students_moved_by_the_skewness() {
        let Estimate { mean, low, high, .. } = of_values(&[vec![2.1, 2.5, 2.9, 3.3, 4.2]]).unwrap();
        assert_eq!(mean, 3.0);
        assert!((low - 1.998939).abs() < 1e-5, "{low}");
        // Third moment of the mean 0.0208 (unbiased, over 25), variance 0.13: 2.894 × 0.16.
        let third = [-0.9, -0.5, -0.1, 0.3, 1.2].map(|d: f64| d.powi(3)).iter().sum::<f64>() * 5.0 / 12.0 / 25.0;
        let shift = 2.0 * (2.0 * 1.96 * 1.96 + 1.0) / 6.0 * third / 0.13;
        assert!(shift > 0.3 && (high - (4.001061 + shift)).abs() < 1e-5, "{high} {shift}");
    }

    /// The mean of two groups has the error and the degrees of freedom of half of their difference.
    #[test]
    fn degrees_of_freedom_are_those_of_welch_and_satterthwaite() {
        let a: Vec<f64> = [-1.0, 1.0].repeat(5);
        let b: Vec<f64> = [-4.0, 4.0].repeat(2);
        // Variances of the means: 10/9/10 = 1/9 and 64/3/4 = 16/3; of their mean a quarter of the sum, 1.3611.
        let [small, large] = [1.0f64 / 9.0, 16.0 / 3.0];
        let freedom = (small + large).powi(2) / (small * small / 9.0 + large * large / 3.0);
        assert!((freedom - 3.125).abs() < 0.01, "{freedom}");
        let Estimate { low, high, .. } = of_values(&[a, b]).unwrap();
        // Student's quantile at 97.5 % for 3.125 degrees of freedom is 3.11.
        let reach = (49.0f64 / 36.0).sqrt() * 3.111;
        assert!((high - reach).abs() < 0.01 && (low + reach).abs() < 0.01, "{low} {high} {reach}");
    }

    #[test]
    fn the_interval_is_that_of_the_normal_distribution_where_there_are_many() {
        // 400 values of standard deviation 0.5: the mean's is 0.025.
        let values: Vec<f64> = (0..400).map(|place| f64::from(place % 2)).collect();
        let Estimate { mean, low, high, .. } = of_values(&[values]).unwrap();
        assert_eq!(mean, 0.5);
        assert!(
            (low - (0.5 - 1.966 * 0.025)).abs() < 1e-3 && (high - (0.5 + 1.966 * 0.025)).abs() < 1e-3,
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
        // A lone one is as unsure as the others are: a variance of 1/3 for itself and 1/12 for their mean, over 4.
        let Estimate { low, high, .. } = of_values(&[vec![0.0, 1.0, 0.0, 1.0], vec![5.0]]).unwrap();
        assert!((1.5..2.0).contains(&(high - low)), "{low} {high}");
        let one = of_values(&[vec![1.0]]).unwrap();
        assert!(one.mean == 1.0 && one.low.is_nan());
        assert!(!difference(&[vec![1.0]]).excludes_zero());
    }

    #[test]
    fn a_difference_is_told_from_chance() {
        let sure: Vec<f64> = (0..30).map(|place| 1.0 + f64::from(place % 3)).collect();
        assert_eq!(difference(std::slice::from_ref(&sure)).mark, Mark::Alone);
        let unsure: Vec<f64> = (0..30).map(|place| f64::from(place % 3) - 1.0).collect();
        assert_eq!(difference(&[unsure]).mark, Mark::None);
        // What all records share is sure, and so is that nothing differs.
        let same = difference(&[vec![0.1; 12], vec![0.1; 7]]);
        assert_eq!((same.low, same.high, same.p), (same.mean, same.mean, 0.0));
        let none = difference(&[vec![0.0; 12]]);
        assert_eq!((none.low, none.high, none.p, none.informative), (0.0, 0.0, 1.0, 0));
    }

    /// Regression: a task in which all are equal lent its records to the count that a mark takes.
    #[test]
    fn records_that_do_not_differ_do_not_count() {
        let few: Vec<f64> = vec![3.0, 4.0, 5.0, 4.0];
        let all = difference(&[few, vec![0.0; 40]]);
        assert_eq!((all.members, all.informative, all.mark), (44, 4, Mark::None));
    }

    /// Regression: where one group says most and all of its members the same, only the others' members counted.
    #[test]
    fn a_group_without_spread_counts() {
        let few: Vec<f64> = [vec![-1.0, 1.0], vec![0.0; 10]].concat();
        let all = difference(&[vec![-100.0; 12], few]);
        assert_eq!((all.informative, all.mark), (14, Mark::Alone), "{all:?}");
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
        let alone = of_values(&[values.to_vec()]).unwrap();
        assert!((together.low - alone.low).abs() < 1e-12 && (together.high - alone.high).abs() < 1e-12);
        assert_eq!(together.members, 8);
        // Of clusters that differ in size, every member counts the same.
        let uneven = [one(1.0), Cluster::alone(0.0)].to_vec();
        assert_eq!(mean_of_groups(&[uneven]), Some(25.0 / 26.0));
        let few = Difference::of_groups(&[[1.0; 5].map(one).to_vec()]).unwrap();
        assert!(!few.excludes_zero(), "five questions, whatever the number of places");
    }
}
