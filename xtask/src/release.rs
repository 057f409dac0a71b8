//! A release: versions, checks, and an archive of what a user needs, with its SHA-256. What cannot be taken back (a tag, crates on a
//! registry) is left to whoever releases; `docs/releasing.md` walks through it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::{cargo, ci, root, run};

/// Completions by the shell's name, under the names that shells look for.
const COMPLETIONS: [(&str, &str); 4] =
    [("bash", "cokv.bash"), ("zsh", "_cokv"), ("fish", "cokv.fish"), ("powershell", "_cokv.ps1")];

/// What lies beside the binary.
const BESIDE: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// Sets versions, runs all checks unless they are to be skipped, and writes the archive for this machine's kind.
pub fn release(version: &str, skip_checks: bool) -> Result<()> {
    let root = root();
    check_version(version)?;
    check_tree(root)?;
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).context("CHANGELOG.md")?;
    check_changelog(&changelog, version)?;
    set_versions(root, version)?;
    // The lock file names the versions of the workspace's own crates, too.
    run(cargo().args(["update", "--workspace", "--quiet"]))?;
    if !skip_checks {
        ci()?;
        // Built from nothing but what would be published; versions are set and not committed yet.
        run(cargo().args(["publish", "--workspace", "--dry-run", "--allow-dirty"]))?;
    }
    let target = root.join("target/release-archive");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "cokv-bench", "--bin", "cokv", "--target-dir"]);
    run(build
        .arg(&target)
        .env("COKV_COMMIT", said(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root))?))?;
    let archive = archive(root, &target.join("release/cokv"), version, &host()?, &root.join("target/releases"))?;
    println!("{}\n{}.sha256", archive.display(), archive.display());
    println!(
        "now: git commit --all --message 'Release {version}' && git tag v{version}, then cargo publish --workspace \
         (docs/releasing.md)"
    );
    Ok(())
}

fn check_version(version: &str) -> Result<()> {
    let numbers = version.split_once('-').map_or(version, |(numbers, _)| numbers);
    let parts: Vec<Option<u64>> = numbers.split('.').map(|part| part.parse().ok()).collect();
    ensure!(parts.len() == 3 && parts.iter().all(Option::is_some), "{version} is no version: write it as 0.2.0");
    Ok(())
}

fn check_tree(root: &Path) -> Result<()> {
    let changed = said(Command::new("git").args(["status", "--porcelain"]).current_dir(root))?;
    ensure!(
        changed.is_empty(),
        "there are changes that are in no commit: commit or stash them, then release\n{changed}"
    );
    Ok(())
}

fn check_changelog(changelog: &str, version: &str) -> Result<()> {
    let heading = format!("## [{version}]");
    let found = changelog.lines().any(|line| line.starts_with(&heading));
    ensure!(
        found,
        "CHANGELOG.md has no section `{heading}`: give what stands under Unreleased that heading and a date, and commit it"
    );
    Ok(())
}

/// Writes the version where the workspace says it: once for all crates, and in the path dependencies between them.
fn set_versions(root: &Path, version: &str) -> Result<()> {
    let path = root.join("Cargo.toml");
    let text = fs::read_to_string(&path).context("Cargo.toml")?;
    let section = text.split_once("[workspace.package]").map(|(_, section)| section);
    let old = section.and_then(|section| section.split_once("\nversion = \"")?.1.split('"').next());
    let Some(old) = old else { bail!("Cargo.toml: [workspace.package] has no version") };
    let (from, to) = (format!("version = \"{old}\""), format!("version = \"{version}\""));
    let own = |line: &str| line == from || line.contains("path = ");
    let lines = text.lines().map(|line| if own(line) { line.replace(&from, &to) } else { line.into() } + "\n");
    fs::write(&path, lines.collect::<String>()).context("Cargo.toml")
}

/// `cokv-VERSION-TARGET.tar.gz` with the binary, its completions and its manual pages; and the SHA-256 beside it, as `sha256sum --check`
/// reads it.
fn archive(root: &Path, binary: &Path, version: &str, target: &str, into: &Path) -> Result<PathBuf> {
    let name = format!("cokv-{version}-{target}");
    let folder = into.join(&name);
    // Of an earlier try.
    let _ = fs::remove_dir_all(&folder);
    let (completions, man) = (folder.join("completions"), folder.join("man"));
    fs::create_dir_all(&completions).with_context(|| completions.display().to_string())?;
    let copy = |from: &Path, to: PathBuf| {
        fs::copy(from, &to).map(drop).with_context(|| format!("{} to {}", from.display(), to.display()))
    };
    copy(binary, folder.join("cokv"))?;
    BESIDE.into_iter().try_for_each(|file| copy(&root.join(file), folder.join(file)))?;
    for (shell, file) in COMPLETIONS {
        let script = said(Command::new(binary).args(["completions", shell]))?;
        fs::write(completions.join(file), script + "\n").with_context(|| file.to_owned())?;
    }
    said(Command::new(binary).arg("man").arg(&man))?;
    let archive = into.join(format!("{name}.tar.gz"));
    run(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(into).arg(&name))?;
    let bytes = fs::read(&archive).with_context(|| archive.display().to_string())?;
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(into.join(format!("{name}.tar.gz.sha256")), format!("{digest}  {name}.tar.gz\n"))
        .context("the SHA-256")?;
    Ok(archive)
}

/// What this machine builds for, as rustc calls it.
fn host() -> Result<String> {
    let version = said(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV names no host")
}

/// What a command prints.
fn said(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("{program} could not be started"))?;
    ensure!(output.status.success(), "{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers() {
        for good in ["0.2.0", "1.0.0-rc.1"] {
            check_version(good).unwrap();
        }
        for bad in ["v0.2.0", "0.2", "0.2.x", ""] {
            assert!(check_version(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_that_nobody_described_is_refused() {
        let changelog = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n";
        check_changelog(changelog, "0.2.0").unwrap();
        let error = check_changelog(changelog, "0.3.0").unwrap_err().to_string();
        assert!(error.contains("no section `## [0.3.0]`"), "{error}");
    }

    #[test]
    fn a_dirty_tree_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| said(Command::new("git").args(arguments).current_dir(folder.path())).unwrap();
        git(&["init", "--quiet"]);
        check_tree(folder.path()).unwrap();
        fs::write(folder.path().join("new"), "").unwrap();
        let error = check_tree(folder.path()).unwrap_err().to_string();
        assert!(error.contains("?? new"), "{error}");
    }

    #[test]
    fn versions_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = |version: &str| {
            format!(
                "[workspace.package]\nversion = \"{version}\"\n\n[workspace.dependencies]\n\
                 cokv-core = {{ path = \"cokv-core\", version = \"{version}\" }}\nother = {{ version = \"0.1.0\" }}\n"
            )
        };
        let path = folder.path().join("Cargo.toml");
        fs::write(&path, manifest("0.1.0")).unwrap();
        set_versions(folder.path(), "0.2.0").unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), manifest("0.2.0"));
    }

    /// A stand-in says what the binary would.
    #[cfg(unix)]
    #[test]
    fn an_archive_has_what_a_user_needs() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let binary = folder.path().join("binary");
        let script = "#!/bin/sh\nif [ $1 = man ]; then mkdir -p $2 && echo .TH > $2/cokv.1; else echo \"for $2\"; fi\n";
        fs::write(&binary, script).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let archive = archive(root(), &binary, "0.2.0", "a-target", folder.path()).unwrap();
        assert!(archive.ends_with("cokv-0.2.0-a-target.tar.gz"));
        let listed = said(Command::new("tar").arg("-tzf").arg(&archive)).unwrap();
        for file in ["cokv", "README.md", "LICENSE-MIT", "completions/_cokv", "completions/cokv.fish", "man/cokv.1"] {
            assert!(listed.lines().any(|line| line == format!("cokv-0.2.0-a-target/{file}")), "{file} of {listed}");
        }
        let sum = fs::read_to_string(folder.path().join("cokv-0.2.0-a-target.tar.gz.sha256")).unwrap();
        assert!(sum.len() > 64 && sum.ends_with("  cokv-0.2.0-a-target.tar.gz\n"), "{sum}");
    }
}
