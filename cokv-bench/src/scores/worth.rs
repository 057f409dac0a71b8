//! How well head scores are known.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Scores of less reliability are noise for the most part.
const LEAST_RELIABILITY: f64 = 0.5;

/// Scores whose two halves give more than this share of the tokens to different heads make plans of chance.
const MOST_APART: f64 = 0.4;

/// What is known of head scores beside their values, as tables show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeadScoresWorth {
    /// Estimated squared correlation with the true values, in `[0, 1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability: Option<f64>,
    /// Records that they were made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub records: Option<usize>,
    /// Times that a utility was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<usize>,
    /// Share of all tokens that goes to other heads by one half of the samples than by the other, in `[0, 1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halves_apart: Option<f64>,
    /// As `reliability`, among all heads but the five strongest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reliability_of_others: Option<f64>,
    /// Why nothing should be concluded from a method that uses them, where that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unworthy: Option<String>,
}

/// Heads that are dropped by scores of less reliability among the weak are dropped by chance for the most part.
const LEAST_TO_DROP: f64 = 0.6;

impl HeadScoresWorth {
    /// What to tell a user whose allocator leaves the lowest heads with nothing; none where the scores know them.
    pub fn of_dropping(&self, drop_lowest: usize) -> Option<String> {
        let others = self.reliability_of_others.filter(|others| drop_lowest > 0 && *others < LEAST_TO_DROP)?;
        Some(format!(
            "drop_lowest = {drop_lowest} rests on noise: without the five strongest heads the scores' reliability is {others:.2}, \
             below {LEAST_TO_DROP}. Measure more, or take drop_lowest = 0"
        ))
    }

    /// The same, judged. Published scores say nothing of their worth, and are taken as they are.
    pub(super) fn judged(self) -> Self {
        Self { unworthy: unworthy(self.reliability, self.halves_apart), ..self }
    }
}

impl fmt::Display for HeadScoresWorth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = [
            self.reliability.map(|reliability| format!("reliability {reliability:.2}")),
            self.records.map(|records| format!("{records} records")),
            self.evaluations.map(|evaluations| format!("{evaluations} evaluations")),
            self.halves_apart.map(|share| format!("budgets of two halves {:.0} % apart", 100.0 * share)),
            self.unworthy.as_ref().map(|reason| format!("noise: {reason}")),
        ];
        f.write_str(&facts.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

fn unworthy(reliability: Option<f64>, halves_apart: Option<f64>) -> Option<String> {
    let unreliable = reliability.filter(|reliability| *reliability < LEAST_RELIABILITY);
    let unstable = halves_apart.filter(|apart| *apart > MOST_APART);
    let unreliable = unreliable.map(|value| format!("their reliability is {value:.2}, below {LEAST_RELIABILITY}"));
    let unstable = || {
        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let moved = percent(unstable?);
        Some(format!(
            "two halves of their samples give {moved} of all tokens to other heads, more than {}",
            percent(MOST_APART)
        ))
    };
    unreliable.or_else(unstable)
}

#[cfg(test)]
mod tests {
    use super::{HeadScoresWorth, unworthy};

    #[test]
    fn dropping_heads_needs_to_know_them() {
        let worth = |others| HeadScoresWorth { reliability_of_others: others, ..HeadScoresWorth::default() };
        assert!(worth(Some(0.46)).of_dropping(20).unwrap().contains("drop_lowest = 20 rests on noise"));
        assert_eq!(worth(Some(0.46)).of_dropping(0), None);
        assert_eq!(worth(Some(0.7)).of_dropping(20), None);
        assert_eq!(worth(None).of_dropping(20), None);
    }

    #[test]
    fn noise_is_told_from_scores() {
        assert_eq!(unworthy(Some(0.92), Some(0.25)), None);
        assert_eq!(unworthy(None, None), None);
        assert_eq!(unworthy(Some(0.04), Some(0.1)).unwrap(), "their reliability is 0.04, below 0.5");
        assert!(unworthy(Some(0.92), Some(0.45)).unwrap().contains("give 45 % of all tokens to other heads"));
    }
}
