//! A run spread over tasks equals one that is not, whoever runs the tasks.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Stdio;
#[cfg(unix)]
use std::time::{Duration, Instant};

use common::{METHODS, cokv, config, rows_of, stderr, stdout};

const DATA: &str = "tasks = ['passkey']\nrecords = 3\ncontext_tokens = 200";

/// Two runs that differ in their names.
fn write_runs(folder: &Path, data: &str, methods: &str) {
    for name in ["whole", "parts"] {
        let text = format!("name = '{name}'\n{}", config(data, methods));
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
}

/// Rows of all files of a run's folder, sorted, without the seconds.
fn all_rows(run: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).collect();
    let results = files.iter().filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("results"));
    let mut rows: Vec<String> = results.flat_map(|path| rows_of(path)).map(|row| row.to_string()).collect();
    rows.sort();
    rows
}

/// The table with the page's numbers, without the run's name.
fn table(run: &Path) -> (String, String) {
    let read = |name: &str| fs::read_to_string(run.join(name)).unwrap();
    let name = format!("{},", run.file_name().unwrap().to_str().unwrap());
    (read("table.md"), read("report/cells.csv").lines().map(|line| line.trim_start_matches(&name)).collect())
}

#[test]
fn workers_make_the_rows_of_one_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_runs(path, DATA, METHODS);
    stdout(&cokv(path, &["bench", "--config", "whole.toml", "--quiet"]));
    let submit = ["cluster", "submit", "--config", "parts.toml", "--tasks", "5", "--workers", "2"];
    let said = stderr(&cokv(path, &submit));
    assert!(said.contains("matrix: 5 of 5 tasks to do") && said.contains("report in "), "{said}");
    let [whole, parts] = ["runs/whole", "runs/parts"].map(|run| path.join(run));
    assert_eq!(all_rows(&parts), all_rows(&whole));
    assert_eq!(table(&parts), table(&whole));
    let status = stdout(&cokv(path, &["cluster", "status", "runs/parts"]));
    assert!(status.contains("matrix          5 of 5 done") && status.contains("12 of 12 rows"), "{status}");

    // Nothing is done twice, and what is lost is done again.
    let nothing = stdout(&cokv(path, &["cluster", "resubmit", "runs/parts", "--workers", "2"]));
    assert!(nothing.contains("nothing is missing"), "{nothing}");
    fs::remove_file(parts.join("results-2-of-5.0.jsonl")).unwrap();
    let again = cokv(path, &["cluster", "resubmit", "runs/parts", "--workers", "2", "--all"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(all_rows(&parts), all_rows(&whole));
}

/// What Kubernetes and PBS run is what Slurm runs, with another variable.
#[test]
fn a_task_is_told_its_index_by_whoever_runs_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_runs(path, DATA, METHODS);
    let prepared = stdout(&cokv(path, &["cluster", "prepare", "--config", "parts.toml", "--tasks", "3"]));
    assert_eq!(prepared, "fetch 1\nmatrix 3\nreport 1\n");
    let work = |stage: &str, variable: Option<(&str, &str)>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cokv"));
        command.env("CUDA_VISIBLE_DEVICES", "").current_dir(path).envs(variable);
        command.args(["cluster", "work", "--run", "runs/parts", "--stage", stage]).output().unwrap()
    };
    stdout(&work("fetch", Some(("SLURM_ARRAY_TASK_ID", "0"))));
    let early = work("report", Some(("SLURM_ARRAY_TASK_ID", "0")));
    assert!(!early.status.success(), "no row is there yet");
    for (variable, index) in [("SLURM_ARRAY_TASK_ID", "0"), ("JOB_COMPLETION_INDEX", "1"), ("PBS_ARRAY_INDEX", "2")] {
        let output = work("matrix", Some((variable, index)));
        stdout(&output);
        assert!(stderr(&output).contains(&format!("matrix-{index} on ")), "{}", stderr(&output));
    }
    stdout(&work("report", Some(("JOB_COMPLETION_INDEX", "0"))));
    assert_eq!(all_rows(&path.join("runs/parts")).len(), 12);
    for (stage, variable, said) in [
        ("matrix", None, "which task is it? Give --index, or set one of SLURM_ARRAY_TASK_ID"),
        ("matrix", Some(("PBS_ARRAY_INDEX", "3")), "the index 3 is none of stage matrix, whose 3 tasks count from 0"),
        ("scores", Some(("PBS_ARRAY_INDEX", "0")), "the run has no stage `scores`, only fetch, matrix, report"),
        ("matrix", Some(("PBS_ARRAY_INDEX", "x")), "PBS_ARRAY_INDEX=x: no index"),
    ] {
        let refused = stderr(&work(stage, variable));
        assert!(refused.contains(said), "{refused}");
    }
}

/// A played game, a watched model, and settings to choose: all of them shared out, all of them what one machine finds.
#[test]
fn calibrations_detections_and_selections_are_shared_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let methods = "[[method]]\nname = 'played'\ncompressor = 'snapkv'\nallocator = 'cokv'\nimportance = 'game'\n\
                   select = { drop_lowest = [1, 5] }\n\
                   [[method]]\nname = 'watched'\ncompressor = 'snapkv'\nallocator = 'headkv'\nimportance = 'watch'\n\
                   [importance.game]\nestimator = 'scpr'\ntasks = ['passkey']\nrecords = 2\ncontext_tokens = 100\nbatch = 8\n\
                   reliability = 0.999\nmax_evaluations = 420\n\
                   [importance.watch]\nestimator = 'kvzip'\ntasks = ['passkey']\nrecords = 5\ncontext_tokens = 100\n";
    for name in ["whole", "parts"] {
        let run = format!("[run]\nfolder = 'of-{name}'\nnoisy_scores = 'mark'\n");
        let text = config("tasks = ['passkey']\nrecords = 2\ncontext_tokens = 150", &format!("{methods}{run}"));
        fs::write(path.join(format!("{name}.toml")), format!("name = 'x'\n{text}")).unwrap();
    }
    stdout(&cokv(path, &["select", "--config", "whole.toml", "--quiet"]));
    stdout(&cokv(path, &["bench", "--config", "whole.toml", "--quiet"]));
    let output = cokv(path, &["cluster", "submit", "--config", "parts.toml", "--tasks", "4", "--workers", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Fingerprints hold every bit of the scores and what was chosen with them.
    let [whole, parts] = ["of-whole/x", "of-parts/x"].map(|run| path.join(run));
    assert_eq!(all_rows(&parts.join("selection")), all_rows(&whole.join("selection")));
    assert_eq!(all_rows(&parts), all_rows(&whole));
    assert_eq!(table(&parts), table(&whole));
    // Shared out, and not left to whoever makes the scores.
    let shared = fs::read_dir(path.join("of-parts/importance/parts")).unwrap().map(|entry| entry.unwrap().path());
    let files = shared.map(|table| fs::read_dir(table).unwrap().count()).collect::<Vec<_>>();
    assert!(files.len() == 2 && files.iter().all(|&files| files >= 2), "{files:?}");
}

/// Starts a command, lets it make its first rows, and sends it a signal.
#[cfg(unix)]
fn stopped_by(signal: &str, path: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cokv"));
    command.env("CUDA_VISIBLE_DEVICES", "").current_dir(path).args(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let run = path.join("runs/parts");
    let waiting = Instant::now();
    while !run.join("results-1-of-1.0.jsonl").exists() && !run.join("results-2-of-2.0.jsonl").exists()
        || all_rows(&run).is_empty()
    {
        assert!(waiting.elapsed() < Duration::from_secs(300), "no rows");
        std::thread::sleep(Duration::from_millis(20));
    }
    let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait_with_output().unwrap()
}

/// As Slurm tells a task that its time is almost up, and as whoever preempts one does.
#[cfg(unix)]
#[test]
fn a_task_that_is_told_to_stop_finishes_its_prompt_and_goes_on_later() {
    for signal in ["-USR1", "-TERM"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        write_runs(path, "tasks = ['passkey']\nrecords = 8\ncontext_tokens = 250", METHODS);
        stdout(&cokv(path, &["cluster", "prepare", "--config", "parts.toml", "--tasks", "1"]));
        let work = ["cluster", "work", "--run", "runs/parts", "--stage", "matrix", "--index", "0"];
        let output = stopped_by(signal, path, &work);
        assert_eq!(output.status.code(), Some(i32::from(cokv_bench::cluster::AGAIN)), "{}", stderr(&output));
        let rows = all_rows(&path.join("runs/parts")).len();
        assert!(rows.is_multiple_of(4) && rows < 32, "{rows} rows: no whole prompts, or all of them");
        assert!(!path.join("runs/parts/cluster/tasks/matrix-0.json").exists(), "it is neither done nor failed");
        stdout(&cokv(path, &work));
        let rows = all_rows(&path.join("runs/parts"));
        assert_eq!(rows.iter().collect::<BTreeSet<_>>().len(), 32);
        assert_eq!(rows.len(), 32, "none is made twice");
    }
}

#[cfg(unix)]
#[test]
fn workers_that_are_stopped_go_on_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_runs(path, "tasks = ['passkey']\nrecords = 8\ncontext_tokens = 250", METHODS);
    let output = stopped_by("-TERM", path, &["cluster", "submit", "--config", "parts.toml", "--workers", "2"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("cokv cluster resubmit ") && said.contains(" --workers 2 goes on"), "{said}");
    let again = cokv(path, &["cluster", "resubmit", "runs/parts", "--workers", "2"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(all_rows(&path.join("runs/parts")).len(), 32);
}

/// The files for Kubernetes and PBS run the command that the scripts for Slurm run.
#[cfg(unix)]
#[test]
fn files_for_other_clusters_run_the_same_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_runs(path, DATA, METHODS);
    stdout(&cokv(path, &["cluster", "prepare", "--config", "parts.toml", "--tasks", "32"]));
    let run = path.join("runs/parts");
    let shipped = |name: &str| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/clusters")).join(name);
    let binary = Path::new(env!("CARGO_BIN_EXE_cokv"));
    let slurm = stdout(&cokv(path, &["cluster", "submit", "--config", "parts.toml", "--dry-run"]));
    let of_slurm = |line: &&str| line.contains(" cluster work ") && line.contains("--stage matrix");
    let command = slurm.lines().find(of_slurm).unwrap().trim_end_matches(" &").replace(run.to_str().unwrap(), "RUN");
    assert!(command.ends_with("/cokv cluster work --run RUN --stage matrix"), "{command}");

    let kubernetes = fs::read_to_string(shipped("kubernetes.yaml")).unwrap();
    let line = kubernetes.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    let words: Vec<String> = serde_json::from_str(line).unwrap();
    assert_eq!(
        words.join(" ").replace("/shared/bin", "").replace("/shared/runs/run", "RUN"),
        "/cokv cluster work --run RUN --stage matrix"
    );
    let exit = kubernetes.lines().any(|line| line.contains(&format!("values: [{}]", cokv_bench::cluster::AGAIN)));
    assert!(exit && kubernetes.contains("completionMode: Indexed"), "{kubernetes}");

    // PBS runs a script, and so do we: the task is one that has nothing to do among 32.
    let places = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut pbs = std::process::Command::new("bash");
    pbs.arg(shipped("pbs.sh")).current_dir(path).env("PATH", places).env("CUDA_VISIBLE_DEVICES", "");
    let output = pbs.env("RUN", &run).env("STAGE", "matrix").env("PBS_ARRAY_INDEX", "31").output().unwrap();
    stdout(&output);
    assert!(stderr(&output).contains("matrix-31 on "), "{}", stderr(&output));
    assert!(run.join("cluster/tasks/matrix-31.json").exists());
}
