//! What form an answer has: whatever the model says, JSON of some schema, or calls of tools.

use serde_json::{Value as Json, json};

use super::error::ApiError;
use super::fields::{Fields, kind};

/// Other servers' fields that say an answer's form; here it is OpenAI's `response_format` that does.
pub const ELSEWHERE: [&str; 7] =
    ["grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs"];

/// Bytes of a schema.
const LARGEST: usize = 64 << 10;

/// What says of an object's properties more than which they are.
const OPEN: [&str; 7] =
    ["additionalProperties", "patternProperties", "minProperties", "allOf", "anyOf", "oneOf", "$ref"];

/// What form an answer has.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Form {
    /// Whatever the model says.
    #[default]
    Free,
    /// JSON, and nothing else.
    Json(Schema),
    /// A call of one of these functions, and nothing else.
    Calls {
        /// At least one.
        functions: Vec<Function>,
        /// Whether there may be several calls.
        several: bool,
    },
    /// JSON, or calls of functions.
    JsonOrCalls(Schema, Vec<Function>),
    /// Words, among which calls of functions may stand.
    Talk(Vec<Function>),
}

/// A JSON schema: an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Schema {
    /// As it was sent.
    pub json: Json,
    /// The field that it stands in.
    pub param: String,
}

/// A function, and what it is called with.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Of its arguments, which are an object.
    pub arguments: Schema,
}

impl Schema {
    /// A schema that stands in some field.
    ///
    /// # Errors
    /// It is no object, or too large.
    pub fn read(param: &str, json: Json) -> Result<Self, ApiError> {
        if !json.is_object() {
            let message = format!("`{param}` must be a JSON schema, which is an object, not {}", kind(&json));
            return Err(ApiError::value(param, message));
        }
        let bytes = json.to_string().len();
        if bytes > LARGEST {
            return Err(invalid(param, format!("the schema has {bytes} bytes, and may have {LARGEST}")));
        }
        Ok(Self { json, param: param.into() })
    }

    /// What a function is called with.
    ///
    /// # Errors
    /// It is no object, or asks for something that is none.
    pub fn of_arguments(param: &str, parameters: Option<Json>) -> Result<Self, ApiError> {
        let nothing = || json!({ "type": "object", "properties": {}, "additionalProperties": false });
        let mut schema = Self::read(param, parameters.unwrap_or_else(nothing))?;
        let is_object = |kind: &Json| kind == "object";
        match schema.json.get("type") {
            None => {}
            Some(Json::Array(kinds)) if kinds.iter().any(is_object) => {}
            Some(kind) if is_object(kind) => {}
            Some(other) => {
                let message = format!("what a function is called with is an object, and never {other}");
                return Err(invalid(param, message));
            }
        }
        schema.json["type"] = "object".into();
        // Small models wander where they may: what is listed is all there is, unless the schema says otherwise.
        let is_open = OPEN.iter().any(|rule| schema.json.get(rule).is_some());
        if schema.json.get("properties").is_some() && !is_open {
            schema.json["additionalProperties"] = false.into();
        }
        Ok(schema)
    }
}

/// A schema that nothing can be made of.
pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid("invalid_schema", message).of(param)
}

/// What `response_format` says, where it wants JSON.
pub fn response_format(fields: &mut Fields) -> Result<Option<Schema>, ApiError> {
    let Some(mut format) = fields.object("response_format")? else { return Ok(None) };
    let kind: String = format.required("type")?;
    match kind.as_str() {
        "text" => Ok(None),
        "json_object" => {
            // llama.cpp's clients may send a schema with it.
            let schema = format.json("schema").unwrap_or_else(|| json!({ "type": "object" }));
            Schema::read(&format.path("schema"), schema).map(Some)
        }
        "json_schema" => {
            let missing = |path: String| ApiError::value(&path, format!("`{path}` is missing"));
            let path = format.path("json_schema");
            let mut named = format.object("json_schema")?.ok_or_else(|| missing(path))?;
            // With or without it, the answer is held to the schema.
            named.optional::<bool>("strict")?;
            let path = named.path("schema");
            let schema = named.json("schema").ok_or_else(|| missing(path.clone()))?;
            Schema::read(&path, schema).map(Some)
        }
        other => Err(ApiError::value(format.path("type"), format!("there is no format `{other}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Json) -> Result<Option<Schema>, ApiError> {
        let body = json!({ "response_format": format }).to_string();
        response_format(&mut Fields::read(body.as_bytes()).unwrap())
    }

    #[test]
    fn formats_are_schemas() {
        for format in [json!(null), json!({ "type": "text" })] {
            assert_eq!(read(format).unwrap(), None);
        }
        assert_eq!(read(json!({ "type": "json_object" })).unwrap().unwrap().json, json!({ "type": "object" }));
        let schema = json!({ "type": "array", "items": { "type": "integer" } });
        for format in [
            json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": true } }),
            json!({ "type": "json_schema", "json_schema": { "schema": schema, "strict": null } }),
            json!({ "type": "json_object", "schema": schema }),
        ] {
            assert_eq!(read(format).unwrap().unwrap().json, schema);
        }
    }

    #[test]
    fn what_is_no_format_is_named() {
        let large = json!({ "enum": ["x".repeat(LARGEST)] });
        for (format, code, param) in [
            (json!({}), "invalid_value", "response_format.type"),
            (json!({ "type": "xml" }), "invalid_value", "response_format.type"),
            (json!({ "type": "json_schema" }), "invalid_value", "response_format.json_schema"),
            (
                json!({ "type": "json_schema", "json_schema": {} }),
                "invalid_value",
                "response_format.json_schema.schema",
            ),
            (
                json!({ "type": "json_schema", "json_schema": { "schema": true } }),
                "invalid_value",
                "response_format.json_schema.schema",
            ),
            (
                json!({ "type": "json_schema", "json_schema": { "schema": {}, "strict": 1 } }),
                "invalid_value",
                "response_format.json_schema.strict",
            ),
            (
                json!({ "type": "json_schema", "json_schema": { "schema": large } }),
                "invalid_schema",
                "response_format.json_schema.schema",
            ),
        ] {
            let error = read(format).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Some(code), Some(param)));
        }
    }

    #[test]
    fn arguments_are_objects() {
        let of = |parameters| Schema::of_arguments("p", parameters);
        assert_eq!(of(None).unwrap().json["additionalProperties"], false);
        for parameters in [json!({}), json!({ "type": "object" }), json!({ "type": ["null", "object"] })] {
            assert_eq!(of(Some(parameters)).unwrap().json["type"], "object");
        }
        let properties = json!({ "x": {} });
        assert_eq!(of(Some(json!({ "properties": properties }))).unwrap().json["additionalProperties"], false);
        for open in [json!({ "additionalProperties": {} }), json!({ "$ref": "#/$defs/x" })] {
            let mut parameters = open.clone();
            parameters["properties"] = properties.clone();
            let read = of(Some(parameters)).unwrap().json;
            assert_eq!(read.get("additionalProperties"), open.get("additionalProperties"));
        }
        for parameters in [json!(1), json!({ "type": "string" }), json!({ "type": ["null"] })] {
            assert_eq!(of(Some(parameters)).unwrap_err().param.as_deref(), Some("p"));
        }
    }
}
