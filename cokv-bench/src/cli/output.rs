//! Standard output that may go away: `cokv fetch | head -1` is no failure.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Prints a text with a line break behind it.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).context("standard output")
}

/// Whether an error is that of a pipe whose reader has left.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    };
    error.chain().any(pipe)
}
