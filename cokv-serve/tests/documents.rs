//! Documents: made, asked about, saved and read again.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use cokv_core::ObservationRequest;
use cokv_models::batch::Why;
use cokv_models::cache::file::{Description, Identity};
use cokv_models::{LanguageModel, LoadOptions, NUMERICS};
use cokv_scheduler::{Command, Compression, Document, DocumentTold, Job, MadeBy, Namespace, NewDocument, Refusal};
use cokv_serve::Files;
use common::{Running, model, read_until, say, start_with};
use serde_json::{Value as Json, json};

/// A scheduler that keeps documents and runs nothing but their prefill.
struct Library {
    model: LanguageModel,
    kept: BTreeMap<(Namespace, String), Document>,
    jobs: Arc<Mutex<Vec<Job>>>,
}

impl Library {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Run(mut job, flags) => {
                say(&mut job, &flags, "yes", Why::Stop);
                self.jobs.lock().unwrap().push(job);
            }
            Command::Read(new, _) => self.read(new),
            Command::Find { namespace, name, reply } => reply(self.find(&namespace, &name)),
            Command::List { namespace, reply } => {
                let own = self.kept.iter().filter(|((of, _), document)| *of == namespace || document.shared);
                reply(own.map(|(_, document)| document.clone()).collect());
            }
            Command::Forget { namespace, name, reply } => reply(self.kept.remove(&(namespace, name))),
            Command::Restore { saved, of, reply } => {
                let text = saved.text.clone().unwrap_or_default();
                let document = self.document(of.name.clone(), saved.tokens, text);
                self.kept.insert((of.namespace, of.name), document.clone());
                reply(Ok(document));
            }
            Command::Show { reply, .. } => reply(Default::default()),
            _ => {}
        }
    }

    fn find(&self, namespace: &Namespace, name: &str) -> Option<Document> {
        self.kept.get(&(namespace.clone(), name.to_owned())).cloned()
    }

    fn read(&mut self, mut new: NewDocument) {
        let name = new.name.clone().unwrap_or_else(|| "drawn".into());
        if let Some(there) = self.find(&new.namespace, &name) {
            if *there.tokens != new.tokens {
                return (new.hear)(DocumentTold::Refused(Refusal::DocumentExists(name)));
            }
            (new.hear)(DocumentTold::Queued);
            return (new.hear)(DocumentTold::Done { document: there, made: false });
        }
        (new.hear)(DocumentTold::Queued);
        (new.hear)(DocumentTold::Read { tokens: 1, of: new.tokens.len() });
        let mut document = self.document(name.clone(), new.tokens, new.text);
        document.made_by = new.compress.as_ref().map(|(method, budget)| MadeBy {
            method: method.name().into(),
            settings: method.settings().to_string(),
            budget: budget.to_string(),
            head_scores: None,
        });
        document.shared = new.shared;
        self.kept.insert((new.namespace, name), document.clone());
        (new.hear)(DocumentTold::Done { document, made: true });
    }

    fn document(&self, name: String, tokens: Vec<u32>, text: String) -> Document {
        let prefill = self.model.prefill(&tokens, ObservationRequest::default(), |_| {}).unwrap();
        let cache = Arc::clone(prefill.prompt());
        let (tokens, text) = (Arc::new(tokens), Arc::new(text));
        Document { name, shared: false, tokens, text, made_by: None, pinned: true, time_to_live: None, hits: 0, cache }
    }
}

struct Served {
    server: Running,
    jobs: Arc<Mutex<Vec<Job>>>,
    folder: tempfile::TempDir,
}

impl Served {
    fn last(&self) -> Job {
        common::eventually(|| self.jobs.lock().unwrap().pop())
    }
}

fn served() -> Served {
    served_with(&[])
}

fn served_with(keys: &[&str]) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let model = LanguageModel::load(&model::write(folder.path()), &LoadOptions::default(), |_, _| {}).unwrap();
    let identity = Identity {
        model: "m".into(),
        tokenizer: "t".into(),
        numerics: NUMERICS.to_string(),
        layout: model.config().layout,
        format: model.format(),
        rope: model.config().rope().unwrap(),
    };
    let jobs = Arc::new(Mutex::new(Vec::new()));
    let mut library = Library { model, kept: BTreeMap::new(), jobs: Arc::clone(&jobs) };
    let files = Files {
        folder: folder.path().to_owned(),
        identity: identity.clone(),
        describe: Arc::new(move |document| describe(&identity, document)),
        write: Arc::new(|path, bytes| std::fs::write(path, bytes)),
    };
    let server = start_with(
        move |command| library.obey(command),
        |server| {
            server.files = Some(files);
            server.settings.keys = keys.iter().map(|key| (*key).to_owned()).collect();
            // As if the scheduler had counted one.
            server.handle.figures().documents.set(1);
        },
    );
    Served { server, jobs, folder }
}

fn describe(identity: &Identity, document: &Document) -> Description {
    let text = |text: &str| text.to_owned();
    Description {
        identity: identity.clone(),
        model: text("test"),
        weights: text("stored"),
        backend: text("cpu"),
        chat_template_kwargs: text("{}"),
        prefix: text("00"),
        method: document.made_by.as_ref().map_or_else(String::new, |made| made.settings.clone()),
        budget: text("100%"),
        head_scores: None,
        created: text("2026-01-01T00:00:00Z"),
        cokv: text("0"),
    }
}

const DOCUMENTS: &str = "/v1/cokv/documents";

#[test]
fn a_document_is_made_once_listed_shown_and_forgotten() {
    let Served { server, .. } = served();
    let body = json!({ "id": "report", "text": "The sky is blue.\n", "compress": { "compressor": "keydiff", "budget": "50%" } });
    let made = server.post(DOCUMENTS, &body);
    assert_eq!(made.status, 201, "{}", made.body);
    let document = made.json();
    assert_eq!(
        (&document["id"], &document["state"], &document["method"]),
        (&json!("report"), &json!("compressed"), &json!("keydiff"))
    );
    assert_eq!((&document["budget"], document["kept_by_head"].as_array().unwrap().len()), (&json!("50%"), 2));
    let head = "<|im_start|>user\nThe sky is blue.";
    assert_eq!(document["tokens"], head.len() - "<|im_start|>".len() + 1);
    assert_eq!(document["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(server.post(DOCUMENTS, &body).status, 200);
    let other = server.post(DOCUMENTS, &json!({ "id": "report", "text": "Grass is green." }));
    assert_eq!(other.error(), (409, json!("document_exists"), Json::Null));
    let list = server.get(DOCUMENTS).json();
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (1, &json!("report")));
    assert_eq!(list["data"][0].get("kept_by_head"), None);
    assert_eq!(server.get("/v1/cokv/documents/report").json()["sha256"], document["sha256"]);
    assert_eq!(server.delete("/v1/cokv/documents/report").json()["deleted"], true);
    assert_eq!(server.get("/v1/cokv/documents/report").status, 404);
}

#[test]
fn a_document_that_is_read_says_how_far_it_is() {
    let Served { server, .. } = served();
    let body = json!({ "id": "a", "text": "The sky is blue." }).to_string();
    let reply = server.post_with(DOCUMENTS, "Accept: text/event-stream\r\n", body.as_bytes());
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert!(
        reply.body.starts_with(": queued\n\nevent: progress\ndata: {\"tokens\":1,")
            || reply.body.contains("event: progress\ndata: ")
    );
    assert!(reply.body.contains("event: done\ndata: {") && reply.body.ends_with("data: [DONE]\n\n"));
}

#[test]
fn questions_go_on_from_a_document_by_its_name() {
    let served = served();
    let Served { server, .. } = &served;
    let text = "The sky is blue.";
    let made = server.post(DOCUMENTS, &json!({ "id": "sky", "text": text })).json();
    let tokens = made["tokens"].as_u64().unwrap() as usize;
    assert_eq!(server.chat(json!({ "cokv": { "document": "sky" } })).status, 200);
    let job = served.last();
    assert_eq!(job.document.as_deref(), Some("sky"));
    let whole = model::outline().tokenizer().decode(&job.tokens, false).unwrap();
    assert_eq!(whole, "<|im_start|>user\nThe sky is blue.\n\nhi<|im_end|>\n<|im_start|>assistant\n");
    let start = model::outline().tokenizer().decode(&job.tokens[..tokens], false).unwrap();
    assert_eq!(start, "<|im_start|>user\nThe sky is blue.");

    let system = json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "hi" }]);
    let reply = server.chat(json!({ "cokv": { "document": "sky" }, "messages": system }));
    assert_eq!(reply.error(), (400, json!("invalid_value"), json!("messages[0].role")));
}

#[test]
fn a_conversation_goes_on_from_another() {
    let served = served();
    let Served { server, .. } = &served;
    let said = json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "The sky is blue." }]);
    let made = server.post(DOCUMENTS, &json!({ "id": "talk", "messages": said })).json();
    let more = json!([{ "role": "assistant", "content": "Yes." }, { "role": "user", "content": "Why?" }]);
    assert_eq!(server.chat(json!({ "messages": more, "cokv": { "document": "talk" } })).status, 200);
    let job = served.last();
    let text = |tokens: &[u32]| model::outline().tokenizer().decode(tokens, false).unwrap();
    let start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nThe sky is blue.";
    assert_eq!(text(&job.tokens[..made["tokens"].as_u64().unwrap() as usize]), start);
    let rest =
        "<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text(&job.tokens), format!("{start}{rest}"));

    // Said once more, it is found; with anything else in it, it is not.
    let whole: Vec<Json> = [&said, &more].into_iter().flat_map(|part| part.as_array().unwrap().clone()).collect();
    server.chat(json!({ "messages": whole }));
    assert_eq!(served.last().document.as_deref(), Some("talk"));
    server.chat(json!({ "messages": whole[1..] }));
    assert_eq!(served.last().document, None);
}

#[test]
fn what_follows_a_document_otherwise_is_a_mismatch() {
    let served = served();
    let Served { server, .. } = &served;
    // As if another template had been there.
    server.post(DOCUMENTS, &json!({ "id": "sky", "text": "The sky is blue." }));
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    assert_eq!(server.chat(json!({ "cokv": { "document": "sky" }, "tools": tools })).status, 200);
    let before = json!({ "cokv": { "document": "sky" }, "chat_template_kwargs": { "before": "x" } });
    assert_eq!(server.chat(before).error(), (409, json!("document_mismatch"), Json::Null));
}

#[test]
fn a_text_that_a_request_begins_with_is_found() {
    let served = served();
    let Served { server, .. } = &served;
    server.post(DOCUMENTS, &json!({ "id": "sky", "text": "The sky is blue." }));
    let ask = |content: &str, more: Json| {
        let mut body = json!({ "messages": [{ "role": "user", "content": content }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(server.chat(body).status, 200);
        served.last().document
    };
    assert_eq!(ask("The sky is blue.\n\nWhy?", json!({})).as_deref(), Some("sky"));
    assert_eq!(ask("The sky is blue. Why?", json!({})).as_deref(), Some("sky"));
    assert_eq!(ask("The sky is grey. Why?", json!({})), None);
    assert_eq!(ask("The sky is blue. Why?", json!({ "cache_salt": "other" })), None);
}

#[test]
fn what_stands_before_a_breakpoint_is_compressed() {
    let served = served();
    let Served { server, .. } = &served;
    let parts = json!([
        { "type": "text", "text": "A long text.", "prompt_cache_breakpoint": { "mode": "explicit" } },
        { "type": "text", "text": " What of it?" },
    ]);
    let compress = json!({ "mode": "document", "compressor": "keydiff", "budget": "50%" });
    let reply =
        server.chat(json!({ "messages": [{ "role": "user", "content": parts }], "cokv": { "compress": compress } }));
    assert_eq!(reply.status, 200, "{}", reply.body);
    let job = served.last();
    let Compression::Document { tokens, frame, close, .. } = &job.compression else { panic!("it is a document") };
    let outline = model::outline();
    let text = |tokens: &[u32]| outline.tokenizer().decode(tokens, false).unwrap();
    assert_eq!(text(&job.tokens[..*tokens]), "<|im_start|>user\nA long text.");
    assert_eq!((text(&job.tokens[..frame.head]), frame.question), ("<|im_start|>user\n".into(), 0));
    assert_eq!(text(close), "<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn documents_of_other_keys_are_not_there() {
    let Served { server, .. } = served_with(&["one", "two"]);
    let key = |key: &str| format!("Authorization: Bearer {key}\r\n");
    let body = json!({ "id": "mine", "text": "secret" }).to_string();
    assert_eq!(server.post_with(DOCUMENTS, &key("one"), body.as_bytes()).status, 201);
    let get = |of: &str, path: &str| {
        server.raw(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n", key(of)).as_bytes())
    };
    assert_eq!(get("one", "/v1/cokv/documents/mine").status, 200);
    assert_eq!(get("two", "/v1/cokv/documents/mine").error(), (404, json!("document_not_found"), Json::Null));
    assert_eq!(get("two", DOCUMENTS).json()["data"], json!([]));
    assert_eq!(get("one", "/v1/cokv/documents/mine?cache_salt=x").status, 404);
}

#[test]
fn a_document_is_saved_and_read_again() {
    let served = served();
    let Served { server, folder, .. } = &served;
    let made = server.post(DOCUMENTS, &json!({ "id": "sky", "text": "The sky is blue." })).json();
    let saved = server.post("/v1/cokv/documents/sky/save", &json!({ "name": "sky-1" }));
    assert_eq!(saved.status, 200, "{}", saved.body);
    let path = folder.path().join("sky-1.cokv.safetensors");
    assert_eq!(
        saved.json(),
        json!({ "name": "sky-1", "bytes": path.metadata().unwrap().len(), "tokens": made["tokens"] })
    );
    let loaded = server.post("/v1/cokv/documents/load", &json!({ "name": "sky-1", "id": "again" })).json();
    assert_eq!((&loaded["id"], &loaded["sha256"]), (&json!("again"), &made["sha256"]));
    assert_eq!(server.chat(json!({ "cokv": { "document": "again" } })).status, 200);
    assert_eq!(served.last().document.as_deref(), Some("again"));

    for (body, param) in [
        (json!({ "name": "../sky-1" }), "name"),
        (json!({ "name": "none" }), "name"),
        (json!({ "name": "sky-1", "id": "a/b" }), "id"),
    ] {
        let reply = server.post("/v1/cokv/documents/load", &body);
        assert_eq!(reply.error(), (400, json!("invalid_value"), json!(param)), "{body}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&path, folder.path().join("link.cokv.safetensors")).unwrap();
        assert_eq!(server.post("/v1/cokv/documents/load", &json!({ "name": "link" })).status, 400);
    }
    std::fs::write(folder.path().join("bad.cokv.safetensors"), "nonsense").unwrap();
    assert_eq!(server.post("/v1/cokv/documents/load", &json!({ "name": "bad" })).error().0, 400);
    assert_eq!(server.post("/v1/cokv/documents/none/save", &json!({ "name": "x" })).status, 404);
}

#[test]
fn without_a_folder_nothing_is_saved() {
    let server = common::start(common::saying("x"));
    for path in ["/v1/cokv/documents/sky/save", "/v1/cokv/documents/load"] {
        assert_eq!(server.post(path, &json!({ "name": "x" })).error(), (400, json!("unsupported"), json!("name")));
    }
}

#[test]
fn texts_are_cut_into_tokens_and_put_together() {
    let server = common::start(common::saying("x"));
    assert_eq!(server.post("/tokenize", &json!({ "content": "ab" })).json(), json!({ "tokens": [97, 98] }));
    let pieces = server.post("/tokenize", &json!({ "content": "ab", "with_pieces": true })).json();
    assert_eq!(pieces["tokens"][1], json!({ "id": 98, "piece": "b" }));
    let mark =
        |parse: bool| server.post("/tokenize", &json!({ "content": "<|im_end|>", "parse_special": parse })).json();
    assert_eq!(mark(true), json!({ "tokens": [257] }));
    assert_eq!(mark(false)["tokens"].as_array().unwrap().len(), 10, "text is text");
    assert_eq!(
        server.post("/detokenize", &json!({ "tokens": [97, 98, 257] })).json(),
        json!({ "content": "ab<|im_end|>" })
    );
    let applied = server.post("/apply-template", &json!({ "messages": [{ "role": "user", "content": "hi" }] })).json();
    assert_eq!(applied["prompt"], "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!((applied["tokens"][0].as_u64(), &applied["breakpoints"]), (Some(256), &json!([])));
}

#[test]
fn a_document_that_nobody_waits_for_ends() {
    let (sender, read) = std::sync::mpsc::channel();
    let server = common::start(move |command| {
        if let Command::Read(mut new, flags) = command {
            (new.hear)(DocumentTold::Queued);
            sender.send((new, flags)).unwrap();
        }
    });
    let mut connection = server.connect();
    let body = json!({ "text": "x" }).to_string();
    connection.write_all(&common::posted(DOCUMENTS, "Accept: text/event-stream\r\n", body.as_bytes())).unwrap();
    let (_new, flags) = read.recv().unwrap();
    let mut reader = std::io::BufReader::new(connection);
    read_until(&mut reader, ": queued");
    assert!(!flags.is_gone());
    drop(reader);
    common::eventually(|| flags.is_gone().then_some(()));
}
