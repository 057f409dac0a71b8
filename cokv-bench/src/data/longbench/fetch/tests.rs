//! Fetching against a hub and a web server on the loopback interface.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::super::archive::tests::{archive, damage};
use super::*;

const DATA: &str = "/datasets/THUDM/LongBench/resolve/main/data.zip";
const PROMPTS: &str = "/config/dataset2prompt.json";
const LENGTHS: &str = "/config/dataset2maxlen.json";

#[derive(Clone)]
enum Answer {
    Whole(Vec<u8>),
    /// Half of what is promised, then the end.
    Cut(Vec<u8>),
    /// Half of what is promised, then nothing.
    Stalled(Vec<u8>),
    Moved(&'static str),
    Status(u16),
}

#[derive(Default)]
struct Shared {
    answers: HashMap<String, Answer>,
    requests: Vec<String>,
    kept_open: Vec<TcpStream>,
}

impl Shared {
    fn answer(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        let head: Vec<String> =
            BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let path = head[0].split(' ').nth(1).unwrap().to_owned();
        let lower: Vec<String> = head.iter().map(|line| line.to_lowercase()).collect();
        let range = lower.iter().find_map(|line| line.strip_prefix("range: bytes="));
        let answer = self.answers.get(&path).cloned().unwrap_or(Answer::Status(404));
        self.requests.push(format!("{path} {}", range.unwrap_or_default()));
        let (bytes, part) = match &answer {
            Answer::Whole(bytes) => (bytes, 1),
            Answer::Cut(bytes) | Answer::Stalled(bytes) => (bytes, 2),
            Answer::Moved(to) => {
                let head =
                    format!("HTTP/1.1 302 x\r\nConnection: close\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                return stream.write_all(head.as_bytes());
            }
            Answer::Status(status) => {
                let head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
                return stream.write_all(head.as_bytes());
            }
        };
        let (first, last) = match range.and_then(|range| range.split_once('-')) {
            Some((first, last)) => (first.parse().unwrap(), last.parse().map_or(bytes.len(), |last: usize| last + 1)),
            None => (0, bytes.len()),
        };
        let body = &bytes[first..last];
        let status = if range.is_some() { 206 } else { 200 };
        let range = format!("Content-Range: bytes {first}-{}/{}\r\nETag: \"tag\"", last - 1, bytes.len());
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n{range}\r\nX-Repo-Commit: c0ffee\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(&body[..length.div_ceil(part)])?;
        if matches!(answer, Answer::Stalled(_)) {
            self.kept_open.push(stream);
        }
        Ok(())
    }
}

/// A server, and a folder for all that is fetched from it.
struct Place {
    folder: tempfile::TempDir,
    fetcher: Fetcher,
    shared: Arc<Mutex<Shared>>,
}

impl Place {
    /// All is well.
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared::default()));
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that hangs up early is its own affair.
                let _ = theirs.lock().unwrap().answer(stream.unwrap());
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let options = FetchOptions {
            observer: Observer::default(),
            hub_endpoint: address.clone(),
            hub_cache: folder.path().join("hub"),
            hub_token: None,
            hub_offline: false,
            cache: folder.path().join("cache"),
            patience: Duration::from_millis(500),
            ..FetchOptions::from_env()
        };
        let place = Self { folder, fetcher: Fetcher { options, configuration: format!("{address}/config") }, shared };
        place.set(DATA, Answer::Whole(records()));
        place.set(PROMPTS, Answer::Whole(b"{\"trec\": \"{context}\"}".to_vec()));
        place.set(LENGTHS, Answer::Whole(b"{\"trec\": 64}".to_vec()));
        place
    }

    fn set(&self, path: &str, answer: Answer) {
        self.shared.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }

    fn fetch(&self) -> Result<PathBuf, String> {
        self.fetcher.folder(&dataset()).map_err(|error| error.to_string())
    }

    /// Fetching fails with a message that has all these parts, and succeeds when the answer has been mended.
    fn fails(&self, path: &str, answer: Answer, parts: &[&str]) {
        let sound = self.shared.lock().unwrap().answers[path].clone();
        self.set(path, answer);
        let error = self.fetch().unwrap_err();
        parts.iter().for_each(|part| assert!(error.contains(part), "expected `{part}` in: {error}"));
        self.set(path, sound);
        assert!(self.broken_files().is_empty(), "{:?}", self.broken_files());
    }

    /// What lies in cokv's cache and is not whole.
    fn broken_files(&self) -> Vec<PathBuf> {
        let config = self.fetcher.options.cache.join("longbench/THUDM--LongBench/c0ffee/config");
        let files = fs::read_dir(config).into_iter().flatten().map(|entry| entry.unwrap().path());
        files.filter(|path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).is_err()).collect()
    }
}

fn records() -> Vec<u8> {
    archive(&[("data/trec.jsonl", "a record"), ("data/trec_e.jsonl", "another")])
}

fn dataset() -> HubSource {
    HubSource { repository: REPOSITORY.into(), revision: None, file: None }
}

#[test]
fn longbench_is_fetched_once() {
    let place = Place::new();
    let folder = place.fetch().unwrap();
    assert_eq!(folder, place.fetcher.options.cache.join("longbench/THUDM--LongBench/c0ffee"));
    assert_eq!(fs::read_to_string(folder.join("data/trec.jsonl")).unwrap(), "a record");
    assert_eq!(fs::read_to_string(folder.join("config/dataset2maxlen.json")).unwrap(), "{\"trec\": 64}");
    place.requests();
    assert_eq!(place.fetch().unwrap(), folder);
    assert_eq!(place.requests(), [""; 0]);

    // As a user would have it.
    let own = place.folder.path().join("LongBench");
    assert_eq!(place.fetcher.fill(&dataset(), &own).unwrap(), 2);
    assert!(own.join("data/trec_e.jsonl").is_file() && own.join("config/dataset2prompt.json").is_file());
}

#[test]
fn a_configuration_that_is_there_is_left_alone() {
    let place = Place::new();
    let own = place.folder.path().join("LongBench");
    fs::create_dir_all(own.join("config")).unwrap();
    fs::write(own.join("config/dataset2prompt.json"), "mine").unwrap();
    place.fetcher.fill(&dataset(), &own).unwrap();
    assert_eq!(fs::read_to_string(own.join("config/dataset2prompt.json")).unwrap(), "mine");
    assert!(own.join("config/dataset2maxlen.json").is_file());
}

#[test]
fn failures_of_the_configuration_say_what_to_do_and_leave_nothing_half() {
    let place = Place::new();
    let by_hand =
        "dataset2prompt.json is still missing: copy LongBench/config/dataset2prompt.json from https://github.com";
    let other = "COKV_LONGBENCH_CONFIG";
    place.fails(PROMPTS, Answer::Status(404), &["/config/dataset2prompt.json: ", "status 404", by_hand, other]);
    place.fails(PROMPTS, Answer::Status(401), &["status 401", "HF_TOKEN is sent to the hub only", by_hand]);
    let long = vec![b'7'; 1000];
    place.fails(PROMPTS, Answer::Cut(long.clone()), &["run again", by_hand]);
    place.fails(PROMPTS, Answer::Stalled(long), &["nothing arrived for up to 500ms", by_hand]);
    place.fails(PROMPTS, Answer::Whole(b"<html>log in".to_vec()), &["no JSON table", by_hand]);
    place.set("/elsewhere", Answer::Whole(b"{\"moved\": \"here\"}".to_vec()));
    place.set(PROMPTS, Answer::Moved("/elsewhere"));
    let folder = place.fetch().unwrap();
    assert!(fs::read_to_string(folder.join("config/dataset2prompt.json")).unwrap().contains("moved"));
    let downloads = place.requests().iter().filter(|request| request.starts_with(DATA)).count();
    assert_eq!(downloads, 2, "the archive's size and the archive, once");
}

#[test]
fn failures_of_the_hub_say_what_to_do_and_are_made_good() {
    let place = Place::new();
    place.fails(DATA, Answer::Status(404), &["data.zip", "datasets/THUDM/LongBench", "status 404"]);
    place.fails(DATA, Answer::Status(401), &["status 401", "HF_TOKEN"]);
    place.fails(DATA, Answer::Cut(records()), &["data.zip", "run again"]);
    place.requests();
    let folder = place.fetch().unwrap();
    assert_eq!(fs::read_to_string(folder.join("data/trec.jsonl")).unwrap(), "a record");
    assert!(!place.requests().iter().any(|request| *request == format!("{DATA} 0-")), "it is resumed");

    let stalled = Place::new();
    stalled.fails(
        DATA,
        Answer::Stalled(records()),
        &["nothing arrived for 500ms", "check the network", "data.zip with another machine"],
    );

    let offline = Place::new();
    let options = FetchOptions { hub_offline: true, ..offline.fetcher.options.clone() };
    let error = Fetcher { options, ..offline.fetcher.clone() }.folder(&dataset()).unwrap_err().to_string();
    assert!(error.contains("hub:THUDM/LongBench is not (wholly) in the cache"), "{error}");
    assert_eq!(offline.requests(), [""; 0]);
}

#[test]
fn a_broken_archive_is_not_taken_for_records() {
    let place = Place::new();
    place.set(DATA, Answer::Whole(damage(records(), "another")));
    let error = place.fetch().unwrap_err();
    assert!(error.contains("`data/trec_e.jsonl` in it is damaged"), "{error}");
    assert!(!place.fetcher.options.cache.join("longbench/THUDM--LongBench/c0ffee/data").exists());
    // What the message says to do.
    let path = error.split(": `data/").next().unwrap();
    fs::remove_file(path).unwrap();
    place.set(DATA, Answer::Whole(records()));
    place.fetch().unwrap();
}

/// Another dataset of the hub, as records of one's own: its own files, else those that the hub converted.
#[test]
fn records_of_any_dataset_are_fetched_by_their_split() {
    use crate::data::{DataSettings, Suite};

    let place = Place::new();
    let listing = |files: &[&str]| {
        let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
        Answer::Whole(serde_json::json!({ "sha": "c0ffee", "siblings": siblings }).to_string().into_bytes())
    };
    let line = |word: &str| {
        format!("{{\"context\":\"It is {word} here.\",\"question\":\"What?\",\"answer\":\"{word} it is\"}}\n")
    };
    let open = |source: &str| {
        let settings = DataSettings { source: source.into(), ..DataSettings::default() };
        Suite::open(&settings, &place.fetcher).map_err(|error| error.to_string())
    };
    let context = |suite: Suite| {
        let Suite::Read { tasks, .. } = suite else { panic!("not read") };
        (tasks[0].protocol.name.clone(), tasks[0].records[0].context.clone())
    };
    place.set("/api/datasets/me/mine/revision/main", listing(&["README.md", "train.jsonl", "test.jsonl"]));
    place.set("/datasets/me/mine/resolve/main/test.jsonl", Answer::Whole(line("test").into_bytes()));
    place.set("/datasets/me/mine/resolve/main/train.jsonl", Answer::Whole(line("train").into_bytes()));
    assert_eq!(context(open("hub:me/mine").unwrap()), ("mine".into(), "It is test here.".into()));
    assert_eq!(context(open("hub:me/mine:train").unwrap()), ("mine-train".into(), "It is train here.".into()));
    let none = open("hub:me/mine:dev").unwrap_err();
    assert!(none.contains("hub:me/mine:dev has no files of records of dev"), "{none}");

    place.set("/api/datasets/me/script/revision/main", listing(&["script.py"]));
    place.set("/api/datasets/me/script/revision/refs%2Fconvert%2Fparquet", listing(&["default/test/0000.jsonl"]));
    let converted = "/datasets/me/script/resolve/refs%2Fconvert%2Fparquet/default/test/0000.jsonl";
    place.set(converted, Answer::Whole(line("converted").into_bytes()));
    assert_eq!(context(open("hub:me/script:test").unwrap()).1, "It is converted here.");
    let unknown = open("hub:me/nobody").unwrap_err();
    assert!(unknown.contains("me/nobody"), "{unknown}");
}
