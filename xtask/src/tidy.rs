//! What the compiler does not check of the architecture. Files are read as text: no macro is expanded, and what stands
//! under `#[cfg(test)]`, in `tests/`, `benches/` and `examples/` does not count.
//!
//! - **Who may import whom** is [`CRATES`], the table of `ARCHITECTURE.md`; candle is cokv-models' own affair, and so are
//!   its kernels.
//! - **Nothing prints** outside of [`PRINTING`].
//! - **No circle** among the modules that a module declares, each with all that is inside it ([`circles`]). A parent that
//!   uses its children, and children that use `super`, are no circle: they are one idea in several files. What a `mod.rs`
//!   re-exports counts as the file that it stands in.
//! - **Path dependencies have a version**, without which cargo publishes nothing; but those on crates that are not published have
//!   none, so that cargo leaves them out.
//! - **The book** has every page of `docs/`, and its links lead somewhere ([`book`]).

mod book;
mod circles;
mod modules;
mod tokens;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::modules::Crate;

/// Who may import whom: every crate of the workspace, and the crates that it may name.
const CRATES: [(&str, &[&str]); 12] = [
    ("cokv-core", &[]),
    ("cokv-pool", &[]),
    ("cokv-models", &["cokv-core", "cokv-pool", "candle"]),
    ("cokv-cuda", &["cokv-core", "cokv-models"]),
    ("cokv-emulator", &["cokv-core", "cokv-cuda"]),
    ("cokv-policies", &["cokv-core"]),
    ("cokv-shapley", &["cokv-core"]),
    ("cokv-scheduler", &["cokv-core", "cokv-models"]),
    ("cokv-serve", &["cokv-core", "cokv-models", "cokv-scheduler"]),
    (
        "cokv-bench",
        &["cokv-core", "cokv-models", "cokv-cuda", "cokv-policies", "cokv-shapley", "cokv-scheduler", "cokv-serve"],
    ),
    ("cokv-golden", &[]),
    ("xtask", &["cokv-golden"]),
];

/// What a crate may not name although it may import the crate that it is of.
const INNER: [(&str, [&str; 2]); 1] = [("cokv-bench", ["cokv_models", "kernel"])];

/// Where a command line speaks.
const PRINTING: [&str; 3] = ["cokv-bench/src/cli", "xtask", "cokv-golden"];

const PRINTS: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// Something to be mended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    /// Relative to the workspace.
    file: PathBuf,
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

/// Names all that is wrong, and fails where something is.
pub fn tidy(root: &Path) -> Result<()> {
    let complaints = complaints(root)?;
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    match complaints.len() {
        0 => Ok(()),
        count => bail!("{count} places break the rules that xtask/src/tidy.rs states"),
    }
}

fn complaints(root: &Path) -> Result<Vec<Complaint>> {
    let mut complaints = versions(root, Path::new("Cargo.toml"))?;
    complaints.extend(book::book(root)?);
    for name in members(root)? {
        let folder = Path::new(&name);
        complaints.extend(versions(root, &folder.join("Cargo.toml"))?);
        complaints.extend(dependencies(root, &name)?);
        for entry in ["lib.rs", "main.rs"] {
            let file = folder.join("src").join(entry);
            if !root.join(&file).exists() {
                continue;
            }
            let read = Crate::read(root, &file)?;
            complaints.extend(circles::circles(&read));
            if !PRINTING.contains(&name.as_str()) {
                complaints.extend(prints(&read));
            }
            complaints.extend(inner(&name, &read));
        }
    }
    complaints.sort();
    Ok(complaints)
}

/// Members of the workspace: folders, which are called as their crates.
fn members(root: &Path) -> Result<Vec<String>> {
    let text = read(root, Path::new("Cargo.toml"))?;
    let list = text.split_once("members = [").and_then(|(_, rest)| rest.split_once(']'));
    let Some((list, _)) = list else { bail!("Cargo.toml: there is no list members = […]") };
    Ok(list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect())
}

/// Path dependencies of a manifest whose version is not as their crate is published.
fn versions(root: &Path, file: &Path) -> Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    for (at, line) in read(root, file)?.lines().enumerate() {
        let path = line.split_once("path = \"").and_then(|(_, rest)| rest.split('"').next());
        let Some(path) = path.filter(|_| line.contains('{')) else { continue };
        let name = line.trim().split([' ', '=']).next().unwrap_or_default();
        let manifest = root.join(file).with_file_name(path).join("Cargo.toml");
        let published = !fs::read_to_string(manifest).is_ok_and(|text| text.contains("\npublish = false"));
        let message = match (published, line.contains("version")) {
            (true, false) => {
                format!("the path dependency {name} has no version: write version = \"…\" beside its path")
            }
            (false, true) => format!(
                "{name} is not published, and whatever names its version cannot be: leave the version out, as only tests may \
                 depend on it"
            ),
            _ => continue,
        };
        complaints.push(Complaint { file: file.into(), line: at + 1, message });
    }
    Ok(complaints)
}

/// Dependencies of a crate that the table does not have; those of tests are free.
fn dependencies(root: &Path, name: &str) -> Result<Vec<Complaint>> {
    let file = Path::new(name).join("Cargo.toml");
    let Some((_, allowed)) = CRATES.iter().find(|(member, _)| *member == name) else {
        let message = "no rule says what this crate may import: add it to CRATES in xtask/src/tidy.rs and to the table \
                       in ARCHITECTURE.md";
        return Ok(vec![Complaint { file, line: 1, message: message.into() }]);
    };
    let text = read(root, &file)?;
    let mut complaints = Vec::new();
    let mut section = "";
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        }
        let counts = section.ends_with("dependencies") && !section.ends_with("dev-dependencies");
        let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let kind = if dependency.starts_with("candle") { "candle" } else { dependency };
        let ours = kind == "candle" || kind.starts_with("cokv");
        if counts && ours && !allowed.contains(&kind) {
            let may = if allowed.is_empty() { "none of our crates".into() } else { allowed.join(", ") };
            let message = format!("{name} must not import {dependency}: it may import {may} (ARCHITECTURE.md)");
            complaints.push(Complaint { file: file.clone(), line: at + 1, message });
        }
    }
    Ok(complaints)
}

/// Macros that write to the terminal.
fn prints(of: &Crate) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for module in of.modules.iter().filter(|module| !PRINTING.iter().any(|folder| module.file.starts_with(folder))) {
        for pair in module.tokens.windows(2) {
            if PRINTS.contains(&pair[0].text.as_str()) && pair[1].text == "!" {
                let message = format!(
                    "{}! outside of {}: return an error, or tell an observer that the command line listens with",
                    pair[0].text, PRINTING[0]
                );
                complaints.push(Complaint { file: module.file.clone(), line: pair[0].line, message });
            }
        }
    }
    complaints
}

/// Paths into what a crate keeps to itself, whoever may import it.
fn inner(name: &str, of: &Crate) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (_, path) in INNER.iter().filter(|(member, _)| *member == name) {
        for module in &of.modules {
            for used in module.paths.iter().filter(|used| used.segments.starts_with(&path.map(String::from))) {
                let message = format!("{} is no business of {name}: give its crate a function", path.join("::"));
                complaints.push(Complaint { file: module.file.clone(), line: used.line, message });
            }
        }
    }
    complaints
}

fn read(root: &Path, file: &Path) -> Result<String> {
    fs::read_to_string(root.join(file)).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of one crate, `cokv-core`.
    pub fn workspace(name: &str, manifest: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Cargo.toml", &format!("[workspace]\nmembers = [\"{name}\"]\n"));
        write(&format!("{name}/Cargo.toml"), manifest);
        files.iter().for_each(|(file, text)| write(&format!("{name}/src/{file}"), text));
        folder
    }

    fn found(name: &str, manifest: &str, files: &[(&str, &str)]) -> Vec<String> {
        let folder = workspace(name, manifest, files);
        complaints(folder.path()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn this_workspace_is_tidy() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let complaints = complaints(root).unwrap();
        assert!(complaints.is_empty(), "{}", complaints.iter().map(|line| format!("{line}\n")).collect::<String>());
    }

    #[test]
    fn an_import_against_the_table_is_named() {
        let manifest =
            "[dependencies]\ncokv-models.workspace = true\ncandle-core = \"1\"\n[dev-dependencies]\ncandle-nn = \"1\"";
        let found = found("cokv-policies", manifest, &[("lib.rs", "")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("cokv-policies/Cargo.toml:2: cokv-policies must not import cokv-models"));
        assert!(found[1].starts_with("cokv-policies/Cargo.toml:3: cokv-policies must not import candle-core"));
    }

    #[test]
    fn a_crate_that_the_table_does_not_have_is_named() {
        let found = found("cokv-new", "", &[("lib.rs", "")]);
        assert!(found[0].starts_with("cokv-new/Cargo.toml:1: no rule says"), "{found:?}");
    }

    #[test]
    fn a_path_without_a_version_is_named() {
        let manifest = "[dependencies]\nx = { path = \"x\" }\ny = { path = \"y\", version = \"1\" }";
        let found = found("cokv-core", manifest, &[("lib.rs", "")]);
        assert_eq!(
            found,
            ["cokv-core/Cargo.toml:2: the path dependency x has no version: write version = \"…\" beside its path"]
        );
    }

    #[test]
    fn a_version_of_what_is_not_published_is_named() {
        let manifest =
            "[package]\npublish = false\n[dependencies]\nsame = { path = \"../cokv-core\", version = \"1\" }";
        let found = found("cokv-core", manifest, &[("lib.rs", "")]);
        assert!(found[0].starts_with("cokv-core/Cargo.toml:4: same is not published"), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn prints_are_named_but_not_those_of_tests_comments_and_the_command_line() {
        let text = "mod quiet;\nfn f() {\n    println!(\"x\");\n}\n// println!()\n#[cfg(test)]\nmod tests {\n fn g() { dbg!(1); }\n}\n";
        let found_in = found("cokv-core", "", &[("lib.rs", text), ("quiet.rs", "const X: &str = \"dbg!(1)\";")]);
        assert_eq!(found_in.len(), 1, "{found_in:?}");
        assert!(found_in[0].starts_with("cokv-core/src/lib.rs:3: println! outside of cokv-bench/src/cli"));
        let files = [("lib.rs", "mod cli;"), ("cli/mod.rs", "fn f() { println!() }")];
        assert!(found("cokv-bench", "", &files).is_empty());
    }

    #[test]
    fn kernels_are_no_business_of_a_benchmark() {
        let text = "use cokv_models::{LanguageModel, kernel::pool};\nfn f() { cokv_models::kernel::pool::map() }";
        let files = [("lib.rs", text)];
        let found = found("cokv-bench", "", &files);
        assert!(found[0].starts_with("cokv-bench/src/lib.rs:1: cokv_models::kernel is no business"), "{found:?}");
        assert!(found[1].starts_with("cokv-bench/src/lib.rs:2:"), "{found:?}");
    }
}
