//! What grammars admit, of answers that a model of drawn weights writes: every whole one is what was asked for.

mod schemas;

use std::collections::HashMap;
use std::sync::LazyLock;

use cokv_core::Frame;
use cokv_models::batch::{Batch, BatchSettings, Event, Request, SequenceId, Start, Why};
use cokv_models::chat::ToolSyntax;
use cokv_models::ledger::Ledger;
use cokv_models::sampling::{Constraint, End, Sampler, Sampling};
use cokv_models::{LanguageModel, LoadOptions, StopRule};
use serde_json::{Value as Json, json};

use super::*;
use crate::api::error::ApiError;
use crate::api::form::{Form, Function, Schema};
use crate::testing::{outline, write};

static MODEL: LazyLock<LanguageModel> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    LanguageModel::load(&write(folder.path()), &LoadOptions::default(), |_, _| {}).unwrap()
});

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::of(std::sync::Arc::new(outline())));

fn constraint(form: Form) -> Result<Option<Box<dyn Constraint>>, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(GRAMMARS.constraint(form))
}

fn of_schema(json: Json) -> Form {
    Form::Json(Schema::read("s", json).unwrap())
}

fn function(name: &str, parameters: Json) -> Function {
    Function { name: name.into(), arguments: Schema::of_arguments(name, Some(parameters)).unwrap() }
}

/// What the model answers, all in one batch. It likes to end what it has begun.
fn answers(forms: impl IntoIterator<Item = Form>) -> Vec<(Why, String)> {
    let settings = BatchSettings { rows: 32, ..BatchSettings::default() };
    let mut batch = Batch::new(std::sync::Arc::clone(MODEL.engine()), settings, Ledger::new(None));
    let ends = [b'"', b'}', b']'].map(|byte| (u32::from(byte), 5.0)).to_vec();
    let ids: Vec<SequenceId> = forms
        .into_iter()
        .zip(0..)
        .map(|(form, seed)| {
            let sampling = Sampling { seed, logit_bias: ends.clone(), ..Sampling::default() };
            let stop =
                StopRule { tokens: MODEL.outline().stop_tokens().to_vec(), max_new_tokens: 400, min_new_tokens: 0 };
            let start =
                Start::Prompt { tokens: vec![97 + seed as u32 % 26, 98], frame: Frame::default(), compress: None };
            let samplers = vec![Sampler::new(sampling, 0, &[])];
            batch.submit(Request { start, stop, samplers, constraint: constraint(form).unwrap() }).unwrap()
        })
        .collect();
    let mut ended = HashMap::new();
    while batch
        .step(&mut |id, event| match event {
            Event::Ended { why, answer, .. } => {
                drop(ended.insert(id, (why, MODEL.tokenizer().decode(&answer, true).unwrap())))
            }
            Event::Failed(error) => panic!("{error}"),
            _ => {}
        })
        .unwrap()
    {}
    ids.iter().map(|id| ended.remove(id).unwrap()).collect()
}

#[test]
fn whole_answers_are_valid_by_their_schemas() {
    let schemas: Vec<Json> = (0..200).map(schemas::schema).collect();
    let mut whole = 0;
    for ((why, text), schema) in answers(schemas.iter().cloned().map(of_schema)).iter().zip(&schemas) {
        if *why == Why::Length {
            continue;
        }
        whole += 1;
        let value: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text} of {schema}"));
        schemas::check(schema, &value, schema).unwrap();
    }
    assert!(whole >= 190, "of 200 answers {whole} came to their end");
}

/// Whether an answer may be this, and end there.
fn admits(form: &Form, text: &str) -> bool {
    let mut constraint = constraint(form.clone()).unwrap().unwrap();
    let bytes = outline().tokenizer().encode(text, false).unwrap();
    for token in bytes {
        if constraint.end().unwrap() == End::Must {
            return false;
        }
        let mask = constraint.mask().unwrap();
        if mask.get(token as usize / 32).is_none_or(|word| word >> (token % 32) & 1 == 0) {
            return false;
        }
        constraint.push(token).unwrap();
    }
    constraint.end().unwrap() != End::Not
}

fn calls(several: bool) -> Form {
    let city = json!({ "properties": { "city": { "enum": ["Bern", "Oslo"] } }, "required": ["city"] });
    Form::Calls { functions: vec![function("weather", city), function("say \"now\"", json!({}))], several }
}

const OSLO: &str = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>";

#[test]
fn white_space_has_an_end() {
    let form = of_schema(json!({ "type": "array", "items": { "type": "boolean" } }));
    for text in ["[]", "[true,false]", "[ true , false ]", "[\n  true,\n  false\n]"] {
        assert!(admits(&form, text), "{text}");
    }
    for text in ["[", "[true,]", "[1]", " []", "[] ", "[\n\n]", "[   ]"] {
        assert!(!admits(&form, text), "{text}");
    }
}

#[test]
fn a_schema_has_no_say_in_how_it_is_read() {
    let form = of_schema(json!({ "type": "boolean", "x-guidance": { "whitespace_pattern": "x*", "lenient": true } }));
    assert!(admits(&form, "true") && !admits(&form, "xtrue"));
}

#[test]
fn wanted_calls_are_calls_and_nothing_else() {
    let one = calls(false);
    assert!(admits(&one, OSLO));
    assert!(admits(&one, "<tool_call>\n{\"name\": \"say \\\"now\\\"\", \"arguments\": {\"x\": [1]}}\n</tool_call>"));
    let wrong_city = OSLO.replace("Oslo", "Rome");
    let two = [OSLO, OSLO].join("\n");
    for text in ["", "Well. ", "{}", &OSLO[..OSLO.len() - 1], &wrong_city, &two] {
        assert!(!admits(&one, text), "{text}");
    }
    assert!(admits(&calls(true), OSLO) && admits(&calls(true), &two));
    let (_, found) = ToolSyntax::Hermes.parse(&two);
    assert_eq!((found.len(), found[1].arguments.as_str()), (2, r#"{"city":"Oslo"}"#));
}

#[test]
fn words_are_free_until_a_call_begins() {
    let Form::Calls { functions, .. } = calls(true) else { panic!() };
    let talk = Form::Talk(functions);
    let well = format!("Well,\nlet me see. {OSLO}");
    let twice = format!("{well}\n{OSLO} That was it.");
    for text in ["", "No <tool> is needed.\n", "{\"a\": <", &well, &twice] {
        assert!(admits(&talk, text), "{text}");
    }
    for text in ["<tool_call>", "<tool_call>no", &well[..well.len() - 3], &twice.replace("Oslo", "Rome")] {
        assert!(!admits(&talk, text), "{text}");
    }
}

#[test]
fn an_answer_may_be_of_a_form_or_call() {
    let Form::Calls { functions, .. } = calls(true) else { panic!() };
    let schema = Schema::read(
        "s",
        json!({ "type": "object", "properties": { "a": { "const": 1 } }, "required": ["a"], "additionalProperties": false }),
    );
    let either = Form::JsonOrCalls(schema.unwrap(), functions);
    assert!(admits(&either, "{\"a\": 1}") && admits(&either, OSLO));
    for text in ["", "{}", "Well. ", "{\"a\": 1}<tool_call>"] {
        assert!(!admits(&either, text), "{text}");
    }
}

/// Every family's calls are found by what reads them.
#[test]
fn calls_are_written_as_they_are_read() {
    let parameters = json!({ "properties": { "x": { "const": "é\"" } }, "required": ["x"] });
    for (syntax, marker) in [
        (ToolSyntax::Hermes, None),
        (ToolSyntax::Llama3, None),
        (ToolSyntax::Mistral, None),
        (ToolSyntax::Mistral, Some(256)),
    ] {
        let form = Form::Calls { functions: vec![function("f \"g\"", parameters.clone())], several: false };
        let text = lark::grammar(&form, lark::Calls { syntax, marker }).unwrap();
        let mut following = GRAMMARS.follow(text);
        // The lowest of what may come: what is free is as short as can be.
        let mut answer = Vec::new();
        while following.end().unwrap() == End::Not {
            assert!(answer.len() < 500, "{syntax:?}: {}", outline().tokenizer().decode(&answer, false).unwrap());
            let mask = following.mask().unwrap();
            let (word, bits) = mask.iter().enumerate().find(|(_, bits)| **bits != 0).unwrap();
            let token = word as u32 * 32 + bits.trailing_zeros();
            following.push(token).unwrap();
            answer.push(token);
        }
        assert_eq!(answer.contains(&256), marker.is_some());
        let text = outline().tokenizer().decode(&answer, true).unwrap();
        let (beside, calls) = syntax.parse(&text);
        assert_eq!((beside.as_str(), calls.len()), ("", 1), "{syntax:?}: {text}");
        assert_eq!((calls[0].name.as_str(), calls[0].arguments.as_str()), ("f \"g\"", r#"{"x":"é\""}"#));
    }
}

/// What nobody means well: each is refused or followed, within a moment, and nothing breaks.
#[test]
fn schemas_that_mean_harm_are_followed_or_refused() {
    let many = |count: usize, of: fn(usize) -> Json| (0..count).map(of).collect::<Vec<Json>>();
    let deep = (0..60).fold(json!({ "type": "null" }), |inner, _| json!({ "type": "array", "items": inner }));
    let named = |count: usize| {
        (0..count).map(|at| (format!("p{at}"), json!({ "type": "string" }))).collect::<serde_json::Map<_, _>>()
    };
    let patterns = (0..60).map(|at| (format!("^(a|b)*{at}$"), json!({}))).collect::<serde_json::Map<_, _>>();
    let choices =
        json!({ "anyOf": many(20, |at| json!({ "properties": { format!("p{at}"): { "type": "string" } } })) });
    let hostile = [
        json!({ "$ref": "#" }),
        json!({ "allOf": [{ "$ref": "#" }, { "$ref": "#" }] }),
        json!({ "anyOf": [{ "$ref": "#" }] }),
        json!({ "type": "array", "minItems": 1_000_000_000u64, "items": { "type": "array", "minItems": 1_000_000_000u64 } }),
        json!({ "type": "array", "maxItems": u64::MAX }),
        json!({ "type": "string", "minLength": 1_000_000_000u64 }),
        json!({ "type": "string", "maxLength": u64::MAX }),
        json!({ "type": "string", "pattern": "((a{1000}){1000}){1000}" }),
        json!({ "type": "string", "pattern": "(a|b|ab)*(c|ab){500}(x*y*z*){500}" }),
        json!({ "type": "string", "pattern": format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000)) }),
        json!({ "type": "string", "pattern": "[a-z]?".repeat(8_000) }),
        json!({ "type": "string", "pattern": "(.*a){60}" }),
        json!({ "type": "string", "pattern": "^(?=.*a)(?!b).{3}\\1$" }),
        json!({ "allOf": vec![choices; 6] }),
        json!({ "type": "object", "patternProperties": patterns }),
        json!({ "type": "object", "properties": named(500) }),
        json!({ "type": "object", "minProperties": 1_000_000_000u64, "maxProperties": u64::MAX }),
        json!({ "enum": many(5000, |at| json!(format!("value {at}"))) }),
        json!({ "enum": many(3000, |at| json!(format!("é{at}").repeat(2))) }),
        json!({ "type": "number", "multipleOf": 1e-300, "minimum": -1e308, "maximum": 1e308 }),
        json!({ "type": "integer", "multipleOf": 999_999_937, "minimum": i64::MIN, "maximum": u64::MAX }),
        json!({ "type": "integer", "minimum": 5, "maximum": 4 }),
        json!({ "type": ["x"], "properties": 3, "required": "é".repeat(200) }),
        json!({ "type": "é".repeat(99) }),
        deep,
    ];
    for schema in hostile {
        let begun = std::time::Instant::now();
        let shown: String = schema.to_string().chars().take(80).collect();
        match constraint(of_schema(schema)) {
            Err(error) => assert_eq!((error.status, error.code), (400, Some("invalid_schema")), "{shown}"),
            Ok(constraint) => {
                let mut constraint = constraint.unwrap();
                for place in 0..100 {
                    if constraint.end().is_ok_and(|end| end == End::Must) {
                        break;
                    }
                    let Ok(mask) = constraint.mask() else { break };
                    let allowed: Vec<u32> =
                        (0..258).filter(|token| mask[*token as usize / 32] >> (token % 32) & 1 == 1).collect();
                    if constraint.push(allowed[place * 7 % allowed.len()]).is_err() {
                        break;
                    }
                }
            }
        }
        assert!(begun.elapsed().as_secs() < 10, "{shown}");
    }
}
