//! Answers that have to have a form, from the socket to a model whose weights are drawn: it has no idea, and what it says is valid.
#![cfg(feature = "structured")]

mod common;

use std::sync::Arc;

use cokv_models::{LanguageModel, LoadOptions, Outline};
use common::{Reply, Running, model};
use serde_json::{Value as Json, json};

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let files = model::write(folder.path());
    let outline = Outline::open(&files).unwrap();
    let model = Arc::new(LanguageModel::load(&files, &LoadOptions::default(), |_, _| {}).unwrap());
    let settings = cokv_scheduler::Settings { cache_memory: Some(64 << 20), ..cokv_scheduler::Settings::default() };
    let (handle, _worker) = cokv_scheduler::start(model, settings).unwrap();
    common::serve(handle, outline, |server| server.settings.max_tokens = 200)
}

/// What is asked so that it is answered the same way, in few words.
fn ask(server: &Running, more: Json) -> Reply {
    // Quotation marks and brackets are likely, so that what begins ends.
    let mut body = json!({ "temperature": 1, "seed": 5, "logit_bias": { "34": 5, "93": 5, "125": 5 } });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.chat(body)
}

fn order() -> Json {
    let size = json!({ "type": "integer", "minimum": 0, "maximum": 99 });
    let properties = json!({
        "colour": { "enum": ["red", "blue"] },
        "sizes": { "type": "array", "items": size, "minItems": 1, "maxItems": 3 },
    });
    json!({ "type": "object", "properties": properties, "required": ["colour", "sizes"], "additionalProperties": false })
}

fn format(schema: Json) -> Json {
    json!({ "type": "json_schema", "json_schema": { "name": "order", "schema": schema, "strict": true } })
}

fn assert_is_order(text: &str) {
    let order: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(order["colour"] == "red" || order["colour"] == "blue", "{text}");
    let sizes = order["sizes"].as_array().unwrap();
    assert!((1..=3).contains(&sizes.len()) && sizes.iter().all(|size| size.as_u64().is_some_and(|size| size < 100)));
    assert_eq!(order.as_object().unwrap().len(), 2, "{text}");
}

fn told(events: &[Json]) -> String {
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn answers_follow_a_schema_whole_and_streamed() {
    let server = start();
    for more in [
        json!({ "n": 3, "logprobs": true, "top_logprobs": 2 }),
        json!({ "temperature": 0, "logit_bias": {} }),
        json!({ "ignore_eos": true, "presence_penalty": 1, "top_k": 50 }),
        json!({ "min_tokens": 150 }),
    ] {
        let mut body = json!({ "response_format": format(order()) });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let whole = ask(&server, body.clone());
        assert_eq!(whole.status, 200, "{}", whole.body);
        let whole = whole.json();
        for choice in whole["choices"].as_array().unwrap() {
            assert_is_order(choice["message"]["content"].as_str().unwrap());
            assert_eq!(choice["finish_reason"], "stop");
        }
        body["stream"] = true.into();
        let events = ask(&server, body).events();
        let first = events.iter().filter(|event| event["choices"][0]["index"] == 0).cloned().collect::<Vec<_>>();
        assert_eq!(told(&first), whole["choices"][0]["message"]["content"].as_str().unwrap());
        assert_eq!(first.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
    let any = ask(&server, json!({ "response_format": { "type": "json_object" } })).json();
    let (text, reason) = (&any["choices"][0]["message"]["content"], &any["choices"][0]["finish_reason"]);
    assert!(reason == "length" || serde_json::from_str::<Json>(text.as_str().unwrap()).unwrap().is_object(), "{any}");
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let server = start();
    let cut = ask(&server, json!({ "response_format": format(order()), "max_tokens": 9 })).json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert_eq!(cut["usage"]["completion_tokens"], 9);
    let stopped = ask(&server, json!({ "response_format": format(order()), "stop": "sizes" })).json();
    let choice = &stopped["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert!(choice["message"]["content"].as_str().unwrap().ends_with('"'), "{choice}");
}

fn tools() -> Json {
    let function = |name: &str, parameters: Json| json!({ "type": "function", "function": { "name": name, "parameters": parameters, "strict": true } });
    let at = json!({ "type": "object", "properties": { "at": { "type": "integer", "minimum": 0, "maximum": 23 } }, "required": ["at"] });
    json!([function("order", order()), function("wake", at)])
}

fn called(choice: &Json) -> (&str, Json) {
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Json::Null),
        "{choice}"
    );
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 1);
    let function = &calls[0]["function"];
    (function["name"].as_str().unwrap(), serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap())
}

#[test]
fn calls_of_tools_can_be_wanted() {
    let server = start();
    let wake = json!({ "type": "function", "function": { "name": "wake" } });
    for n in 1..6 {
        let answer = ask(&server, json!({ "tools": tools(), "tool_choice": "required", "seed": n })).json();
        match called(&answer["choices"][0]) {
            ("order", arguments) => assert_is_order(&arguments.to_string()),
            ("wake", arguments) => assert!(arguments["at"].as_u64().unwrap() < 24),
            other => panic!("{other:?}"),
        }
        let body = json!({ "tools": tools(), "tool_choice": wake, "seed": n });
        assert_eq!(called(&ask(&server, body.clone()).json()["choices"][0]).0, "wake");
        let mut streamed = body;
        streamed["stream"] = true.into();
        let events = ask(&server, streamed).events();
        assert_eq!(told(&events), "");
        let calls: Vec<&Json> =
            events.iter().filter_map(|event| event["choices"][0]["delta"].get("tool_calls")).collect();
        assert_eq!((calls.len(), &calls[0][0]["function"]["name"]), (1, &json!("wake")));
        assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    }
    let cut = ask(&server, json!({ "tools": tools(), "tool_choice": wake, "max_tokens": 20 })).json();
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    assert!(cut["choices"][0]["message"].get("tool_calls").is_none());
}

#[test]
fn words_and_calls_have_each_their_form() {
    let server = start();
    let mut calls = 0;
    for seed in 0..8 {
        let body = json!({ "tools": tools(), "response_format": format(order()), "seed": seed });
        let answer = ask(&server, body).json();
        let choice = &answer["choices"][0];
        match choice["message"]["content"].as_str() {
            Some(words) if choice["finish_reason"] == "stop" => assert_is_order(words),
            _ => calls += usize::from(choice["finish_reason"] == "tool_calls"),
        }
    }
    assert!(calls > 0, "a model that says anything calls now and then");
}

#[test]
fn what_cannot_be_followed_is_refused_with_the_reason() {
    let server = start();
    let refused = |more: Json, param: &str, words: &str| {
        let reply = ask(&server, more);
        assert_eq!(reply.error(), (400, json!("invalid_schema"), json!(param)));
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(words), "{}", reply.body);
    };
    let schema = "response_format.json_schema.schema";
    refused(json!({ "response_format": format(json!({ "not": {} })) }), schema, "not");
    refused(
        json!({ "response_format": format(json!({ "type": "array", "uniqueItems": true })) }),
        schema,
        "uniqueItems",
    );
    refused(json!({ "response_format": format(json!({ "$ref": "#/$defs/none" })) }), schema, "none");
    refused(
        json!({ "response_format": format(json!({ "$ref": "http://localhost/x.json" })) }),
        schema,
        "http://localhost",
    );
    refused(json!({ "response_format": format(json!({ "type": "string", "pattern": "(" })) }), schema, "regex");
    let mut body = json!({ "tools": tools(), "tool_choice": "required" });
    body["tools"][1]["function"]["parameters"] = json!({ "properties": { "x": { "if": {} } } });
    refused(body, "tools[1].function.parameters", "if");
    assert_eq!(server.chat(json!({ "max_tokens": 3 })).status, 200);
}
