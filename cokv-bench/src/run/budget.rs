//! The budget of a cell.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use cokv_core::{Budget, BudgetError};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What a cell was run at, in files a text: the budget as configured, or `full` for a method that evicts nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellBudget(pub Option<Budget>);

/// What files and tables call the budget of a method that evicts nothing.
const FULL: &str = "full";

impl CellBudget {
    /// Whether nothing is evicted.
    pub fn is_full(self) -> bool {
        self.0.is_none()
    }

    /// Tokens of each KV head, where it was configured so.
    pub fn tokens(self) -> Option<usize> {
        match self.0 {
            Some(Budget::Tokens(tokens)) => Some(tokens),
            _ => None,
        }
    }
}

// A share is a number: whoever reads one refuses NaN.
impl Eq for CellBudget {}

impl Hash for CellBudget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.to_string().hash(state);
    }
}

impl fmt::Display for CellBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(budget) => budget.fmt(f),
            None => f.write_str(FULL),
        }
    }
}

impl FromStr for CellBudget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        if text == FULL { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

impl Serialize for CellBudget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CellBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_written_as_rows_have_always_had_them() {
        for text in ["64", "10%", "12.5%", "8 MiB", "full"] {
            let budget: CellBudget = text.parse().unwrap();
            let json = serde_json::to_string(&budget).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<CellBudget>(&json).unwrap(), budget);
        }
        assert!(serde_json::from_str::<CellBudget>("\"whole\"").is_err());
    }
}
