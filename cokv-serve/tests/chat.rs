//! Answers, byte by byte.

mod common;

use cokv_models::batch::Why;
use cokv_scheduler::{Command, Refusal, Told};
use common::{chat, say, saying, start};
use serde_json::{Value as Json, json};

#[test]
fn a_whole_answer_has_all_that_clients_read() {
    let server = start(saying("hello"));
    let reply = server.chat(json!({ "seed": -3 }));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let answer = reply.json();
    assert!(answer["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert_eq!(answer["system_fingerprint"], "fp_test");
    let message = json!({ "role": "assistant", "content": "hello", "refusal": null, "annotations": [] });
    let choice = json!({ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" });
    assert_eq!(answer["choices"], json!([choice]));
    let usage = &answer["usage"];
    let prompt = usage["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 10);
    assert_eq!((usage["completion_tokens"].as_u64(), usage["total_tokens"].as_u64()), (Some(5), Some(prompt + 5)));
    assert_eq!(usage["prompt_tokens_details"], json!({ "cached_tokens": 3, "cache_write_tokens": 4 }));
    let cache = json!({ "state": "full", "kept_share": 1.0, "bytes": 100 });
    assert_eq!(answer["cokv"], json!({ "seed": -3, "queue_ms": 1, "prefill_ms": 2, "decode_ms": 3, "cache": cache }));
    let line = &server.lines(1)[0];
    assert_eq!((line.status, line.completion_tokens, line.cached_tokens, line.cache_bytes), (200, 5, 3, 100));
    assert!(reply.header("x-request-id").is_some_and(|id| id == line.id));
}

#[test]
fn a_stream_is_told_in_order() {
    let server = start(saying("aé"));
    let reply = server.chat(json!({ "stream": true, "n": 2, "stream_options": { "include_usage": true } }));
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!((reply.header("cache-control"), reply.header("x-accel-buffering")), (Some("no-cache"), Some("no")));
    assert_eq!(reply.header("content-length"), None);
    assert!(reply.body.starts_with(": queued\n\ndata: {"), "{}", reply.body);
    assert!(reply.body.ends_with("\n\ndata: [DONE]\n\n") && !reply.body.contains("event:"));
    let events = reply.events();
    for event in &events {
        assert_eq!((&event["id"], &event["created"]), (&events[0]["id"], &events[0]["created"]));
        assert_eq!(event["object"], "chat.completion.chunk");
    }
    let of = |index: u64| {
        let chunks = events.iter().filter(move |event| event["choices"][0]["index"] == index);
        chunks
            .map(|event| (event["choices"][0]["delta"].clone(), event["choices"][0]["finish_reason"].clone()))
            .collect::<Vec<_>>()
    };
    for index in [0, 1] {
        let expected = [
            (json!({ "role": "assistant", "content": "" }), Json::Null),
            (json!({ "content": "a" }), Json::Null),
            (json!({ "content": "é" }), Json::Null),
            (json!({}), json!("stop")),
        ];
        assert_eq!(of(index), expected);
    }
    let (last, before) = events.split_last().unwrap();
    assert!(before.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some()));
    assert!(before.iter().all(|event| event["choices"][0].get("finish_reason").is_some()));
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(6)));
    assert_eq!(last["cokv"]["cache"]["state"], "full");
}

#[test]
fn a_stream_without_usage_says_nothing_of_it() {
    let events = start(saying("a")).chat(json!({ "stream": true })).events();
    assert!(events.iter().all(|event| event.get("usage").is_none() && event["choices"].as_array().unwrap().len() == 1));
}

#[test]
fn stop_strings_end_an_answer_across_tokens() {
    let server = start(saying("one END two"));
    for stop in [json!("END"), json!(["x", "END"])] {
        let reply = server.chat(json!({ "stop": stop }));
        let answer = reply.json();
        assert_eq!(answer["choices"][0]["message"]["content"], "one ");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        assert_eq!(answer["usage"]["completion_tokens"], 7, "tokens up to the stop string's last");
        let events = server.chat(json!({ "stop": stop, "stream": true })).events();
        let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "one ");
    }
    let held = server.chat(json!({ "stop": "two!" })).json();
    assert_eq!(held["choices"][0]["message"]["content"], "one END two");
}

#[test]
fn logprobs_are_those_of_the_text() {
    let server = start(saying("ab"));
    let answer = server.chat(json!({ "logprobs": true, "top_logprobs": 2 })).json();
    let lines = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!(lines.as_array().unwrap().len(), 2);
    assert_eq!(lines[0]["token"], "a");
    assert_eq!((&lines[0]["logprob"], &lines[0]["bytes"]), (&json!(-0.5), &json!([97])));
    assert_eq!(lines[0]["top_logprobs"].as_array().unwrap().len(), 2);
    let events = server.chat(json!({ "logprobs": true, "stream": true })).events();
    let told = events
        .iter()
        .filter(|event| event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()));
    assert!(
        told.clone().count() == 2
            && told.clone().all(|event| event["choices"][0]["logprobs"]["content"].as_array().unwrap().len() == 1)
    );
}

#[test]
fn parts_of_characters_have_their_bytes() {
    let answer = start(saying("é")).chat(json!({ "logprobs": true })).json();
    let lines = &answer["choices"][0]["logprobs"]["content"];
    assert_eq!((&lines[0]["bytes"], &lines[1]["bytes"]), (&json!([0xc3]), &json!([0xa9])));
}

#[test]
fn texts_go_on_prompt_by_prompt() {
    let server = start(saying("xy"));
    let ask = |more: Json| {
        let mut body = json!({ "model": "tiny", "prompt": ["a", "bc"] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/completions", &body)
    };
    let answer = ask(json!({ "n": 2, "logprobs": 1 })).json();
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!((&answer["object"], answer["choices"].as_array().unwrap().len()), (&json!("text_completion"), 4));
    assert_eq!((&answer["choices"][3]["index"], &answer["choices"][3]["text"]), (&json!(3), &json!("xy")));
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!((&logprobs["tokens"], &logprobs["text_offset"]), (&json!(["x", "y"]), &json!([0, 1])));
    assert_eq!(logprobs["top_logprobs"][0], json!({ "A": -1.0, "x": -0.5 }));
    let events = ask(json!({ "stream": true })).events();
    let text = |index: u64| {
        let of = events.iter().filter(|event| event["choices"][0]["index"] == index);
        of.map(|event| event["choices"][0]["text"].as_str().unwrap()).collect::<String>()
    };
    assert_eq!((text(0), text(1)), ("xy".into(), "xy".into()));
    assert!(events.iter().all(|event| event["choices"][0].get("delta").is_none()));
    let tokens = server.post("/completions", &json!({ "model": "org/other", "prompt": [97, 98] }));
    assert_eq!((tokens.status, &tokens.json()["usage"]["prompt_tokens"]), (200, &json!(2)));
}

#[test]
fn errors_behind_the_headers_are_told_in_the_stream() {
    let refusals = [
        (Refusal::NotFinite("in layer 3".into()), "not_finite"),
        (Refusal::Internal("broken".into()), "internal"),
        (Refusal::Draining, "draining"),
        (Refusal::Deadline(std::time::Duration::from_secs(3)), "deadline"),
    ];
    for (refusal, code) in refusals {
        let server = start(move |command| {
            if let Command::Run(mut job, _) = command {
                (job.hear)(Told::Queued { before: 0 });
                (job.hear)(Told::Token { choice: 0, token: 65, logprobs: None });
                (job.hear)(Told::Refused(refusal.clone()));
            }
        });
        let reply = server.chat(json!({ "stream": true }));
        assert_eq!(reply.status, 200);
        let events = reply.events();
        assert_eq!(events.last().unwrap()["error"]["code"], code);
        assert!(events.len() == 3 && events[..2].iter().all(|event| event.get("error").is_none()));
        assert_eq!(server.lines(1)[0].error, Some(code));
    }
}

#[test]
fn a_scheduler_that_dies_is_an_error_and_no_silence() {
    let server = start(|command| {
        if let Command::Run(mut job, _) = command {
            (job.hear)(Told::Queued { before: 0 });
            // The job goes, and with it whoever could say something.
        }
    });
    assert_eq!(server.chat(json!({ "stream": true })).events()[0]["error"]["code"], "internal");
    assert_eq!(server.chat(json!({})).error().0, 500);
}

#[test]
fn jobs_are_as_requests_say() {
    let (sender, jobs) = std::sync::mpsc::channel();
    let server = start(move |command| {
        if let Command::Run(mut job, flags) = command {
            say(&mut job, &flags, "x", Why::Length);
            sender.send(job).unwrap();
        }
    });
    let reply =
        server.chat(json!({ "max_tokens": 7, "n": 3, "temperature": 0.5, "seed": 9, "logit_bias": { "65": 2 } }));
    assert_eq!(reply.json()["choices"][2]["finish_reason"], "length");
    let job = jobs.recv().unwrap();
    assert_eq!((job.choices, job.stop.max_new_tokens, job.stop.min_new_tokens), (3, 7, 0));
    assert_eq!((job.sampling.temperature, job.sampling.seed, job.sampling.logit_bias), (0.5, 9, vec![(65, 2.0)]));
    assert_eq!(job.stop.tokens, [257]);
    assert!(job.store && !job.exact && job.document.is_none());
    let text = common::model::outline().tokenizer().decode(&job.tokens, false).unwrap();
    assert_eq!(text, "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");

    server.chat(json!({ "ignore_eos": true, "cokv": { "store": false, "exact": true } }));
    let job = jobs.recv().unwrap();
    assert_eq!((job.stop.max_new_tokens, job.stop.min_new_tokens, job.store, job.exact), (32, 32, false, true));

    server.post(
        "/v1/chat/completions",
        &chat(json!({ "cokv": { "compress": { "mode": "question", "budget": "25%" } } })),
    );
    let job = jobs.recv().unwrap();
    assert!(
        matches!(job.compression, cokv_scheduler::Compression::Question { frame, .. } if frame.head > 0 && frame.question > 0 && frame.tail > 0)
    );
}

#[test]
fn calls_of_tools_are_found() {
    let server = start(saying("Well. <tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>"));
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }]);
    let answer = server.chat(json!({ "tools": tools, "max_tokens": 100 })).json();
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &json!("Well.")));
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(call["function"], json!({ "name": "f", "arguments": "{\"x\":1}" }));
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let events = server.chat(json!({ "tools": tools, "stream": true, "max_tokens": 100 })).events();
    let deltas: Vec<&Json> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    let text: String = deltas.iter().filter_map(|delta| delta["content"].as_str()).collect();
    assert_eq!(text, "Well. ");
    let calls: Vec<&Json> = deltas.iter().filter_map(|delta| delta.get("tool_calls")).collect();
    assert_eq!((calls.len(), &calls[0][0]["index"], &calls[0][0]["function"]["name"]), (1, &json!(0), &json!("f")));
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let none = server.chat(json!({ "tools": tools, "tool_choice": "none", "max_tokens": 100 })).json();
    assert!(none["choices"][0]["message"]["content"].as_str().unwrap().contains("<tool_call>"));

    let said = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{\"x\": 1}" } }] },
        { "role": "tool", "tool_call_id": "1", "content": "2" },
    ]);
    let prompt = server.post("/apply-template", &json!({ "messages": said })).json()["prompt"].clone();
    assert!(
        prompt.as_str().unwrap().contains("<tool_call>{\"name\": \"f\", \"arguments\": {\"x\": 1}}</tool_call>"),
        "{prompt}"
    );
}

#[test]
fn words_that_spell_control_tokens_are_words() {
    let server = start(saying("x"));
    let body = json!({ "messages": [{ "role": "user", "content": "a<|im_end|>b" }] });
    let applied = server.post("/apply-template", &body).json();
    let tokens: Vec<u64> = applied["tokens"].as_array().unwrap().iter().filter_map(Json::as_u64).collect();
    assert_eq!(tokens.iter().filter(|&&token| token == 257).count(), 1, "the template's own");
    let refused =
        server.chat(json!({ "messages": [{ "role": "user", "content": "hi" }], "continue_final_message": true }));
    assert_eq!(refused.error().1, "invalid_value");
    let parts =
        json!([{ "type": "text", "text": "ab", "prompt_cache_breakpoint": {} }, { "type": "text", "text": "c" }]);
    let applied = server.post("/apply-template", &json!({ "messages": [{ "role": "user", "content": parts }] })).json();
    let before = "user\nab".len() + 1;
    assert_eq!(applied["breakpoints"], json!([before]));
}
