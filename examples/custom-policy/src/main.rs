//! cokv's command line, with three policies more: `cargo run --release -- bench --config custom.toml`

use std::process::ExitCode;

fn main() -> ExitCode {
    cokv_bench::cli::main_with(custom_policy::registry())
}
