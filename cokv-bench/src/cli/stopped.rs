//! Work that was broken off, which is no success and no failure.

use std::fmt;
use std::process::ExitCode;

use anyhow::Error;

use super::interrupt;

/// What a command ends with that a signal stopped: what was done is kept, and the message says how to go on.
#[derive(Debug)]
pub struct Stopped(pub String);

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stopped {}

/// Whether it is that a command was stopped.
pub fn is_stopped(error: &Error) -> bool {
    error.chain().any(|cause| cause.is::<Stopped>())
}

/// The exit code where a command was stopped; none where it failed.
pub fn exit_code(error: &Error) -> Option<ExitCode> {
    is_stopped(error).then(|| ExitCode::from(interrupt::exit_code()))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn what_was_stopped_is_known_whatever_it_was_part_of() {
        let stopped = Err::<(), _>(Error::new(Stopped("stopped".into()))).context("[importance.own]").unwrap_err();
        assert!(exit_code(&stopped).is_some());
        assert!(exit_code(&anyhow::anyhow!("stopped")).is_none());
    }
}
