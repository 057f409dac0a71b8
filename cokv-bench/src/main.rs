//! The `cokv` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    cokv_bench::cli::main_with(cokv_policies::registry())
}
