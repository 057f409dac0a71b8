//! How much cache a run may use, and how it is shared out.

use std::fmt;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{Format, HeadLayout};

/// Cache allowed for the prompt, over all KV heads together. The protected window counts as part of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Tokens for each KV head on average, window included.
    Tokens(usize),
    /// Share of the prompt kept, in (0, 1]; the tokens of a head are `floor(share * prompt_len)`.
    Share(f64),
    /// Bytes for all KV heads together.
    Bytes(u64),
}

/// A budget that cannot be read or that keeps nothing.
#[derive(Debug, Error, PartialEq)]
pub enum BudgetError {
    /// The text is no budget.
    #[error(
        "`{0}` is no budget: write tokens per head (128), a share of the prompt (\"10%\" or 0.1) or bytes (\"8 MiB\")"
    )]
    Unreadable(String),
    /// Zero, or negative.
    #[error("a budget of `{0}` keeps nothing: it must be above zero")]
    Zero(String),
    /// A share above the whole.
    #[error("a budget of `{0}` is more than the whole prompt: a share lies between 0 and 100 %")]
    AboveWhole(String),
}

impl Budget {
    /// Tokens that all heads may keep together: `tokens of a head × heads`, or the bytes divided by what a token takes.
    pub fn total_tokens(&self, layout: HeadLayout, prompt_len: usize, format: Format) -> usize {
        match *self {
            Budget::Tokens(tokens) => tokens.saturating_mul(layout.heads()),
            Budget::Share(share) => tokens_of_share(share, prompt_len) * layout.heads(),
            Budget::Bytes(bytes) => (bytes / format.token_bytes(layout.head_dim) as u64) as usize,
        }
    }

    /// Share of a prompt that all heads may keep together, at most 1, where the whole prompt takes `full_bytes`.
    pub fn share_of(&self, prompt_len: usize, full_bytes: f64) -> f64 {
        let share = match *self {
            Budget::Tokens(tokens) => tokens as f64 / prompt_len as f64,
            Budget::Share(share) => tokens_of_share(share, prompt_len) as f64 / prompt_len as f64,
            Budget::Bytes(bytes) => bytes as f64 / full_bytes,
        };
        share.min(1.0)
    }

    fn checked(self, text: &str) -> Result<Self, BudgetError> {
        match self {
            Budget::Tokens(0) | Budget::Bytes(0) => Err(BudgetError::Zero(text.into())),
            Budget::Share(share) if !share.is_finite() => Err(BudgetError::Unreadable(text.into())),
            Budget::Share(share) if share <= 0.0 => Err(BudgetError::Zero(text.into())),
            Budget::Share(share) if share > 1.0 => Err(BudgetError::AboveWhole(text.into())),
            sound => Ok(sound),
        }
    }
}

/// Tokens of a head.
fn tokens_of_share(share: f64, prompt_len: usize) -> usize {
    // 0.29 * 100 is a hair below 29 in binary.
    (share * prompt_len as f64 + 1e-9) as usize
}

impl FromStr for Budget {
    type Err = BudgetError;

    fn from_str(text: &str) -> Result<Self, BudgetError> {
        let unreadable = || BudgetError::Unreadable(text.into());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = (&trimmed[..digits], trimmed[digits..].trim());
        let value: f64 = number.parse().map_err(|_| unreadable())?;
        let bytes = |scale: f64| Budget::Bytes((value * scale) as u64);
        let budget = match unit.to_ascii_lowercase().as_str() {
            "" if number.contains('.') => Budget::Share(value),
            "" | "tokens" => Budget::Tokens(number.parse().map_err(|_| unreadable())?),
            "%" => Budget::Share(value / 100.0),
            "b" => bytes(1.0),
            "kib" => bytes(1024.0),
            "mib" => bytes(1024.0 * 1024.0),
            "gib" => bytes(1024.0 * 1024.0 * 1024.0),
            "kb" => bytes(1e3),
            "mb" => bytes(1e6),
            "gb" => bytes(1e9),
            _ => return Err(unreadable()),
        };
        budget.checked(text)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Budget::Tokens(tokens) => write!(f, "{tokens}"),
            // Rounded so that 0.07 * 100 prints as 7 and reads back as itself.
            Budget::Share(share) => write!(f, "{}%", (share * 100.0 * 1e9).round() / 1e9),
            Budget::Bytes(bytes) => match bytes {
                b if b % (1 << 20) == 0 => write!(f, "{} MiB", b >> 20),
                b if b % (1 << 10) == 0 => write!(f, "{} KiB", b >> 10),
                b => write!(f, "{b} B"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// A budget as a file writes it: an integer, a fraction or a text.
struct Written;

impl Visitor<'_> for Written {
    type Value = Budget;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a budget: tokens per head (128), a share of the prompt (\"10%\" or 0.1) or bytes (\"8 MiB\")")
    }

    fn visit_i64<E: serde::de::Error>(self, tokens: i64) -> Result<Budget, E> {
        let written = tokens.to_string();
        let tokens = usize::try_from(tokens).map_err(|_| E::custom(BudgetError::Zero(written.clone())))?;
        Budget::Tokens(tokens).checked(&written).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, tokens: u64) -> Result<Budget, E> {
        Budget::Tokens(tokens as usize).checked(&tokens.to_string()).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<Budget, E> {
        Budget::Share(share).checked(&share.to_string()).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Budget, E> {
        text.parse().map_err(E::custom)
    }
}

impl Serialize for Budget {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Budget::Tokens(tokens) => serializer.serialize_u64(tokens as u64),
            _ => serializer.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_read_as_people_write_them() {
        let mib = 1 << 20;
        for (text, budget) in [
            ("128", Budget::Tokens(128)),
            ("128 tokens", Budget::Tokens(128)),
            ("10%", Budget::Share(0.1)),
            ("12.5 %", Budget::Share(0.125)),
            ("0.2", Budget::Share(0.2)),
            ("8 MiB", Budget::Bytes(8 * mib)),
            ("1.5mib", Budget::Bytes(mib + mib / 2)),
            ("900B", Budget::Bytes(900)),
        ] {
            assert_eq!(text.parse::<Budget>().unwrap(), budget, "{text}");
            assert_eq!(budget.to_string().parse::<Budget>().unwrap(), budget, "{text}");
        }
    }

    #[test]
    fn budgets_that_keep_nothing_or_too_much_are_refused() {
        assert!(matches!("0".parse::<Budget>(), Err(BudgetError::Zero(_))));
        assert!(matches!("0%".parse::<Budget>(), Err(BudgetError::Zero(_))));
        assert!(matches!("120%".parse::<Budget>(), Err(BudgetError::AboveWhole(_))));
        for nonsense in ["", "many", "-3", "1.5.2", "3 apples"] {
            assert!(nonsense.parse::<Budget>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn totals_count_all_heads() {
        let layout = HeadLayout::new(30, 9, 3, 64).unwrap();
        assert_eq!(Budget::Tokens(128).total_tokens(layout, 1000, Format::F16), 128 * 90);
        assert_eq!(Budget::Share(0.2).total_tokens(layout, 618, Format::F16), 123 * 90);
        assert_eq!("29%".parse::<Budget>().unwrap().total_tokens(layout, 100, Format::F16), 29 * 90);
        assert_eq!(Budget::Bytes(2560).total_tokens(layout, 618, Format::F16), 10);
        assert_eq!("29%".parse::<Budget>().unwrap().share_of(100, 0.0), 0.29);
        assert_eq!(Budget::Share(0.125).share_of(100, 0.0), 0.12, "whole tokens");
        assert_eq!((Budget::Tokens(64).share_of(256, 0.0), Budget::Bytes(10).share_of(256, 40.0)), (0.25, 0.25));
        assert_eq!(Budget::Tokens(200).share_of(100, 0.0), 1.0);
        assert_eq!(Budget::Tokens(usize::MAX).total_tokens(layout, 618, Format::F16), usize::MAX);
    }
}
