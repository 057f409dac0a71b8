//! Several comparisons at once.

use super::{Difference, Mark};

/// How many comparisons a table makes, and how many marks chance alone would make of them without correction.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Comparisons {
    /// Comparisons.
    pub count: usize,
    /// Marks to expect where nothing differs and nothing is corrected: one in twenty.
    pub marks_by_chance: f64,
    /// Marks without correction.
    pub marks: usize,
    /// Marks after Holm's correction.
    pub corrected_marks: usize,
}

impl Comparisons {
    /// Marks the differences that stand among each other by Holm's step-down procedure (1979): in a table in which nothing
    /// differs, one is marked in at most one table of twenty.
    ///
    /// Holm's and not the procedure of Benjamini and Hochberg (1995): every mark is read as a claim of its own, and Holm's
    /// holds however comparisons depend on one another. Those of a table share their records, and their methods pairwise.
    pub fn correct<'a>(differences: impl IntoIterator<Item = &'a mut Difference>) -> Self {
        let mut all: Vec<&mut Difference> = differences.into_iter().collect();
        all.sort_by(|a, b| a.p.total_cmp(&b.p));
        let count = all.len();
        let mut stands = true;
        let (mut marks, mut corrected_marks) = (0, 0);
        for (place, difference) in all.into_iter().enumerate() {
            stands &= difference.p <= 0.05 / (count - place) as f64;
            if difference.excludes_zero() {
                difference.mark = if stands { Mark::Corrected } else { Mark::Alone };
                marks += 1;
                corrected_marks += usize::from(stands);
            }
        }
        Self { count, marks_by_chance: 0.05 * count as f64, marks, corrected_marks }
    }
}

/// What the marks of a table mean, and how many there are.
impl std::fmt::Display for Comparisons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, marks_by_chance, marks, corrected_marks } = self;
        write!(
            f,
            "{count} comparison{s}: {corrected_marks} marked ▲ or ▼ (Holm's correction for all {count}), {} more marked △ or ▽ \
             (zero outside of their own interval only; of {count}, chance alone makes {marks_by_chance:.1} such marks)",
            marks - corrected_marks,
            s = if *count == 1 { "" } else { "s" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Cluster;
    use super::*;

    #[test]
    fn holm_stops_at_the_first_that_does_not_stand() {
        let with = |p: f64| {
            let groups = [(0..20).map(|place| Cluster::alone(1.0 + f64::from(place % 3))).collect()];
            Difference { p, ..Difference::of_groups(&groups).unwrap() }
        };
        // 0.05/4, 0.05/3, 0.05/2, 0.05: the third fails, and the fourth with it.
        let mut all = [0.03, 0.01, 0.049, 0.016].map(with);
        let found = Comparisons::correct(&mut all);
        let marks = all.map(|difference| difference.mark);
        assert_eq!(marks, [Mark::Alone, Mark::Corrected, Mark::Alone, Mark::Corrected]);
        assert_eq!((found.count, found.marks, found.corrected_marks), (4, 4, 2));
        assert!(found.to_string().contains("chance alone makes 0.2"), "{found}");
    }
}
