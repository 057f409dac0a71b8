//! `cokv cluster` with commands that are called as Slurm's and run every task at once; `benches/cluster/` has the same with a real
//! Slurm, whose nodes are killed.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{METHODS, config, rows_of, stderr, stdout};
use serde_json::Value as Json;

/// Runs the tasks of an array one after the other, as the script says, and prints the number of the job.
const SBATCH: &str = r#"#!/bin/bash
array= script=
for word; do case $word in --array=*) array=${word#*=} ;; --*) ;; *) script=$word ;; esac; done
echo "$*" >> "$FAKE/submitted"
[ "$(basename "$script")" != "${REFUSE:-}.sbatch" ] || { echo 'sbatch: error: Batch job submission failed' >&2; exit 1; }
[ -n "$array" ] || array=$(sed -n 's/^#SBATCH --array=//p' "$script")
log=$(sed -n 's/^#SBATCH --output="\(.*\)"/\1/p' "$script")
id=$(($(wc -l < "$FAKE/submitted") + 100))
for part in $(tr , ' ' <<< "${array%\%*}"); do
    for index in $(seq "${part%-*}" "${part#*-}"); do
        SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$index bash "$script" >> "${log//%a/$index}" 2>&1
    done
done
echo "$id"
"#;

struct Fake(PathBuf);

impl Fake {
    fn new(folder: &Path) -> Self {
        let fake = Self(folder.join("slurm"));
        fs::create_dir(&fake.0).unwrap();
        fake.command("sbatch", SBATCH);
        fake.command("squeue", "#!/bin/bash\ncat \"$FAKE/queue\" 2> /dev/null || true\n");
        fake.command("sacct", "#!/bin/bash\necho 'Slurm accounting storage is disabled' >&2; exit 1\n");
        fake.command("sinfo", "#!/bin/bash\necho all; echo gpu\n");
        fake.command("scancel", "#!/bin/bash\necho \"$*\" >> \"$FAKE/cancelled\"\n");
        fake
    }

    fn command(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// Runs `cokv cluster` beside the commands.
    fn cluster(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let path = format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cokv"));
        command.env("CUDA_VISIBLE_DEVICES", "").env("FAKE", &self.0).env("PATH", path).envs(variables.iter().copied());
        command.current_dir(self.0.parent().unwrap()).arg("cluster").args(arguments).output().unwrap()
    }
}

/// A run of three prompts, in a folder whose name is two words.
fn write_run(folder: &Path) -> PathBuf {
    let text = config("tasks = ['passkey']\nrecords = 3\ncontext_tokens = 100", METHODS);
    fs::write(folder.join("x.toml"), format!("{text}[run]\nfolder = 'my runs'\n")).unwrap();
    folder.join("my runs/x")
}

fn rows(run: &Path) -> usize {
    let files = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
        .flat_map(|path| match path.to_string_lossy() {
            name if name.contains("/results") => rows_of(&path),
            _ => Vec::new(),
        })
        .count()
}

#[test]
fn one_submit_is_a_whole_run_and_a_resubmit_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, run) = (Fake::new(folder.path()), write_run(folder.path()));
    let submit = [
        "submit",
        "--config",
        "x.toml",
        "--tasks",
        "4",
        "--at-once",
        "2",
        "--partition",
        "gpu",
        "--gpus-per-task",
        "1",
    ];
    let dry = stdout(&fake.cluster(&[&submit[..], &["--dry-run", "--sbatch", "account=physics"]].concat(), &[]));
    for line in ["#SBATCH --array=0-3%2", "#SBATCH --account=physics", "sbatch --parsable --dependency=afterok:JOB2 "] {
        assert!(dry.contains(line), "{line}: {dry}");
    }
    assert!(!run.exists() && fake.read("submitted").is_empty(), "a dry run leaves nothing behind");

    let said = stdout(&fake.cluster(&submit, &[]));
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["101", "fetch", "102", "matrix", "103", "report"]);
    let submitted = fake.read("submitted");
    let dependencies =
        ["--parsable /", "--dependency=afterok:101 ", "--dependency=afterok:102 --kill-on-invalid-dep=yes"];
    assert!(submitted.lines().zip(dependencies).all(|(line, has)| line.contains(has)), "{submitted}");
    assert_eq!(rows(&run), 12);
    assert!(run.join("report/index.html").exists());
    let status = stdout(&fake.cluster(&["status", "my runs/x"], &[]));
    assert!(status.contains("matrix          4 of 4 done") && status.contains("12 of 12 rows"), "{status}");

    // A task that is gone, and another that cannot work.
    fs::remove_file(run.join("cluster/tasks/matrix-2.json")).unwrap();
    fs::remove_file(run.join("results-3-of-4.0.jsonl")).unwrap();
    let said = stdout(&fake.cluster(&["resubmit", "my runs/x"], &[]));
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["104", "matrix", "105", "report"]);
    assert!(fake.read("submitted").contains("--array=2%2 "), "{}", fake.read("submitted"));
    assert_eq!(rows(&run), 12);
    assert!(stdout(&fake.cluster(&["resubmit", "my runs/x"], &[])).contains("nothing is missing"));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_submitted() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, run) = (Fake::new(folder.path()), write_run(folder.path()));
    let refused = |arguments: &[&str], variables: &[(&str, &str)], says: &[&str]| {
        let output = fake.cluster(arguments, variables);
        let said = stderr(&output);
        assert!(!output.status.success() && says.iter().all(|text| said.contains(text)), "{said}");
    };
    let submit = ["submit", "--config", "x.toml", "--tasks", "2"];
    let nowhere = folder.path().join("nowhere");
    let path = [("PATH", nowhere.to_str().unwrap())];
    refused(&submit, &path, &["there is no Slurm here (sinfo: ", "--workers N runs the same tasks", "--dry-run shows"]);
    let partition = [&submit[..], &["--partition", "gpus"]].concat();
    refused(&partition, &[], &["there is no partition `gpus` here; there are: all, gpu"]);
    refused(
        &["status", "my runs/x"],
        &[],
        &["submission.json is not there on", "`cokv cluster submit` must have written it"],
    );
    // Of three stages the last is refused.
    refused(
        &submit,
        &[("REFUSE", "report")],
        &["stage report; nothing stays submitted", "Batch job submission failed"],
    );
    assert_eq!(fake.read("cancelled"), "101 102\n");

    // Two submissions: one that goes on, one whose tasks are in the queue.
    let mark = run.join("cluster/submitting");
    fs::write(&mark, "process 4242 of node7").unwrap();
    refused(&submit, &[], &["the run is being submitted by process 4242 of node7", "remove", "submitting"]);
    fs::remove_file(mark).unwrap();
    fs::write(fake.0.join("queue"), "102|1|RUNNING|n2|0:12|None\n").unwrap();
    for again in [&submit[..], &["resubmit", "my runs/x"]] {
        refused(again, &[], &["the run is in Slurm's queue (jobs 102)", "cokv cluster cancel"]);
    }
    let status = fake.cluster(&["status", "my runs/x"], &[]);
    assert!(stdout(&status).contains("running: 1 on n2 (0:12)"), "{}", stdout(&status));
    stdout(&fake.cluster(&["cancel", "my runs/x"], &[]));
    assert!(fake.read("cancelled").ends_with("\n101 102\n"), "{}", fake.read("cancelled"));
}

#[test]
fn nodes_that_differ_are_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let (fake, run) = (Fake::new(folder.path()), write_run(folder.path()));
    stdout(&fake.cluster(&["prepare", "--config", "x.toml", "--tasks", "2"], &[]));
    let work = |run: &str| fake.cluster(&["work", "--run", run, "--stage", "matrix", "--index", "0"], &[]);
    let elsewhere = work("/nowhere/x");
    assert!(stderr(&elsewhere).contains("must lie where every node sees it"), "{}", stderr(&elsewhere));

    // The configuration is changed while tasks run: they go on with what was submitted.
    let changed = fs::read_to_string(folder.path().join("x.toml")).unwrap().replace("records = 3", "records = 1");
    fs::write(folder.path().join("x.toml"), changed).unwrap();
    stdout(&work("my runs/x"));
    assert_eq!(rows(&run), 8, "two of three prompts");
    let status = stdout(&fake.cluster(&["status", "my runs/x"], &[]));
    assert!(status.contains("x.toml has changed since; tasks go on with what was submitted"), "{status}");

    // Another build of cokv.
    let file = run.join("cluster/submission.json");
    let mut submission: Json = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    submission["build"]["sha256"] = "0123456789abcdef".into();
    submission["build"]["host"] = "login1".into();
    fs::write(&file, submission.to_string()).unwrap();
    let other = work("my runs/x");
    let said = stderr(&other);
    assert!(said.contains("is another build than the one that was submitted") && said.contains("on login1"), "{said}");
    let status = stdout(&fake.cluster(&["status", "my runs/x"], &[]));
    assert!(status.contains("1 failed") && status.contains("matrix-0: on ") && status.contains("resubmit"), "{status}");
    assert!(stderr(&fake.cluster(&["resubmit", "my runs/x"], &[])).contains("another build"));
}
