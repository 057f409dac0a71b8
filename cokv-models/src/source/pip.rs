//! Downloads of wheels through the user's own pip, which knows the user's index, proxy and certificates.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::{FetchEvent, FetchOptions, SourceError};

/// Downloads the wheel of a `package==version` into `folder` and returns its path. `label` is added to what observers hear.
pub(super) fn download(
    requirement: &str,
    folder: &Path,
    options: &FetchOptions,
    label: &str,
) -> Result<PathBuf, SourceError> {
    let log = folder.join("pip.log");
    let (python, mut child) = start(requirement, folder, &log, options)?;
    let what = format!("{requirement}{label}");
    let tell = |bytes: u64| options.observer.tell(FetchEvent::Fetching { what: &what, bytes, total: None });
    tell(0);
    let status = wait(&mut child, || tell(size_of_folder(folder)));
    options.observer.tell(FetchEvent::Ended);
    let status = status.map_err(SourceError::io("wait for", &python))?;

    let failed = |status: String| {
        let output = tail(&fs::read_to_string(&log).unwrap_or_default(), 15);
        let python = python.display();
        let advice = if output.contains("No module named pip") {
            format!("install pip (`{python} -m ensurepip`), or name a Python that has it in COKV_PYTHON")
        } else {
            format!("check the network and pip's settings (`{python} -m pip config list`)")
        };
        let command = format!("{python} -m pip download {requirement}");
        SourceError::PipFailed { command, status, output, advice }
    };
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    find_wheel(folder).ok_or_else(|| failed("it left no wheel".to_owned()))
}

fn start(
    requirement: &str,
    folder: &Path,
    log: &Path,
    options: &FetchOptions,
) -> Result<(PathBuf, Child), SourceError> {
    let candidates = match &options.python {
        Some(python) => vec![python.clone()],
        None => vec![PathBuf::from("python3"), PathBuf::from("python")],
    };
    let output = File::create(log).map_err(SourceError::io("create", log))?;
    for python in &candidates {
        let mut command = Command::new(python);
        command
            // Only wheels: a source archive would run its own build script.
            .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"])
            .args(["--disable-pip-version-check", "--no-input", "--progress-bar=off", "--dest"])
            .arg(folder)
            .arg(requirement)
            // pip downloads into its temporary folder first: there the progress is seen, and cleared if it is killed.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|variable| (variable, folder)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(SourceError::io("write", log))?)
            .stderr(output.try_clone().map_err(SourceError::io("write", log))?);
        // pip's own patience (5 retries of 15 seconds and growing pauses) makes a machine without a network look hung.
        for (variable, value) in [("PIP_RETRIES", "1"), ("PIP_DEFAULT_TIMEOUT", "15")] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, value);
            }
        }
        match command.spawn() {
            Ok(child) => return Ok((python.clone(), child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(SourceError::io("run", python)(error)),
        }
    }
    let tried: Vec<String> = candidates.iter().map(|python| format!("`{}`", python.display())).collect();
    Err(SourceError::PythonMissing { tried: tried.join(" or ") })
}

fn wait(child: &mut Child, mut tick: impl FnMut()) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tick();
        thread::sleep(Duration::from_millis(100));
    }
}

/// The bytes of all files below `folder`. Files come and go meanwhile, so what cannot be read counts as nothing.
fn size_of_folder(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of_folder(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
