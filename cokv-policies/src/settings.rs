//! Settings that several policies have, checked when they are read: a policy cannot be built with one out of range.
//!
//! Defaults are constants, so that a wrong one does not compile: `const BETA: AtLeastOne = AtLeastOne::new(20.0).unwrap();`

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A setting outside its range.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum SettingError {
    /// Not a share of a whole.
    #[error("{0} is no share: it must lie between 0 and 1")]
    NotAShare(f64),
    /// Below 0, or not finite.
    #[error("{0} is out of range: it must be at least 0 and finite")]
    BelowZero(f64),
    /// Below 1, or not finite.
    #[error("{0} is out of range: it must be at least 1 and finite")]
    BelowOne(f64),
}

/// A share of a whole, in [0, 1].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct Share(f64);

impl Share {
    /// `None` outside [0, 1].
    pub const fn new(share: f64) -> Option<Self> {
        if share >= 0.0 && share <= 1.0 { Some(Self(share)) } else { None }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Of so many tokens, rounded down.
    pub fn of(self, tokens: usize) -> usize {
        (self.0 * tokens as f64) as usize
    }
}

impl TryFrom<f64> for Share {
    type Error = SettingError;

    fn try_from(share: f64) -> Result<Self, SettingError> {
        Self::new(share).ok_or(SettingError::NotAShare(share))
    }
}

/// A finite number that is at least 0.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct AtLeastZero(f64);

impl AtLeastZero {
    /// `None` below 0 and where it is not finite.
    pub const fn new(number: f64) -> Option<Self> {
        if number >= 0.0 && number.is_finite() { Some(Self(number)) } else { None }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for AtLeastZero {
    type Error = SettingError;

    fn try_from(number: f64) -> Result<Self, SettingError> {
        Self::new(number).ok_or(SettingError::BelowZero(number))
    }
}

/// A finite number that is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64")]
pub struct AtLeastOne(f64);

impl AtLeastOne {
    /// `None` below 1 and where it is not finite.
    pub const fn new(number: f64) -> Option<Self> {
        if number >= 1.0 && number.is_finite() { Some(Self(number)) } else { None }
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// How many times it goes into so many tokens, as Python's `//` counts: without the rounding of the quotient.
    pub fn floor_divide(self, tokens: usize) -> usize {
        let tokens = tokens as f64;
        ((tokens - tokens % self.0) / self.0).round() as usize
    }
}

impl TryFrom<f64> for AtLeastOne {
    type Error = SettingError;

    fn try_from(number: f64) -> Result<Self, SettingError> {
        Self::new(number).ok_or(SettingError::BelowOne(number))
    }
}

/// How shares become whole tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rounding {
    /// As the paper's code does it: what it loses is lost, what it overspends is overspent.
    Paper,
    /// The total to the token, never a token less for any head when the total grows, surplus beyond the prompt passed
    /// on: columns of a table have the same memory.
    #[default]
    Exact,
}

/// Why plans rounded as a paper does may have another total than they were given.
pub const PAPER_ROUNDING: &str = "its allocator rounds as its paper does; rounding = \"exact\" spends all";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        assert_eq!(Share::try_from(1.2), Err(SettingError::NotAShare(1.2)));
        assert!(Share::try_from(f64::NAN).is_err() && Share::try_from(-0.1).is_err());
        assert_eq!(AtLeastZero::try_from(-0.1), Err(SettingError::BelowZero(-0.1)));
        assert!(AtLeastZero::try_from(f64::INFINITY).is_err() && AtLeastZero::try_from(0.0).is_ok());
        assert_eq!(AtLeastOne::try_from(0.9), Err(SettingError::BelowOne(0.9)));
        assert!(AtLeastOne::try_from(f64::INFINITY).is_err() && AtLeastOne::try_from(f64::NAN).is_err());
    }

    #[test]
    fn floor_division_is_pythons() {
        let times = |tokens, by| AtLeastOne::new(by).unwrap().floor_divide(tokens);
        for (by, pool) in
            [(1.005, 119), (1.01, 118), (1.1, 109), (1.2, 100), (1.5, 80), (2.0, 60), (5.0, 24), (10.0, 12)]
        {
            assert_eq!(times(120, by), pool, "{by}");
        }
        assert_eq!((times(56, 1.01), times(1016, 1.01)), (55, 1005));
    }
}
