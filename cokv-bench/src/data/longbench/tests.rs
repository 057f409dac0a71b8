use std::fs;

use cokv_models::source::Observer;

use super::archive::tests::{archive, damage};
use super::*;

const RECORD: &str =
    r#"{"input":"i","context":"c","answers":["a"],"length":3,"language":"en","all_classes":["a","b"],"_id":"x"}"#;

const CONFIGURATION: [(&str, &str); 2] = [
    ("config/dataset2prompt.json", r#"{"trec": "{context}|{input}", "lcc": "{context}"}"#),
    ("config/dataset2maxlen.json", r#"{"trec": 64, "lcc": 64}"#),
];

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn with_configuration(task_file: &str) -> tempfile::TempDir {
    folder(&[&CONFIGURATION[..], &[("data/trec.jsonl", task_file)]].concat())
}

/// What `[data] source` gives, without a network.
fn open(source: &std::path::Path) -> Result<LongBench, DataError> {
    LongBench::open(Files::find(&source.display().to_string(), &Fetcher::from_env(Observer::default()))?)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn records_are_read_up_to_the_limit() {
    let folder = with_configuration(&format!("{RECORD}\n\n{RECORD}\n{RECORD}\n"));
    let longbench = open(folder.path()).unwrap();
    let task = longbench.load("trec", Split::All, 2).unwrap();
    assert_eq!((task.records.len(), task.protocol.max_new_tokens, task.protocol.chat), (2, 64, false));
    assert_eq!([&task.records[0].id, &task.records[1].id], ["x", "x#2"]);
    assert_eq!(longbench.resolve(&names(&["all"])).unwrap(), ["trec"]);
}

#[test]
fn mistakes_name_file_and_line() {
    let unanswered = RECORD.replace(r#"["a"]"#, "[]");
    let folder = with_configuration(&format!("{RECORD}\n{unanswered}\nnot json\n"));
    let longbench = open(folder.path()).unwrap();
    let error = |task: &str, limit: usize| longbench.load(task, Split::All, limit).unwrap_err().to_string();
    assert!(error("trec", 2).contains("data/trec.jsonl:2: `answers` is empty"), "{}", error("trec", 2));
    fs::write(folder.path().join("data/trec.jsonl"), format!("{RECORD}\n\nnot json\n")).unwrap();
    assert!(error("trec", 2).contains("data/trec.jsonl:3: "), "{}", error("trec", 2));
    assert!(error("qasper", 9).contains("dataset2prompt.json: there is no entry for `qasper`"));
    assert!(error("lcc", 9).contains("data/lcc.jsonl: ") && error("lcc", 9).contains("cokv fetch --longbench"));
    assert!(longbench.resolve(&names(&["tric"])).unwrap_err().to_string().contains("did you mean `trec`"));
    assert!(longbench.resolve(&names(&["code"])).unwrap_err().to_string().contains("any task in the group `code`"));
    let bare = tempfile::tempdir().unwrap();
    assert!(open(bare.path()).unwrap_err().to_string().contains("config/dataset2prompt.json: "));
}

#[test]
fn longbench_e_is_asked_as_the_task_it_comes_from() {
    let folder = with_configuration(RECORD);
    let other = RECORD.replace("\"c\"", "\"another context\"");
    fs::write(folder.path().join("data/trec_e.jsonl"), format!("{RECORD}\n{other}\n")).unwrap();
    let longbench = open(folder.path()).unwrap();
    assert_eq!(longbench.resolve(&names(&["all-e", "trec"])).unwrap(), ["trec_e", "trec"]);
    let [plain, e] = ["trec", "trec_e"].map(|task| longbench.load(task, Split::All, 9).unwrap());
    assert_eq!(e.protocol, TaskProtocol { name: "trec_e".into(), ..plain.protocol });
    assert_eq!((e.records[0].task.as_str(), e.records[0].length), ("trec_e", 3));
    assert_eq!(e.records[1].context, "another context");
    // What scores were made from is not tested under the other name either.
    assert_eq!(e.records[0].fingerprint, plain.records[0].fingerprint);
}

#[test]
fn an_archive_is_read_as_a_folder_is() {
    let records = [("data/trec.jsonl", RECORD), ("data/trec_e.jsonl", RECORD)];
    let inside = archive(&[&CONFIGURATION[..], &records].concat());
    let beside = folder(&CONFIGURATION);
    for (place, bytes) in [(tempfile::tempdir().unwrap(), inside), (beside, archive(&records))] {
        let path = place.path().join("data.zip");
        fs::write(&path, bytes).unwrap();
        let longbench = open(&path).unwrap();
        assert_eq!(longbench.resolve(&names(&["all", "all-e"])).unwrap(), ["trec", "trec_e"]);
        for task in ["trec", "trec_e"] {
            assert_eq!(longbench.load(task, Split::All, 9).unwrap().records[0].id, "x");
        }
        let error = longbench.load("lcc", Split::All, 9).unwrap_err().to_string();
        assert!(error.contains("data.zip: there is no data/lcc.jsonl in it"), "{error}");
        let error = longbench.load("qasper", Split::All, 9).unwrap_err().to_string();
        assert!(error.contains("config/dataset2prompt.json: there is no entry for `qasper`"), "{error}");
    }
}

#[test]
fn what_an_archive_lacks_is_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("data.zip");
    fs::write(&path, archive(&[("data/trec.jsonl", RECORD)])).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("config/dataset2prompt.json: ") && error.contains("beside the archive"), "{error}");
    fs::write(&path, "no archive").unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("data.zip: not a readable archive"));

    let place = folder(&CONFIGURATION);
    let path = place.path().join("data.zip");
    let line = RECORD.replace("\"a\"", "3");
    fs::write(&path, archive(&[("data/trec.jsonl", &line)])).unwrap();
    let error = open(&path).unwrap().load("trec", Split::All, 1).unwrap_err().to_string();
    assert!(error.contains("data.zip/data/trec.jsonl:1: "), "{error}");
    fs::write(&path, damage(archive(&[("data/trec.jsonl", RECORD)]), "context")).unwrap();
    let error = open(&path).unwrap().load("trec", Split::All, 1).unwrap_err().to_string();
    assert!(error.contains("data.zip: `data/trec.jsonl` in it is damaged"), "{error}");
}
