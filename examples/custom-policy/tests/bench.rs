//! The binary as a user runs it: cokv's bench with our policies beside its own.

use std::path::Path;
use std::process::Command;

#[test]
fn the_bench_runs_them_all() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("custom.toml");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_custom-policy"));
    let output = bench.current_dir(folder).args(["bench", "--quiet", "--config"]).arg(config).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for method in ["full", "snapkv", "separators", "vatp", "late-vatp", "snapkv+headkv"] {
        assert!(table.contains(&format!("| {method} ")), "{table}");
    }
}
