//! Members that are drawn together.

/// Members of a group that ask the same and are drawn together: one alone, or the places of one needle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    pub(super) sum: f64,
    pub(super) size: usize,
    informative: bool,
}

impl Cluster {
    /// A member on its own.
    pub fn alone(value: f64) -> Self {
        Self { sum: value, size: 1, informative: value != 0.0 }
    }

    /// Takes in a member.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        self.size += 1;
        self.informative |= value != 0.0;
    }

    /// Whether a member is not zero: a difference of zero does not say which side is higher.
    pub fn is_informative(&self) -> bool {
        self.informative
    }
}

/// The mean over members: a cluster weighs as many as it has.
pub(super) fn average(clusters: &[Cluster]) -> f64 {
    let size: usize = clusters.iter().map(|cluster| cluster.size).sum();
    clusters.iter().map(|cluster| cluster.sum).sum::<f64>() / size as f64
}

/// The mean of groups that weigh the same whatever their size; groups without members do not count. None where there is no
/// member.
pub fn mean_of_groups(groups: &[Vec<Cluster>]) -> Option<f64> {
    let means: Vec<f64> = groups.iter().filter(|group| !group.is_empty()).map(|group| average(group)).collect();
    (!means.is_empty()).then(|| means.iter().sum::<f64>() / means.len() as f64)
}
