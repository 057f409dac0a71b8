//! Reports of real runs, looked at by a real browser where there is one.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{METHODS, PASSKEY, cokv, config, stderr, stdout};
use serde_json::Value as Json;

const ADA: &str = "[[method]]\nname = 'ada'\ncompressor = 'snapkv'\nallocator = 'ada-kv'\n";

#[test]
fn a_run_becomes_a_page_that_a_browser_shows() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cokv.toml"), config(PASSKEY, &format!("{METHODS}{ADA}"))).unwrap();
    stdout(&cokv(folder.path(), &["bench", "--quiet"]));
    stdout(&cokv(folder.path(), &["report", "runs/cokv", "--out", "page"]));
    let out = folder.path().join("page");
    let page = fs::read_to_string(out.join("index.html")).unwrap();

    let ids = |kind: &str| -> Vec<String> {
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        let of_kind = files.filter(|path| path.extension().is_some_and(|extension| extension == kind));
        of_kind.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let (mut tables, figures) = (ids("csv"), ids("svg"));
    tables.retain(|name| !["cells", "predictions"].contains(&name.as_str()));
    let cells = fs::read_to_string(out.join("cells.csv")).unwrap();
    assert!(cells.contains(",snapkv,32,passkey,2,score,"), "{cells}");
    let has =
        |names: &[String], what: &str| assert!(names.iter().any(|name| name.ends_with(what)), "{what}: {names:?}");
    ["scores", "pairwise", "tasks", "damage", "methods", "cost"].iter().for_each(|what| has(&tables, what));
    ["score-by-budget", "score-by-bytes", "budgets-of-ada", "positions-of-snapkv"]
        .iter()
        .for_each(|what| has(&figures, what));
    for id in tables.iter().chain(&figures) {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    let markdown = fs::read_to_string(out.join("report.md")).unwrap();
    assert!(markdown.contains("| ada ") && markdown.contains("budgets = [32"), "{markdown}");
    assert!(markdown.contains("ada − snapkv at 32: ") || markdown.contains("snapkv − ada at 32: "), "{markdown}");
    let latex = fs::read_to_string(out.join("report.tex")).unwrap();
    assert!(latex.contains("\\multicolumn{3}{c}{32 tokens per KV head}"), "{latex}");
    let predictions = fs::read_to_string(out.join("predictions.csv")).unwrap();
    // Two records, each with the full cache and three budgets of two methods.
    assert_eq!(predictions.matches(",passkey,passkey-").count(), 14, "{predictions}");
    assert!(page.contains("What the model said to 2 of 2 records"));
    assert!(page.contains("records: passkey 2 · prompts of "));

    let Some(seen) = browse(&out) else { return };
    for id in tables.iter().chain(&figures) {
        assert!(seen.contains(&format!("id=\"{id}\"")), "{id} is not in the browser's document");
    }
}

/// The document as Chromium has it, after a check that it asked for nothing and complained of nothing. None where there is
/// no Chromium.
fn browse(out: &Path) -> Option<String> {
    let found = ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
    let Some(browser) = found else {
        cokv_golden::skip("no Chromium is here");
        return None;
    };
    let log = out.join("net-log.json");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=2000"])
        .arg(format!("--user-data-dir={}", out.join("profile").display()))
        .arg(format!("--log-net-log={}", log.display()))
        .arg(format!("file://{}", out.join("index.html").display()))
        .output()
        .unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
    // What a page asks for is logged with the page as its initiator; the browser's own errands have none.
    let requests = fs::read_to_string(&log).unwrap_or_default();
    let asked = requests
        .lines()
        .filter(|line| line.contains("\"initiator\":\"file://") || line.contains("\"initiator\":\"null\""));
    let left: Vec<&str> = asked.filter(|line| line.contains("\"url\":\"http")).collect();
    assert!(left.is_empty(), "{left:?}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn cells_of_two_runs_and_of_two_methods_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let text = config(PASSKEY, METHODS);
    fs::write(folder.path().join("cokv.toml"), &text).unwrap();
    stdout(&cokv(folder.path(), &["bench", "--quiet"]));
    let same = stdout(&cokv(folder.path(), &["compare", "runs/cokv", "runs/cokv", "--json"]));
    let same: Json = serde_json::from_str(&same).unwrap();
    assert_eq!((&same["comparisons"]["count"], &same["correction"]), (&16.into(), &"holm".into()), "{same}");
    let cells = same["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    let equal = |cell: &Json| cell["records"] == 2 && cell["differences"]["score"]["mean"] == 0.0;
    assert!(cells.iter().all(|cell| equal(cell) && cell["tasks"][0]["differ"] == 0), "{same}");
    assert!(cells.iter().all(|cell| cell["first"] == cell["second"]), "{same}");
    let none = cokv(folder.path(), &["compare", "runs/cokv:snapkv", "runs/cokv:snpkv"]);
    assert!(stderr(&none).contains("did you mean `snapkv`?"), "{}", stderr(&none));
    let nothing = cokv(folder.path(), &["report", "runs/other"]);
    assert!(stderr(&nothing).contains("no results here"), "{}", stderr(&nothing));
}

/// Rows of all files of a run's folder, sorted, without the seconds.
fn all_rows(folder: &Path) -> Vec<String> {
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let results = files.iter().filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("results"));
    let mut rows: Vec<String> = results.flat_map(|path| common::rows_of(path)).map(|row| row.to_string()).collect();
    rows.sort();
    rows
}

#[test]
fn shards_share_a_folder_and_make_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("tasks = ['passkey']\nrecords = 3\ncontext_tokens = 200", METHODS);
    fs::write(folder.path().join("whole.toml"), format!("name = 'whole'\n{text}")).unwrap();
    fs::write(folder.path().join("parts.toml"), format!("name = 'parts'\n{text}")).unwrap();
    let table = stdout(&cokv(folder.path(), &["bench", "--config", "whole.toml"]));
    let first = cokv(folder.path(), &["bench", "--config", "parts.toml", "--shard", "1/2"]);
    assert!(stderr(&first).contains("4 of 12 rows are not done"), "{}", stderr(&first));
    assert!(!folder.path().join("runs/parts/pred").exists());
    let second = stdout(&cokv(folder.path(), &["bench", "--config", "parts.toml", "--shard", "2/2"]));
    assert_eq!(second, table);
    assert_eq!(all_rows(&folder.path().join("runs/parts")), all_rows(&folder.path().join("runs/whole")));
    assert!(folder.path().join("runs/parts/pred").exists());

    // A program is told the same.
    let events = stdout(&cokv(folder.path(), &["bench", "--config", "parts.toml", "--json"]));
    let last: Json = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["missing_rows"].as_u64()), (Some("done"), Some(0)));
    assert_eq!(last["cells"].as_array().unwrap().len(), 4);
}

#[test]
fn sharing_changes_the_time_and_not_the_answers() {
    let folder = tempfile::tempdir().unwrap();
    let text = config(PASSKEY, METHODS);
    fs::write(folder.path().join("shared.toml"), format!("name = 'shared'\n{text}")).unwrap();
    fs::write(folder.path().join("alone.toml"), format!("name = 'alone'\n{text}[run]\nshare_prefill = false\n"))
        .unwrap();
    for name in ["shared", "alone"] {
        stdout(&cokv(folder.path(), &["bench", "--quiet", "--config", &format!("{name}.toml")]));
    }
    let compared = stdout(&cokv(folder.path(), &["compare", "runs/shared", "runs/alone", "--json"]));
    let compared: Json = serde_json::from_str(&compared).unwrap();
    for cell in compared["cells"].as_array().unwrap() {
        for difference in cell["differences"].as_object().unwrap().values() {
            assert!(difference["mean"].as_f64().unwrap().abs() < 1e-3, "{cell}");
        }
    }
}

/// Minutes: a run is killed at twenty moments.
#[test]
#[ignore = "takes minutes"]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let text = config("tasks = ['passkey', 'key-value']\nrecords = 12\ncontext_tokens = 300", METHODS);
    fs::write(folder.path().join("calm.toml"), format!("name = 'calm'\n{text}")).unwrap();
    fs::write(folder.path().join("killed.toml"), format!("name = 'killed'\n{text}")).unwrap();
    let started = std::time::Instant::now();
    stdout(&cokv(folder.path(), &["bench", "--config", "calm.toml", "--quiet"]));
    let whole = started.elapsed();
    for moment in 0..20u32 {
        let mut run = Command::new(env!("CARGO_BIN_EXE_cokv"))
            .current_dir(folder.path())
            .args(["bench", "--config", "killed.toml", "--quiet"])
            .spawn()
            .unwrap();
        // Moments all over a run, in no order: a twentieth to all of a fifth of it.
        std::thread::sleep(whole / 100 * (5 + moment * 7 % 20));
        run.kill().unwrap();
        run.wait().unwrap();
    }
    stdout(&cokv(folder.path(), &["bench", "--config", "killed.toml"]));
    assert_eq!(all_rows(&folder.path().join("runs/killed")), all_rows(&folder.path().join("runs/calm")));
}
