//! How many threads a command runs on.

use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

/// What the two pools read their size from: candle's, which runs our kernels too, and rayon's, which some of candle's
/// operations use.
const VARIABLES: [&str; 2] = ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"];

/// Sees to it that the command runs on this many threads. The pools look at the environment once and cannot be told
/// otherwise, so the command starts itself again in the environment that it needs; then the exit code is that command's.
pub fn run_on(threads: Option<NonZeroUsize>) -> Result<Option<ExitCode>> {
    let Some(threads) = threads else { return Ok(None) };
    let cores = std::thread::available_parallelism().unwrap_or(threads);
    let given = threads.to_string();
    if VARIABLES.iter().all(|variable| std::env::var(variable).as_ref() == Ok(&given)) {
        return Ok(None);
    }
    if threads > cores {
        eprintln!("note: {threads} threads on {cores} cores wait for each other; as many threads as cores are faster");
    }
    let mut command = Command::new(std::env::current_exe().context("--threads: this program cannot find itself")?);
    command.args(std::env::args_os().skip(1)).envs(VARIABLES.map(|variable| (variable, &given)));
    again(command).map(Some).context("--threads: this program could not start itself again")
}

/// Becomes the command.
#[cfg(unix)]
fn again(mut command: Command) -> std::io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn again(mut command: Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
