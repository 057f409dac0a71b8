//! How far the mean of groups may be from the true one.

use statrs::distribution::{ContinuousCDF, StudentsT};

use super::cluster::{Cluster, average, mean_of_groups};

/// The mean of groups that weigh the same, with what is known of its error.
pub struct Spread {
    /// The mean of the groups' means.
    pub mean: f64,
    /// Its standard error; NaN where one cluster is all there is.
    error: f64,
    /// Degrees of freedom of that (Satterthwaite 1946, Welch 1947).
    freedom: f64,
    /// Where skewness moves the ends of an interval.
    shift: f64,
    /// Clusters of all groups.
    pub members: usize,
    /// Those that are not zero.
    pub informative: usize,
    /// As many informative clusters of one group would be as sure: few in the groups that differ most are not made up for by
    /// many in the others.
    pub effective: f64,
}

/// Johnson's shift at 95 %, taken twice.
const SHIFT: f64 = 2.0 * (2.0 * 1.96 * 1.96 + 1.0) / 6.0;

/// Parts of the variance and of the third moment of the mean, from groups of two clusters or more.
#[derive(Default)]
struct Moments {
    variance: f64,
    third: f64,
    /// Sum of squared variances over degrees of freedom.
    freedom: f64,
    /// Sum of squared variances over informative clusters.
    informative: f64,
    /// Sums of the second moments of groups, and of their squares over informative clusters.
    second: [f64; 2],
}

impl Moments {
    /// Takes in the parts that a group's clusters have in the error of the mean, which are zero on average.
    fn add(&mut self, parts: &[f64], informative: usize) {
        let count = parts.len() as f64;
        let sum = |power: i32| parts.iter().map(|part| part.powi(power)).sum::<f64>();
        self.add_variance(count / (count - 1.0) * sum(2), count - 1.0, informative);
        if count > 2.0 {
            self.third += count * count / ((count - 1.0) * (count - 2.0)) * sum(3);
        }
    }

    /// Takes in what a group's clusters have in the mean.
    fn add_second(&mut self, weight: f64, clusters: &[Cluster]) {
        let size = clusters.iter().map(|cluster| cluster.size).sum::<usize>() as f64;
        let second: f64 = clusters.iter().map(|cluster| (weight * cluster.sum / size).powi(2)).sum();
        if second > 0.0 {
            self.second[0] += second;
            self.second[1] += second * second / count_informative(clusters).max(1) as f64;
        }
    }

    /// Informative clusters of one group that would be as sure, by what groups spread, or by how far they are from zero:
    /// a group in which all differ alike has no spread, and says most.
    fn effective(&self, informative: usize) -> f64 {
        let effective = |sum: f64, squares: f64| if squares > 0.0 { sum * sum / squares } else { 0.0 };
        let [sum, squares] = self.second;
        effective(self.variance, self.informative).max(effective(sum, squares)).min(informative as f64)
    }

    fn add_variance(&mut self, variance: f64, freedom: f64, informative: usize) {
        self.variance += variance;
        self.freedom += variance * variance / freedom;
        if informative > 0 {
            self.informative += variance * variance / informative as f64;
        }
    }
}

impl Spread {
    /// None where there is no member; groups without members do not count.
    pub fn of(groups: &[Vec<Cluster>]) -> Option<Self> {
        let mean = mean_of_groups(groups)?;
        let groups: Vec<&[Cluster]> = groups.iter().map(Vec::as_slice).filter(|group| !group.is_empty()).collect();
        let weight = 1.0 / groups.len() as f64;
        let (singles, several): (Vec<&[Cluster]>, Vec<&[Cluster]>) =
            groups.iter().copied().partition(|group| group.len() == 1);
        let all = groups.concat();
        let informative = count_informative(&all);
        let mut moments = Moments::default();
        for group in &several {
            moments.add(&parts(group, weight), count_informative(group));
            moments.add_second(weight, group);
        }
        match singles.len() {
            0 => {}
            1 if several.is_empty() => moments.variance = f64::NAN,
            1 => {
                moments.add_second(weight, singles[0]);
                let (variance, freedom) = of_one_cluster(&several);
                moments.add_variance(weight * weight * variance, freedom, count_informative(&all));
            }
            count => {
                // Groups weigh the same, so that a cluster which is all of one counts as one member.
                let singles: Vec<Cluster> = singles.iter().map(|single| Cluster::alone(average(single))).collect();
                moments.add(&parts(&singles, weight * count as f64), count_informative(&singles));
                moments.add_second(weight * count as f64, &singles);
            }
        }
        let Moments { variance, third, .. } = moments;
        Some(Self {
            mean,
            error: variance.sqrt(),
            freedom: if moments.freedom > 0.0 { variance * variance / moments.freedom } else { 1.0 },
            shift: if variance > 0.0 { SHIFT * third / variance } else { 0.0 },
            members: all.len(),
            informative,
            effective: moments.effective(informative),
        })
    }

    /// The 95 % interval; NaN where one cluster is all there is.
    pub fn interval(&self) -> (f64, f64) {
        if self.error == 0.0 {
            return (self.mean, self.mean);
        }
        let reach = self.student().map_or(f64::NAN, |student| student.inverse_cdf(0.975)) * self.error;
        (self.mean - reach + self.shift.min(0.0), self.mean + reach + self.shift.max(0.0))
    }

    /// How probable it is that a mean is as far from zero where the true one is zero, on either side. It is below 5 % where
    /// [`interval`](Self::interval) excludes zero.
    pub fn p(&self) -> f64 {
        if self.error == 0.0 {
            return if self.mean == 0.0 { 1.0 } else { 0.0 };
        }
        let shift = if self.mean > 0.0 { self.shift.min(0.0) } else { self.shift.max(0.0) };
        let distance = (self.mean + shift) * self.mean.signum() / self.error;
        self.student().map_or(1.0, |student| (2.0 * student.sf(distance)).min(1.0))
    }

    /// None where nothing is known of the error.
    fn student(&self) -> Option<StudentsT> {
        self.error.is_finite().then(|| StudentsT::new(0.0, 1.0, self.freedom).ok()).flatten()
    }
}

fn count_informative(clusters: &[Cluster]) -> usize {
    clusters.iter().filter(|cluster| cluster.is_informative()).count()
}

/// What each cluster of a group adds to the error of a mean in which the group has a weight. What is only a rounding error
/// is nothing: equal numbers do not spread.
fn parts(clusters: &[Cluster], weight: f64) -> Vec<f64> {
    let mean = average(clusters);
    let size: usize = clusters.iter().map(|cluster| cluster.size).sum();
    let part = |cluster: &Cluster| {
        let part = cluster.sum - mean * cluster.size as f64;
        if part.abs() <= 1e-12 * cluster.sum.abs() { 0.0 } else { weight * part / size as f64 }
    };
    clusters.iter().map(part).collect()
}

/// Variance of one cluster's mean, and its degrees of freedom, from groups of several.
fn of_one_cluster(groups: &[&[Cluster]]) -> (f64, f64) {
    let freedom = groups.iter().map(|group| group.len() - 1).sum::<usize>() as f64;
    let squares = groups.iter().map(|group| {
        let members: Vec<Cluster> =
            group.iter().map(|cluster| Cluster::alone(cluster.sum / cluster.size as f64)).collect();
        // Parts are a count'th of deviations.
        parts(&members, members.len() as f64).iter().map(|part| part * part).sum::<f64>()
    });
    (squares.sum::<f64>() / freedom, freedom)
}
