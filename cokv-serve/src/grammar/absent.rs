//! A build without grammars.

use std::sync::Arc;

use cokv_models::Outline;
use cokv_models::sampling::Constraint;

use crate::api::error::ApiError;
use crate::api::form::Form;

/// Makes nothing.
pub struct Grammars;

impl Grammars {
    /// For whatever model.
    pub fn of(_: Arc<Outline>) -> Self {
        Self
    }

    /// What answers of a form have to follow.
    ///
    /// # Errors
    /// They have to follow anything.
    pub async fn constraint(&self, form: Form) -> Result<Option<Box<dyn Constraint>>, ApiError> {
        let param = match form {
            Form::Free => return Ok(None),
            Form::Json(_) | Form::JsonOrCalls(..) => "response_format",
            Form::Calls { .. } => "tool_choice",
            Form::Talk(_) => "tools",
        };
        let message =
            "this server was built without `structured`, and without grammars the form of an answer would be a wish";
        Err(ApiError::unsupported(param, message))
    }
}
