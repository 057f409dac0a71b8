//! cokv's command line, with our policies beside its own: `cargo run --release -- bench --config custom.toml`

use std::process::ExitCode;

fn main() -> ExitCode {
    cokv_bench::cli::main_with(custom_policy::registry())
}
