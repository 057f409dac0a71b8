//! An answer that follows a grammar.

use std::fmt::Display;

use cokv_models::sampling::{Constraint, ConstraintError, End};
use llguidance::{Matcher, TokenParser};

/// Letters of a reason.
const LONGEST: usize = 500;

/// A grammar, and where in it an answer is.
pub struct Following(Matcher);

impl Following {
    /// An answer that has not begun.
    pub fn of(grammar: TokenParser) -> Self {
        Self(Matcher::new(Ok(grammar)))
    }
}

impl Constraint for Following {
    fn mask(&mut self) -> Result<Vec<u32>, ConstraintError> {
        self.0.compute_mask().map(|mask| mask.as_slice().to_vec()).map_err(|error| failed(&error))
    }

    fn push(&mut self, token: u32) -> Result<(), ConstraintError> {
        self.0.consume_token(token).map_err(|error| failed(&error))
    }

    fn end(&mut self) -> Result<End, ConstraintError> {
        if self.0.is_stopped() {
            let reason = self.0.stop_reason();
            return if reason.is_ok() { Ok(End::Must) } else { Err(ConstraintError(reason.to_string())) };
        }
        let may = self.0.is_accepting().map_err(|error| failed(&error))?;
        Ok(if may { End::May } else { End::Not })
    }

    fn fork(&self) -> Box<dyn Constraint> {
        // A plain clone shares what is known of the grammar, and how it breaks.
        Box::new(Self(self.0.deep_clone()))
    }
}

fn failed(error: &dyn Display) -> ConstraintError {
    ConstraintError(reason(error))
}

/// What llguidance says, in one line, without what it says for whoever calls it.
pub fn reason(error: &dyn Display) -> String {
    let error = error.to_string();
    let lines = error.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('<'));
    let reason = lines.collect::<Vec<_>>().join(" ");
    let reason = reason.split(". Enable '").next().unwrap_or_default();
    reason.chars().take(LONGEST).collect()
}
