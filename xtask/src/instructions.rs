//! Instructions of fixed work, which do not depend on what else a machine does: a change that makes the kernels slower is
//! seen where timings would be noise.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{cargo, root, run};

/// Counts that a change is held against, one line each.
const RECORDED: &str = "benches/instructions.txt";
/// What counts may grow by: compilers differ a little.
const TOLERANCE: f64 = 1.1;

/// Counts the instructions of each piece of work in the recorded list, and fails where one has grown by more than a tenth;
/// `record` writes the new counts down instead. Without valgrind it says so and does nothing.
pub fn instructions(record: bool) -> Result<()> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: instructions (valgrind, which counts them, is not here)");
        return Ok(());
    }
    // The build that tests use, so that nothing has to be built twice.
    run(cargo().args(["build", "--quiet", "--package", "cokv-models", "--example", "instructions"]))?;
    let file = root().join(RECORDED);
    let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let mut written = String::new();
    let mut grown = Vec::new();
    for line in text.lines() {
        let Some((work, recorded)) = line.split_once(' ') else { bail!("{RECORDED}: {line:?} is no count") };
        let recorded: f64 = recorded.parse().with_context(|| format!("{RECORDED}: {line:?}"))?;
        let counted = count(work)?;
        let growth = counted as f64 / recorded;
        println!("{work}: {counted} instructions, {growth:.3} times those recorded");
        if growth > TOLERANCE {
            grown.push(work);
        }
        writeln!(written, "{work} {counted}")?;
    }
    if record {
        return std::fs::write(&file, written).with_context(|| file.display().to_string());
    }
    if !grown.is_empty() {
        bail!(
            "{} take more than a tenth more instructions than {RECORDED} says; if that is meant, cargo xtask instructions --record",
            grown.join(" and ")
        );
    }
    Ok(())
}

fn count(work: &str) -> Result<u64> {
    let example = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=instructions::measured*"])
        .arg(example.join("debug/examples/instructions"))
        .arg(work)
        .output()
        .context("valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.filter(|_| output.status.success()).with_context(|| format!("valgrind counted nothing:\n{said}"))
}
