//! `cokv serve` and `cokv chat` as users run them, on the real default model: a document is read once, asked by clients, saved, and asked
//! again by other processes.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::{cokv, stderr, stdout, wheel_source};
use serde_json::{Value as Json, json};

const QUESTION: &str = "What is the door code of the lab?";
const NEW_TOKENS: usize = 12;

/// Some two hundred tokens.
fn document() -> String {
    let day = |day: usize| format!("On day {day} it rained until noon, and the lab was open from 9 to 5.\n");
    let days: String = (0..4).map(day).collect();
    format!("Notes of the lab.\n{days}The door code of the lab is 5583 blue.\n{days}\n")
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), document()).unwrap();
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cokv"));
    command.env("CUDA_VISIBLE_DEVICES", "").env_remove("COKV_API_KEY").env_remove("RUST_BACKTRACE");
    command.current_dir(folder).args(arguments);
    command
}

/// A server that is killed with the test.
struct Server {
    child: Child,
    address: String,
    /// On standard error, before it answered anybody.
    said: String,
    /// Whoever closes this ends the server's log, and the server with it.
    _log: BufReader<std::process::ChildStderr>,
}

impl Server {
    fn start(folder: &Path, rest: &[&str]) -> Self {
        let source = wheel_source();
        let memory: &[&str] = if rest.contains(&"--cache-memory") { &[] } else { &["--cache-memory", "256 MiB"] };
        // Nothing here is about chance: an answer that is drawn may be longer than a test lets it be.
        let arguments = [&["serve", "--model", &source, "--port", "0", "--temperature", "0"], memory, rest].concat();
        let mut child = command(folder, &arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let said = until(&mut log, "serving ");
        let address = said.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { child, address, said, _log: log }
    }

    fn request(&self, method: &str, path: &str, body: &Json) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, method: &str, path: &str, body: &Json) -> Json {
        let (status, body) = self.request(method, path, body);
        assert!(status < 300, "{path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn ask(&self, more: Json) -> Json {
        let mut body = json!({
            "model": "cokv", "temperature": 0, "max_tokens": NEW_TOKENS,
            "messages": [{ "role": "user", "content": QUESTION }],
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.json("POST", "/v1/chat/completions", &body)
    }

    /// Asks it to end, and says how it did.
    fn end(mut self) -> std::process::ExitStatus {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All lines up to one with these words.
fn until(said: &mut impl BufRead, words: &str) -> String {
    let mut all = String::new();
    while !all.contains(words) {
        assert!(said.read_line(&mut all).unwrap() > 0, "it never said `{words}`: {all}");
    }
    all
}

fn content(answer: &Json) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

fn asked(folder: &Path, file: &str) -> String {
    let most = NEW_TOKENS.to_string();
    stdout(&cokv(folder, &["ask", file, QUESTION, "--max-new-tokens", &most]))
}

/// A document is the same whoever reads it: the server, `cokv compress`, or a file of either.
#[test]
fn a_document_is_asked_by_clients_saved_and_asked_by_others() {
    let folder = folder();
    let compress = ["--compress", "document", "--method", "keydiff", "--budget", "60%"];
    let files = ["--document", "notes=notes.txt", "--cache-dir", "caches"];
    let server = Server::start(folder.path(), &[&compress[..], &files].concat());
    assert!(server.said.contains("59.6 % of them kept"), "{}", server.said);

    let by_name = server.ask(json!({ "cokv": { "document": "notes" } }));
    assert_eq!(by_name["cokv"]["cache"]["state"], "compressed");
    assert_eq!(by_name["cokv"]["cache"]["document"], "notes");
    let cached = by_name["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(cached > 100, "{by_name}");
    // Whoever sends the text gets the document, too; who wants an exact answer does not.
    let text = format!("{}\n\n{QUESTION}", document().trim_end());
    let whole = json!([{ "role": "user", "content": text }]);
    let by_text = server.ask(json!({ "messages": whole }));
    assert_eq!(content(&by_text), content(&by_name));
    for cokv in [json!({ "exact": true }), json!({ "compress": "off" })] {
        let full = server.ask(json!({ "messages": whole, "cokv": cokv }));
        assert_eq!(full["cokv"]["cache"]["state"], "full");
    }

    let saved = server.json("POST", "/v1/cokv/documents/notes/save", &json!({ "name": "notes" }));
    assert!(saved["bytes"].as_u64().unwrap() > 100_000, "{saved}");
    let metrics = server.request("GET", "/metrics", &Json::Null).1;
    assert!(metrics.contains("cokv_ledger_error_bytes{model=\"cokv\"} 0"), "{metrics}");
    assert!(server.end().success(), "SIGTERM is how a server ends");

    let file = "caches/notes.cokv.safetensors";
    assert_eq!(asked(folder.path(), file).trim(), content(&by_name));
    // What `cokv compress` makes of it is the same, and the server takes it.
    let source = wheel_source();
    let out = ["--document", "notes.txt", "--out", "compressed.cokv"];
    let made = [&["compress", "--model", &source], &compress[2..], &out].concat();
    stdout(&cokv(folder.path(), &made));
    assert_eq!(asked(folder.path(), "compressed.cokv").trim(), content(&by_name));
    let server = Server::start(folder.path(), &["--document", "report=compressed.cokv", "--cache-dir", "caches"]);
    let restored = server.ask(json!({ "cokv": { "document": "report" } }));
    assert_eq!(content(&restored), content(&by_name));
    let loaded = server.json("POST", "/v1/cokv/documents/load", &json!({ "name": "notes", "id": "again" }));
    assert_eq!(loaded["id"], "again");
    assert_eq!(content(&server.ask(json!({ "cokv": { "document": "again" } }))), content(&by_name));
}

/// More conversations have room than keep everything, and whoever goes on with one hears what became of it.
#[test]
fn idle_conversations_are_compressed_where_memory_is_short() {
    let folder = folder();
    // Of some 270 tokens each, six MiB in 16 bits.
    let server = Server::start(folder.path(), &["--compress-idle", "30%", "--cache-memory", "14 MiB"]);
    let about =
        |town: &str| format!("In {town} the door code is 5583 blue.\n{}\nWhat is the door code there?", document());
    let towns = ["Bern", "Kiel", "Linz", "Graz", "Genf"];
    for town in towns {
        let answer = server.ask(json!({ "messages": [{ "role": "user", "content": about(town) }] }));
        assert_eq!(answer["cokv"]["cache"]["state"], "full", "{answer}");
    }
    let entries = server.json("GET", "/v1/cokv/status", &Json::Null)["entries"].as_array().unwrap().clone();
    assert!(entries.len() >= towns.len(), "none was dropped: {entries:?}");
    assert!(entries.iter().filter(|entry| entry["state"] == "compressed").count() >= 2, "{entries:?}");
    let again = json!({ "messages": [{ "role": "user", "content": about("Bern") + " Which colour?" }] });
    let cache = server.ask(again.clone())["cokv"]["cache"].clone();
    assert_eq!((&cache["state"], &cache["method"]), (&json!("compressed"), &json!("keydiff")));
    assert!(cache["kept_share"].as_f64().unwrap() < 0.5, "{cache}");
    let mut exact = again;
    exact["cokv"] = json!({ "exact": true });
    assert_eq!(server.ask(exact)["cokv"]["cache"]["state"], "full");
}

/// A model that is small answers as it is told to, from a compressed document, too.
#[test]
fn a_document_is_asked_for_json_and_for_calls() {
    let folder = folder();
    let compress = ["--compress", "document", "--method", "keydiff", "--budget", "60%"];
    let server = Server::start(folder.path(), &[&compress[..], &["--document", "notes=notes.txt"]].concat());
    let properties = json!({
        "code": { "type": "string", "pattern": "^[0-9]{4} (blue|red)$" },
        "open": { "type": "object", "properties": { "from": { "enum": [8, 9] }, "to": { "type": "integer", "maximum": 9 } },
            "required": ["from", "to"], "additionalProperties": false },
        "weather": { "type": "array", "items": { "enum": ["rain", "sun"] }, "minItems": 1, "maxItems": 2 },
    });
    let required = ["code", "open", "weather"];
    let schema =
        json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "notes", "schema": schema } });
    let asked = json!({ "cokv": { "document": "notes" }, "response_format": format, "max_tokens": 100 });
    let answer = server.ask(asked);
    assert_eq!(
        (&answer["choices"][0]["finish_reason"], &answer["cokv"]["cache"]["document"]),
        (&json!("stop"), &json!("notes"))
    );
    let told: Json = serde_json::from_str(content(&answer)).unwrap();
    assert_eq!(told["code"], "5583 blue");
    assert!(told["open"]["from"].as_u64().is_some_and(|hour| hour == 8 || hour == 9), "{told}");
    assert!((1..=2).contains(&told["weather"].as_array().unwrap().len()), "{told}");

    let tool = json!({ "type": "function", "function": { "name": "open_door", "parameters": {
        "type": "object", "properties": { "code": { "type": "string", "maxLength": 12 } }, "required": ["code"] } } });
    let asked = json!({ "tools": [tool], "tool_choice": "required", "max_tokens": 60 });
    let choice = server.ask(asked)["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
    let function = &choice["message"]["tool_calls"][0]["function"];
    let arguments: Json = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert!(function["name"] == "open_door" && arguments["code"].is_string(), "{choice}");
}

fn chat(folder: &Path, said: &str, rest: &[&str]) -> Output {
    let source = wheel_source();
    let most = NEW_TOKENS.to_string();
    let arguments = [&["chat", "--model", &source, "--max-new-tokens", &most], rest].concat();
    let mut command = command(folder, &arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn conversations_go_on_from_documents_and_from_what_was_compressed_of_them() {
    let folder = folder();
    let compressed = ["--document", "notes.txt", "--method", "keydiff", "--budget", "60%"];
    let said = format!("{QUESTION}\n/status\n/save notes.cokv\n");
    let talked = chat(folder.path(), &said, &compressed);
    let answer = stdout(&talked);
    assert!(stderr(&talked).contains("59.6 % of them kept"), "{}", stderr(&talked));
    assert!(stderr(&talked).contains("tokens of the prompt were there"), "{}", stderr(&talked));
    assert_eq!(asked(folder.path(), "notes.cokv").trim(), answer.trim());
    let again = chat(folder.path(), &format!("{QUESTION}\n"), &["--document", "notes.cokv"]);
    assert_eq!(stdout(&again).trim(), answer.trim());

    // Nothing is left out: the conversation goes on as if nobody had compressed it.
    let [plain, kept] = ["", "/compress keydiff 100%\n"].map(|compress| {
        let talked = chat(folder.path(), &format!("Name a colour.\n{compress}Name another.\n/regenerate\n"), &[]);
        stdout(&talked)
    });
    assert_eq!(plain, kept);
    let smaller = chat(folder.path(), "Name a colour.\n/compress keydiff 50%\nName another.\n/clear\n/status\n", &[]);
    assert!(stderr(&smaller).contains("% of them kept"), "{}", stderr(&smaller));
}

/// Runs a Python program with what these modules are needed for; nothing where they are not there.
#[track_caller]
fn python(modules: &str, arguments: &[&str]) -> Option<Output> {
    let python = std::env::var_os("COKV_PYTHON").unwrap_or_else(|| "python3".into());
    let can = Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        cokv_golden::skip(&format!("python3 lacks {modules}; COKV_PYTHON names another one"));
        return None;
    }
    Some(Command::new(python).args(arguments).output().unwrap())
}

#[test]
fn openai_s_own_client_is_content() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--any-model"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cokv-serve/tests/clients/openai_client.py");
    let address = format!("http://{}", server.address);
    let Some(output) = python("openai", &[&script.display().to_string(), &address]) else { return };
    assert!(stdout(&output).contains("openai-python is content"), "{}", stderr(&output));
}

#[test]
fn the_page_works_in_a_browser() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cokv-serve/tests/clients/page.py");
    let chromium = Path::new("/usr/bin/chromium");
    if !chromium.exists() {
        return cokv_golden::skip("no /usr/bin/chromium");
    }
    let address = format!("http://{}/", server.address);
    let Some(output) = python("playwright.sync_api", &[&script.display().to_string(), &address]) else { return };
    stdout(&output);
}

#[test]
#[ignore = "needs large packages: litellm, langchain-openai, llm"]
fn clients_of_others_are_content() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cokv-serve/tests/clients/other_clients.py");
    let arguments = [script.display().to_string(), format!("http://{}", server.address)];
    let arguments = arguments.each_ref().map(String::as_str);
    let Some(output) = python("litellm, langchain_openai, llm", &arguments) else { return };
    assert_eq!(stdout(&output).matches("is content").count(), 3, "{}", stderr(&output));
}

/// The suite of somebody else, test by test. What fails is what is refused: images.
#[test]
fn the_conformance_suite_passes_but_for_what_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--any-model", "--max-tokens", "64"]);
    let address = format!("http://{}/v1", server.address);
    let program = "from importlib.metadata import entry_points; \
                   next(e for e in entry_points(group='console_scripts') if e.name == 'llm-comply').load()()";
    let arguments = ["-c", program, "run", "-u", &address, "-k", "x", "-m", "any", "--format", "openai-chat", "--json"];
    let Some(output) = python("llm_comply", &arguments) else { return };
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let of = |status: &str| -> Vec<&str> {
        let results = report["results"].as_array().unwrap().iter();
        results.filter(|result| result["status"] == status).map(|result| result["name"].as_str().unwrap()).collect()
    };
    assert_eq!(of("failed"), ["Image Input"], "{report:#}");
    assert_eq!((of("passed").len(), of("skipped")), (7, vec!["Reasoning Summary"]), "{report:#}");
}

#[test]
fn what_cannot_be_served_is_said_before_a_model_is_loaded() {
    let folder = folder();
    let serve = |rest: &[&str]| {
        let output =
            command(folder.path(), &[&["serve", "--model", "path:nowhere.gguf"], rest].concat()).output().unwrap();
        assert!(!output.status.success());
        stderr(&output)
    };
    assert!(serve(&["--host", "0.0.0.0"]).contains("COKV_API_KEY"));
    assert!(serve(&["--compress", "document"]).contains("say what is kept"));
    assert!(serve(&["--document", "notes.txt"]).contains("NAME=FILE"));
    assert!(serve(&["--document", "notes=missing.txt"]).contains("missing.txt"));
    assert!(serve(&["--document", "../notes=notes.txt"]).contains("a name is of"));
    assert!(serve(&["--document", "a=notes.txt", "--document", "a=notes.txt"]).contains("another one has that name"));
    assert!(serve(&["--cache-memory", "10%"]).contains("512 MiB"));
    fs::write(folder.path().join("keys"), "# none\n").unwrap();
    assert!(serve(&["--api-key-file", "keys"]).contains("there is no key in it"));
    assert!(serve(&[]).contains("nowhere.gguf"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert!(serve(&["--port", &port]).contains("cannot listen"));
}
