//! Every way not to get an answer.

mod common;

use std::io::{BufRead, Write};
use std::time::Duration;

use cokv_models::sampling::Sampling;
use cokv_scheduler::{Command, Refusal, Told};
use common::{Reply, Running, chat, posted, saying, start, start_with};
use serde_json::{Value as Json, json};

const CHAT: &str = "/v1/chat/completions";

/// A server whose scheduler refuses everything.
fn refusing(refusal: Refusal) -> Running {
    start(move |command| {
        if let Command::Run(mut job, _) = command {
            (job.hear)(Told::Refused(refusal.clone()));
        }
    })
}

fn sampling_error() -> Refusal {
    Sampling { temperature: 3.0, ..Sampling::default() }.check(10).unwrap_err().into()
}

#[test]
fn what_the_scheduler_refuses_has_its_status_before_any_header() {
    let wait = Duration::from_secs(7);
    let rows = [
        (
            Refusal::TooLong { prompt_tokens: 5, max_tokens: 6, context: 7 },
            400,
            "invalid_request_error",
            "context_length_exceeded",
        ),
        (Refusal::NeverFits { needed: 5, limit: 4, advice: "x" }, 400, "invalid_request_error", "cache_too_large"),
        (Refusal::PinLimit { needed: 5, limit: 4 }, 400, "invalid_request_error", "pin_limit"),
        (sampling_error(), 400, "invalid_request_error", "invalid_value"),
        (Refusal::Method("no".into()), 400, "invalid_request_error", "invalid_value"),
        (Refusal::NoDocument("d".into()), 404, "invalid_request_error", "document_not_found"),
        (Refusal::Compressed("d".into()), 409, "conflict_error", "compressed_cache"),
        (Refusal::DocumentExists("d".into()), 409, "conflict_error", "document_exists"),
        (Refusal::Mismatch { name: "d".into(), tokens: 3 }, 409, "conflict_error", "document_mismatch"),
        (Refusal::QueueFull { waiting: 64, retry_after: wait }, 429, "rate_limit_error", "queue_full"),
        (Refusal::NoRoomNow(5), 429, "rate_limit_error", "no_room_now"),
        (Refusal::NotFinite("x".into()), 500, "server_error", "not_finite"),
        (Refusal::Internal("x".into()), 500, "server_error", "internal"),
        (Refusal::Draining, 503, "server_error", "draining"),
    ];
    for (refusal, status, kind, code) in rows {
        let server = refusing(refusal);
        for stream in [false, true] {
            let reply = server.chat(json!({ "stream": stream }));
            assert_eq!((reply.status, &reply.error().1), (status, &json!(code)));
            assert_eq!(reply.json()["error"]["type"], kind);
            assert_eq!(reply.header("content-type"), Some("application/json"));
            let again = (status < 500 && status != 429).then_some("false");
            assert_eq!(reply.header("x-should-retry"), again, "{code}");
            assert_eq!(reply.header("retry-after").is_some(), [429, 503].contains(&status), "{code}");
            assert_eq!(server.lines(1)[0].error, Some(code));
        }
        let reply = server.chat(json!({}));
        match code {
            "context_length_exceeded" => assert_eq!(reply.json()["error"]["context"], 7),
            "queue_full" => assert_eq!(reply.header("retry-after"), Some("7")),
            _ => {}
        }
    }
}

fn assert_error(reply: &Reply, status: u16, code: Json, param: Json) {
    assert_eq!(reply.error(), (status, code, param), "{}", reply.body);
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let server = start(saying("x"));
    let invalid = |more: Json, code: &str, param: &str| {
        let reply = server.chat(more);
        assert_error(&reply, 400, json!(code), json!(param));
        assert_eq!(reply.header("x-should-retry"), Some("false"));
    };
    invalid(json!({ "n": 9 }), "invalid_value", "n");
    invalid(json!({ "temperature": 2.5 }), "invalid_value", "temperature");
    invalid(json!({ "top_p": 0 }), "invalid_value", "top_p");
    invalid(json!({ "logit_bias": { "999": 1 } }), "invalid_value", "logit_bias");
    invalid(json!({ "cokv": { "documnt": "x" } }), "invalid_value", "cokv.documnt");
    invalid(
        json!({ "cokv": { "compress": { "mode": "question", "compressor": "none such" } } }),
        "invalid_value",
        "cokv.compress",
    );
    invalid(json!({ "cokv": { "compress": "document" } }), "invalid_value", "cokv.compress");
    invalid(json!({ "cokv": { "compress": "question", "exact": true } }), "invalid_value", "cokv.exact");
    invalid(json!({ "response_format": { "type": "xml" } }), "invalid_value", "response_format.type");
    invalid(json!({ "guided_json": {} }), "unsupported", "guided_json");
    invalid(json!({ "tool_choice": "required" }), "invalid_value", "tool_choice");
    invalid(json!({ "max_tokens": 1000 }), "context_length_exceeded", "messages");
    invalid(
        json!({ "messages": [{ "role": "user", "content": "x".repeat(600) }] }),
        "context_length_exceeded",
        "messages",
    );
    assert_error(&server.chat(json!({ "model": "gpt" })), 404, json!("model_not_found"), json!("model"));
    assert_error(&server.chat(json!({ "cokv": { "document": "d" } })), 404, json!("document_not_found"), Json::Null);
    assert_eq!(server.chat(json!({ "model": "org/other", "frobnicate": 1 })).status, 200);
    let tokens = server.post("/v1/completions", &json!({ "model": "tiny", "prompt": [999] }));
    assert_error(&tokens, 400, json!("invalid_value"), json!("prompt"));
    assert_error(
        &server.post("/v1/completions", &json!({ "model": "tiny", "prompt": "" })),
        400,
        json!("invalid_value"),
        json!("prompt"),
    );
    assert_error(
        &server.post("/detokenize", &json!({ "tokens": [999] })),
        400,
        json!("invalid_value"),
        json!("tokens"),
    );
}

#[test]
fn bodies_that_are_none_are_refused() {
    let server = start_with(saying("x"), |server| server.settings.body = 1000);
    let post = |headers: &str, body: &[u8]| server.post_with(CHAT, headers, body);
    for body in [&b""[..], b"{", b"[]", b"\"x\"", b"{\"model\": \"\xff\"}", b"{\"a\": \"\\ud800\"}", b"nan"] {
        assert_error(&post("", body), 400, json!("invalid_json"), Json::Null);
    }
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100), "]".repeat(100));
    assert_error(&post("", deep.as_bytes()), 400, json!("invalid_json"), Json::Null);
    let only_open = "[".repeat(999);
    assert_error(&post("", only_open.as_bytes()), 400, json!("invalid_json"), Json::Null);
    assert_error(&post("Content-Type: text/plain\r\n", b"{}"), 415, Json::Null, Json::Null);
    let form = post("Content-Type: application/x-www-form-urlencoded\r\n", b"{}");
    assert_error(&form, 415, Json::Null, Json::Null);
    assert_eq!(
        post("Content-Type: Application/JSON; charset=utf-8\r\n", chat(json!({})).to_string().as_bytes()).status,
        200
    );
    assert_error(&post("", &[b' '; 1001]), 413, json!("body_too_large"), Json::Null);
    // Without a length the limit is found on the way.
    let chunk = format!("3e9\r\n{}\r\n0\r\n\r\n", " ".repeat(1001));
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    assert_error(&server.raw(format!("{head}{chunk}").as_bytes()), 413, json!("body_too_large"), Json::Null);
}

#[test]
fn heads_that_are_none_are_refused() {
    let server = start(saying("x"));
    let reply =
        server.raw(format!("GET /health HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000)).as_bytes());
    assert_eq!(reply.status, 431);
    assert_eq!(server.raw(b"nonsense\r\n\r\n").status, 400);
    let both = b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\nConnection: close\r\n\r\n";
    assert_eq!(server.raw(both).status, 400);
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn addresses_that_there_are_not_are_named() {
    let server = start(saying("x"));
    assert_error(&server.get("/v2/models"), 404, Json::Null, Json::Null);
    assert_error(&server.get(CHAT), 405, Json::Null, Json::Null);
    assert_error(&server.delete("/v1/models"), 405, Json::Null, Json::Null);
    assert_error(&server.get("/v1/models/gpt"), 404, json!("model_not_found"), json!("model"));
    assert_error(&server.get("/v1/cokv/documents/none"), 404, json!("document_not_found"), Json::Null);
    assert_error(&server.delete("/v1/cokv/documents/none"), 404, json!("document_not_found"), Json::Null);
    for path in [
        "/models",
        "/v1/models",
        "/v1/models/tiny",
        "/v1/models/org/other",
        "/health",
        "/metrics",
        "/",
        "/v1/cokv/status",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
}

#[test]
fn keys_are_wanted_where_there_are_any() {
    let server = start_with(saying("x"), |server| server.settings.keys = vec!["one".into(), "two".into()]);
    let with = |headers: &str| server.post_with(CHAT, headers, chat(json!({})).to_string().as_bytes());
    for headers in [
        "",
        "Authorization: Bearer three\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Basic one\r\n",
        "Authorization: one\r\n",
    ] {
        let reply = with(headers);
        assert_error(&reply, 401, json!("invalid_api_key"), Json::Null);
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    }
    for headers in ["Authorization: Bearer one\r\n", "authorization: bearer two\r\n"] {
        assert_eq!(with(headers).status, 200);
    }
    for path in ["/metrics", "/v1/models", "/v1/cokv/status", "/nowhere"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
}

#[test]
fn other_names_and_other_pages_are_not_answered() {
    let server = start_with(saying("x"), |server| {
        server.settings.hosts = vec!["models.example".into()];
        server.settings.cors_origins = vec!["https://app.example".into()];
    });
    let body = chat(json!({})).to_string();
    let with = |headers: &str| server.post_with(CHAT, headers, body.as_bytes());
    assert_error(&with("Host: evil.example\r\n"), 403, json!("forbidden_host"), Json::Null);
    assert_eq!(with("Host: models.example:8080\r\n").status, 200);
    assert_eq!(with("Host: 127.0.0.1:1\r\n").status, 200);
    assert_error(&server.raw(b"GET /health HTTP/1.0\r\n\r\n"), 403, json!("forbidden_host"), Json::Null);
    let foreign = with("Origin: https://evil.example\r\n");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (200, None));
    let listed = with("Origin: https://app.example\r\n");
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(listed.header("access-control-allow-credentials"), None);
    let preflight = |origin: &str| {
        server.raw(
            format!("OPTIONS {CHAT} HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
    };
    assert_eq!(preflight("https://app.example").status, 204);
    assert_eq!(preflight("https://evil.example").status, 405);
}

#[test]
fn a_key_has_its_share() {
    let (sender, jobs) = std::sync::mpsc::channel();
    let script = move |command| {
        if let Command::Run(mut job, _) = command {
            (job.hear)(Told::Queued { before: 0 });
            sender.send(job).unwrap();
        }
    };
    let server = start_with(script, |server| {
        server.settings.keys = vec!["one".into(), "two".into()];
        server.settings.requests_per_key = Some(1);
    });
    let with = |key: &str| {
        posted(
            CHAT,
            &format!("Authorization: Bearer {key}\r\n"),
            chat(json!({ "stream": true })).to_string().as_bytes(),
        )
    };
    let mut first = server.connect();
    first.write_all(&with("one")).unwrap();
    let job = jobs.recv().unwrap();
    let second = server.raw(&with("one"));
    assert_error(&second, 429, json!("too_many_requests_of_key"), Json::Null);
    assert_eq!(second.header("retry-after"), Some("1"));
    let mut other = server.connect();
    other.write_all(&with("two")).unwrap();
    jobs.recv().unwrap();
    drop((first, job));
    common::eventually(|| {
        let mut again = server.connect();
        again.write_all(&with("one")).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(again).read_line(&mut line).unwrap();
        line.contains(" 200 ").then_some(())
    });
}

#[test]
fn ids_of_requests_come_back() {
    let server = start(saying("x"));
    let reply = server.post_with(CHAT, "X-Request-Id: mine-1\r\n", chat(json!({})).to_string().as_bytes());
    assert_eq!(reply.header("x-request-id"), Some("mine-1"));
    assert_eq!(server.lines(1)[0].id, "mine-1");
    assert!(server.lines(1)[0].to_string().starts_with("mine-1 POST /v1/chat/completions 200 prompt="));
}

#[test]
fn what_means_nothing_is_said_once() {
    let server = start(saying("x"));
    for _ in 0..2 {
        server.chat(json!({ "user": "u", "service_tier": "auto" }));
    }
    server.lines(2);
    let logged = server.logged.lock().unwrap();
    let notices = logged.iter().filter(|logged| matches!(logged, cokv_serve::Logged::Notice(_)));
    assert_eq!(notices.count(), 2);
}

#[test]
fn requests_are_counted() {
    let server = start(saying("x"));
    server.chat(json!({}));
    server.get("/v1/models/org/other");
    server.get("/nowhere/at/all");
    server.lines(3);
    let metrics = server.get("/metrics").body;
    for line in [
        "cokv_requests_total{model=\"tiny\",endpoint=\"/v1/chat/completions\",status=\"200\"} 1",
        "cokv_requests_total{model=\"tiny\",endpoint=\"/v1/models/{*id}\",status=\"200\"} 1",
        "cokv_requests_total{model=\"tiny\",endpoint=\"other\",status=\"404\"} 1",
        "cokv_requests_finished_total{model=\"tiny\",reason=\"stop\"} 1",
        "cokv_time_to_first_token_seconds_count{model=\"tiny\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn what_the_description_names_is_there() {
    let server = start(saying("x"));
    let description = server.get("/openapi.json").json();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let head = format!(
                "{} {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                method.to_uppercase(),
                path.replace("{id}", "none")
            );
            let reply = server.raw(head.as_bytes());
            let documented = &methods[method]["responses"];
            assert!(documented.get(reply.status.to_string()).is_some(), "{method} {path}: {}", reply.status);
            assert!(reply.status != 405, "{method} {path}");
        }
    }
}
