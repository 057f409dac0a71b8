//! The `cokv` command line.

mod bar;
mod bench;
mod choice;
mod compare;
mod convergence;
mod data;
mod detect;
mod estimate;
mod fetch;
mod generate;
mod inspect;
mod interrupt;
mod load;
mod mask;
mod measure;
mod method;
mod methods;
mod mode;
mod output;
mod perf;
mod plan;
mod progress;
mod prompt_source;
mod ready;
mod report;
mod score;
mod scores;
mod select;
mod threads;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use cokv_core::Registry;

/// KV-cache compression for language models: run a model with a tenth of its cache, and see what that costs.
#[derive(Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    /// Threads to compute on; as many as there are cores where nothing is said. Fewer are faster on a busy machine
    #[arg(long, global = true, value_name = "THREADS")]
    threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Report(report::Arguments),
    Compare(compare::Arguments),
    Select(select::Arguments),
    Data(data::Arguments),
    Generate(generate::Arguments),
    Inspect(inspect::Arguments),
    Estimate(Box<estimate::Arguments>),
    Merge(estimate::Merge),
    Detect(detect::Arguments),
    Mask(mask::Arguments),
    Convergence(convergence::Arguments),
    Scores(scores::Arguments),
    Plan(plan::Arguments),
    Perf(perf::Arguments),
    Score(score::Arguments),
    Fetch(fetch::Arguments),
    Methods(methods::Arguments),
}

/// Runs the command line with these policies. A crate with policies of its own adds them to
/// `cokv_policies::registry()` and calls this from its `main`.
pub fn main_with(registry: Registry) -> ExitCode {
    let arguments = Arguments::parse();
    match threads::run_on(arguments.threads) {
        Ok(None) => {}
        Ok(Some(code)) => return code,
        Err(error) => return fail(&error),
    }
    let result = match arguments.command {
        Command::Bench(arguments) => bench::run(&arguments, &registry),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Select(arguments) => select::run(&arguments, &registry),
        Command::Data(arguments) => data::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments, &registry),
        Command::Inspect(arguments) => inspect::run(&arguments, &registry),
        Command::Estimate(arguments) => estimate::run(&arguments, &registry),
        Command::Merge(arguments) => estimate::merge(&arguments),
        Command::Detect(arguments) => detect::run(&arguments),
        Command::Mask(arguments) => mask::run(&arguments, &registry),
        Command::Convergence(arguments) => convergence::run(&arguments),
        Command::Scores(arguments) => scores::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments, &registry),
        Command::Perf(arguments) => perf::run(&arguments, &registry),
        Command::Score(arguments) => score::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Methods(arguments) => methods::run(&arguments, &registry),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("cokv: {error:#}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_command_contradicts_itself() {
        Arguments::command().debug_assert();
    }
}
