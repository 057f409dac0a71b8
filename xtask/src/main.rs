//! The developer's tasks. Each calls cargo or the `cokv` binary, but for `tidy`, which reads the source.

mod instructions;
mod release;
mod tidy;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use clap::Parser;

/// Build, run and check cokv
#[derive(Parser)]
#[command(arg_required_else_help = true)]
enum Task {
    /// Build cokv for this machine's processor and run a matrix: cargo xtask bench --config cokv.toml
    #[command(disable_help_flag = true)]
    Bench(Passed),
    /// Build cokv for this machine's processor and find out what each head is worth: cargo xtask estimate --help
    #[command(disable_help_flag = true)]
    Estimate(Passed),
    /// Build cokv for this machine's processor and run any of its commands: cargo xtask cokv generate --help
    #[command(disable_help_flag = true)]
    Cokv(Passed),
    /// Download models and data ahead of time; without arguments, the default model
    Fetch {
        /// Copy the published data that tests need into cokv's cache instead, each file checked
        #[arg(long, conflicts_with = "rest")]
        golden: bool,
        /// The folder that has them [default: ../shared]
        #[arg(long, requires = "golden", value_name = "FOLDER")]
        from: Option<PathBuf>,
        /// Passed on to `cokv fetch`: presets, sources, --longbench FOLDER
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the tests; --full adds those that need minutes or large models
    Test {
        /// Also run the ignored tests
        #[arg(long)]
        full: bool,
        /// Passed on to cargo test
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Count the instructions of fixed work under valgrind, and fail where they have grown by more than a tenth
    Instructions {
        /// Write the counts down, for later changes to be held against
        #[arg(long)]
        record: bool,
    },
    /// Try every order in which the threads of the pool may do things
    Loom,
    /// Build the book of docs/ into target/book, with mdbook
    Book,
    /// Check what the compiler does not: who imports whom, circles of modules, prints, versions of path dependencies, pages of the book
    Tidy,
    /// Everything that must pass before a change lands: formatting, tidiness, lints, docs, tests, loom, counts of instructions,
    /// licences, the book, the example
    Ci,
    /// Set versions, run all checks, and write an archive with its SHA-256: cargo xtask release 0.2.0
    Release {
        /// A version that CHANGELOG.md has a section of
        version: String,
        /// Write the archive alone, as on a machine of another kind once the checks have passed elsewhere
        #[arg(long)]
        skip_checks: bool,
    },
}

#[derive(clap::Args)]
struct Passed {
    /// Cargo features to build with: metal, mkl, accelerate (NVIDIA GPUs need none)
    #[arg(long)]
    features: Option<String>,
    /// Passed on to cokv
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Bench(Passed { features, rest }) => run(Command::new(build(features)?).arg("bench").args(rest)),
        Task::Estimate(Passed { features, rest }) => run(Command::new(build(features)?).arg("estimate").args(rest)),
        Task::Cokv(Passed { features, rest }) => run(Command::new(build(features)?).args(rest)),
        Task::Fetch { golden: true, from, .. } => {
            let (from, into) = (from.unwrap_or_else(cokv_golden::beside_the_project), cokv_golden::folder());
            cokv_golden::fetch(&from, &into)?;
            println!("{}", into.display());
            Ok(())
        }
        Task::Fetch { rest, .. } => {
            let rest = if rest.is_empty() { vec!["smollm2-135m-instruct".into()] } else { rest };
            run(Command::new(build(None)?).arg("fetch").args(rest))
        }
        Task::Test { full, rest } => test(full, &rest),
        Task::Instructions { record } => instructions::instructions(record),
        Task::Loom => loom(),
        Task::Book => book(),
        Task::Tidy => tidy::tidy(root()),
        Task::Ci => ci(),
        Task::Release { version, skip_checks } => release::release(&version, skip_checks),
    }
}

/// Builds the release binary for this machine's processor, in a folder of its own so that plain builds stay cached.
fn build(features: Option<String>) -> Result<PathBuf> {
    let target = root().join("target/native");
    let mut build = cargo();
    build
        .args(["build", "--release", "--package", "cokv-bench", "--bin", "cokv", "--target-dir"])
        .arg(&target)
        .args(["--config", "build.rustflags=[\"-Ctarget-cpu=native\"]"])
        .args(features.map(|features| format!("--features={features}")));
    // For the environment that runs write down; an archive without history has none.
    let commit = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output();
    if let Ok(commit) = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()) {
        build.env("COKV_COMMIT", commit);
    }
    if !target.join("release/cokv").exists() {
        eprintln!("building cokv for this machine's processor; the first build takes some minutes");
    }
    run(&mut build)?;
    Ok(target.join("release/cokv"))
}

fn test(full: bool, rest: &[String]) -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--workspace"]).args(rest);
    if full {
        if !rest.iter().any(|argument| argument == "--") {
            test.arg("--");
        }
        test.arg("--include-ignored");
    }
    let skipped = root().join("target/skipped-tests.txt");
    // Of an earlier run.
    let _ = fs::remove_file(&skipped);
    if let Some(libraries) = nvrtc() {
        test.env("COKV_CUDA_LIBRARIES", libraries);
    }
    let status = status(test.env(cokv_golden::SKIPPED, &skipped))?;
    let lines: BTreeSet<String> = fs::read_to_string(&skipped).unwrap_or_default().lines().map(str::to_owned).collect();
    match lines.len() {
        0 => println!("every test could run"),
        count => println!("{count} tests could not run:\n{}", lines.into_iter().collect::<Vec<_>>().join("\n")),
    }
    end_with(status)
}

/// The folder of NVIDIA's compiler of kernels, which needs no GPU: a wheel of 87 MB, fetched once. Nothing where it cannot be had, or
/// where a folder is named already.
fn nvrtc() -> Option<PathBuf> {
    if std::env::var_os("COKV_CUDA_LIBRARIES").is_some() {
        return None;
    }
    let folder = cokv_golden::folder().with_file_name("nvrtc");
    let libraries = folder.join("nvidia/cu13/lib");
    if !libraries.is_dir() {
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--root-user-action=ignore",
            "--target",
        ]);
        pip.arg(&folder).arg("nvidia-cuda-nvrtc==13.0.*");
        pip.status().ok()?;
    }
    libraries.is_dir().then_some(libraries)
}

/// In a folder of its own, because the flag is one of all crates.
fn loom() -> Result<()> {
    let mut test = cargo();
    test.args(["test", "--release", "--package", "cokv-pool", "--test", "loom", "--target-dir"])
        .arg(root().join("target/loom"))
        .env("RUSTFLAGS", "--cfg loom");
    run(&mut test)
}

/// Without mdbook it says so and does nothing.
fn book() -> Result<()> {
    if Command::new("mdbook").arg("--version").output().is_err() {
        println!("skipped: the book (mdbook, which builds it, is not here: cargo install mdbook --locked)");
        return Ok(());
    }
    run(Command::new("mdbook").args(["build", "docs"]).current_dir(root()))
}

/// Licences, advisories and sources of all dependencies. Without cargo deny it says so and does nothing.
fn deny() -> Result<()> {
    if !cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: licences and advisories (cargo deny is not here: cargo install cargo-deny --locked)");
        return Ok(());
    }
    // Advisories come from GitHub, which not every machine may reach; a job of its own looks at them.
    run(cargo().args(["deny", "check", "licenses", "bans", "sources"]))
}

fn ci() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    tidy::tidy(root())?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    run(cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    test(false, &[])?;
    loom()?;
    instructions::instructions(false)?;
    deny()?;
    book()?;
    example()
}

/// The crate outside the workspace that adds policies of its own, built into the workspace's target folder.
fn example() -> Result<()> {
    let cargo = |command: &str| {
        let mut cargo = cargo();
        cargo.current_dir(root().join("examples/custom-policy")).arg(command);
        cargo
    };
    run(cargo("fmt").arg("--check"))?;
    run(cargo("clippy").args(["--all-targets", "--target-dir", "../../target", "--", "-D", "warnings"]))?;
    run(cargo("test").args(["--target-dir", "../../target"]))
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn run(command: &mut Command) -> Result<()> {
    end_with(status(command)?)
}

fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("{} could not be started", command.get_program().display()))
}

/// Ends as a command did that was not successful: it has said what was wrong.
fn end_with(status: ExitStatus) -> Result<()> {
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => std::process::exit(code),
        None => bail!("a command was ended by a signal"),
    }
}
