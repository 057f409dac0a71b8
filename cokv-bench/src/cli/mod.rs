//! The `cokv` command line.

mod ask;
mod bar;
mod bench;
mod choice;
mod cluster;
mod compare;
mod completions;
mod compress;
mod convergence;
mod data;
mod detect;
mod estimate;
mod fetch;
mod forecast;
mod generate;
mod inspect;
mod interrupt;
mod learn;
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
mod replayed;
mod report;
mod sampling;
mod score;
mod scores;
mod select;
mod stopped;
mod threads;
mod version;

use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use cokv_core::Registry;

/// KV-cache compression for language models: run a model with a tenth of its cache, and see what that costs.
#[derive(Parser)]
#[command(
    name = "cokv",
    version = version::version(),
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 the command line is wrong, 130 stopped by Ctrl-C or a signal: what was done \
                  is kept, and the same command goes on."
)]
struct Arguments {
    /// Threads to compute on; without it, as many as the process may use: cores that it is bound to (taskset, Slurm), the quota
    /// of its container
    #[arg(long, global = true, value_name = "THREADS")]
    threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Arguments),
    Cluster(Box<cluster::Arguments>),
    Report(report::Arguments),
    Compare(compare::Arguments),
    Select(select::Arguments),
    Data(data::Arguments),
    Generate(generate::Arguments),
    Compress(compress::Arguments),
    Ask(ask::Arguments),
    Inspect(inspect::Arguments),
    Estimate(Box<estimate::Arguments>),
    Merge(estimate::Merge),
    Detect(detect::Arguments),
    Learn(learn::Arguments),
    Mask(mask::Arguments),
    Convergence(convergence::Arguments),
    Scores(scores::Arguments),
    Plan(plan::Arguments),
    Perf(perf::Arguments),
    Score(score::Arguments),
    Fetch(fetch::Arguments),
    Methods(methods::Arguments),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Runs the command line with these policies. A crate with policies of its own adds them to
/// `cokv_policies::registry()` and calls this from its `main`.
pub fn main_with(registry: Registry) -> ExitCode {
    let arguments = Arguments::parse();
    threads::run_on(arguments.threads);
    let result = match arguments.command {
        Command::Bench(arguments) => bench::run(&arguments, &registry),
        Command::Cluster(arguments) => cluster::run(&arguments, &registry),
        Command::Report(arguments) => report::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Select(arguments) => select::run(&arguments, &registry),
        Command::Data(arguments) => data::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments, &registry),
        Command::Compress(arguments) => compress::run(&arguments, &registry),
        Command::Ask(arguments) => ask::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments, &registry),
        Command::Estimate(arguments) => estimate::run(&arguments, &registry),
        Command::Merge(arguments) => estimate::merge(&arguments),
        Command::Detect(arguments) => detect::run(&arguments),
        Command::Learn(arguments) => learn::run(&arguments, &registry),
        Command::Mask(arguments) => mask::run(&arguments, &registry),
        Command::Convergence(arguments) => convergence::run(&arguments),
        Command::Scores(arguments) => scores::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments, &registry),
        Command::Perf(arguments) => perf::run(&arguments, &registry),
        Command::Score(arguments) => score::run(&arguments),
        Command::Fetch(arguments) => fetch::run(&arguments),
        Command::Methods(arguments) => methods::run(&arguments, &registry),
        Command::Completions(arguments) => completions::completions(&arguments, Arguments::command()),
        Command::Man(arguments) => completions::man(&arguments, Arguments::command()),
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
    stopped::exit_code(error).unwrap_or(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_command_contradicts_itself() {
        Arguments::command().debug_assert();
    }

    /// Regression: the version of a command was that of `cokv-bench-bench`.
    #[test]
    fn every_command_says_the_program_s_version() {
        for arguments in
            [&["cokv", "--version"][..], &["cokv", "bench", "--version"], &["cokv", "scores", "show", "-V"]]
        {
            let said = Arguments::try_parse_from(arguments).err().unwrap().to_string();
            let names = ["cokv 0.", "cokv-bench 0.", "cokv-scores-show 0."];
            assert!(names.iter().any(|name| said.starts_with(name)) && said.contains(" (cpu"), "{said}");
        }
    }
}
