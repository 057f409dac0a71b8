//! Schemas of many kinds, and what is valid by them: as much of JSON Schema as is drawn here.

use cokv_core::random::mix;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

/// The same schema for the same seed.
pub fn schema(seed: u64) -> Json {
    let mut draws = Draws(seed);
    let mut root = match draws.below(8) {
        0 => draws.list(0),
        1 => draws.schema(0),
        _ => draws.table(0),
    };
    if root.to_string().contains("$ref") {
        let next = json!({ "anyOf": [{ "type": "null" }, { "$ref": "#/$defs/chain" }] });
        let properties = json!({ "link": { "type": "integer", "minimum": 1, "maximum": 9 }, "next": next });
        let chain = json!({ "type": "object", "properties": properties, "required": ["link", "next"], "additionalProperties": false });
        root["$defs"] = json!({ "chain": chain });
    }
    root
}

struct Draws(u64);

impl Draws {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % count
    }

    fn schema(&mut self, depth: usize) -> Json {
        match self.below(if depth < 3 { 19 } else { 13 }) {
            0 => json!({ "type": "string" }),
            1 => {
                let least = self.below(4);
                json!({ "type": "string", "minLength": least, "maxLength": least + self.below(5) })
            }
            2 => json!({ "type": "string", "pattern": "^[a-z]{2,5}-[0-9]+$" }),
            3 => json!({ "type": "string", "pattern": "^[abc]" }),
            4 => {
                let least = self.below(2000) as i64 - 1000;
                json!({ "type": "integer", "minimum": least, "maximum": least + self.below(50) as i64 })
            }
            5 => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 9.5 }),
            6 => json!({ "type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 1000 }),
            7 => json!({ "type": "boolean", "description": "yes or no" }),
            8 => json!({ "enum": ["ä", "b\"c", "two\nlines", 3, null, true] }),
            9 => json!({ "const": { "k": [1, "x"] } }),
            10 => json!({ "type": ["null", "integer", "string"], "maxLength": 3 }),
            11 => json!({ "type": "string", "format": "date" }),
            12 => json!({ "$ref": "#/$defs/chain" }),
            13..=15 => self.table(depth + 1),
            16 => self.list(depth + 1),
            17 => {
                let [first, second] = [self.schema(depth + 1), self.schema(depth + 1)];
                json!({ "type": "array", "prefixItems": [first, second], "items": false, "minItems": 2 })
            }
            _ => json!({ "anyOf": [self.schema(depth + 1), self.schema(depth + 1)] }),
        }
    }

    fn table(&mut self, depth: usize) -> Json {
        let count = self.below(4) + 1;
        let name = |at: u64| ["name", "größe", "a \"b\"", "x.y"][at as usize % 4].to_owned();
        let properties: Map<String, Json> = (0..count).map(|at| (name(at), self.schema(depth + 1))).collect();
        let required: Vec<String> = properties.keys().filter(|_| self.below(3) > 0).cloned().collect();
        let mut table = json!({ "type": "object", "properties": properties, "required": required });
        match self.below(4) {
            0 => table["additionalProperties"] = json!({ "type": "boolean" }),
            1 => table["patternProperties"] = json!({ "^p_": { "type": "null" } }),
            _ => {}
        }
        if table["additionalProperties"].is_null() {
            table["additionalProperties"] = false.into();
        }
        table
    }

    fn list(&mut self, depth: usize) -> Json {
        let least = self.below(3);
        json!({ "type": "array", "items": self.schema(depth + 1), "minItems": least, "maxItems": least + self.below(3) })
    }
}

/// Says what of a value is not valid by a schema that lies within `root`.
pub fn check(schema: &Json, value: &Json, root: &Json) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{value} is not valid by {what} of {schema}"));
    let Json::Object(rules) = schema else {
        return if schema == &json!(false) { wrong("false") } else { Ok(()) };
    };
    for (rule, said) in rules {
        let holds = match (rule.as_str(), value) {
            ("type", _) => kinds(said).any(|kind| is_of(kind, value)),
            ("const", _) => said == value,
            ("enum", _) => said.as_array().unwrap().contains(value),
            ("anyOf", _) => said.as_array().unwrap().iter().any(|one| check(one, value, root).is_ok()),
            ("$ref", _) => return check(root.pointer(&said.as_str().unwrap()[1..]).unwrap(), value, root),
            ("minLength", Json::String(text)) => text.chars().count() as u64 >= said.as_u64().unwrap(),
            ("maxLength", Json::String(text)) => text.chars().count() as u64 <= said.as_u64().unwrap(),
            ("pattern", Json::String(text)) => matches(said.as_str().unwrap(), text),
            ("format", Json::String(text)) => matches(r"^\d{4}-\d\d-\d\d$", text),
            ("minimum", Json::Number(number)) => number.as_f64() >= said.as_f64(),
            ("maximum", Json::Number(number)) => number.as_f64() <= said.as_f64(),
            ("exclusiveMinimum", Json::Number(number)) => number.as_f64() > said.as_f64(),
            ("multipleOf", Json::Number(number)) => number.as_f64().unwrap() % said.as_f64().unwrap() == 0.0,
            ("minItems", Json::Array(items)) => items.len() as u64 >= said.as_u64().unwrap(),
            ("maxItems", Json::Array(items)) => items.len() as u64 <= said.as_u64().unwrap(),
            ("prefixItems", Json::Array(items)) => {
                let first = said.as_array().unwrap().iter().zip(items);
                first.into_iter().try_for_each(|(schema, item)| check(schema, item, root)).map(|()| true)?
            }
            ("items", Json::Array(items)) => {
                let before = schema["prefixItems"].as_array().map_or(0, Vec::len);
                items.iter().skip(before).try_for_each(|item| check(said, item, root)).map(|()| true)?
            }
            ("required", Json::Object(table)) => {
                said.as_array().unwrap().iter().all(|name| table.contains_key(name.as_str().unwrap()))
            }
            ("properties", Json::Object(table)) => {
                table.iter().try_for_each(|(name, value)| check(property(schema, name), value, root)).map(|()| true)?
            }
            _ => true,
        };
        if !holds {
            return wrong(rule);
        }
    }
    Ok(())
}

fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).unwrap().is_match(text)
}

/// What a property of a table has to be.
fn property<'a>(schema: &'a Json, name: &str) -> &'a Json {
    let pattern = || schema["patternProperties"]["^p_"].as_object().filter(|_| name.starts_with("p_"));
    match schema["properties"].get(name) {
        Some(property) => property,
        None if pattern().is_some() => &schema["patternProperties"]["^p_"],
        None => &schema["additionalProperties"],
    }
}

fn kinds(said: &Json) -> impl Iterator<Item = &str> {
    let many = said.as_array().into_iter().flatten();
    std::iter::once(said).chain(many).filter_map(Json::as_str)
}

fn is_of(kind: &str, value: &Json) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("{other}"),
    }
}
