//! Tools that a model may call, and whether it has to.

use serde_json::{Value as Json, json};

use super::error::ApiError;
use super::fields::Fields;
use super::form::{Form, Function, Schema};

/// Tools of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tools {
    /// As a template sees them; none where there are none.
    pub seen: Option<Json>,
    functions: Vec<Tool>,
}

#[derive(Clone, Debug, PartialEq)]
struct Tool {
    name: String,
    parameters: Option<Json>,
    /// Whether its arguments are to follow their schema where nothing else makes them.
    strict: bool,
    /// Where its parameters stand.
    param: String,
}

/// Whether tools are called.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    Never,
    AsTheModelLikes,
    One,
    This(String),
}

impl Tools {
    /// Takes the tools.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let seen: Vec<Json> = fields.or("tools", Vec::new())?;
        let mut functions = Vec::new();
        for (at, tool) in seen.iter().enumerate() {
            let mut function = function(&format!("tools[{at}]"), tool.clone())?;
            functions.push(Tool {
                name: function.required("name")?,
                strict: function.or("strict", false)?,
                param: function.path("parameters"),
                parameters: function.json("parameters"),
            });
        }
        Ok(Self { seen: if seen.is_empty() { None } else { Some(seen.into()) }, functions })
    }

    /// Takes what is said of calling them, and tells whether calls are looked for and what form the answer has, where words are to
    /// follow a `schema` if there is one.
    pub fn form(&self, fields: &mut Fields, schema: Option<Schema>) -> Result<(bool, Form), ApiError> {
        let calls = match choice(fields)? {
            Choice::Never => return Ok((false, schema.map_or(Form::Free, Form::Json))),
            Choice::AsTheModelLikes => return Ok((!self.functions.is_empty(), self.as_the_model_likes(schema)?)),
            Choice::One => self.functions.iter().collect::<Vec<_>>(),
            Choice::This(name) => {
                let named = self.functions.iter().filter(|tool| tool.name == name);
                let named: Vec<_> = named.take(1).collect();
                if named.is_empty() {
                    let message = format!("there is no function `{name}` among the tools");
                    return Err(ApiError::value("tool_choice.function.name", message));
                }
                named
            }
        };
        if calls.is_empty() {
            return Err(ApiError::value("tool_choice", "a tool is to be called, and there are no `tools`"));
        }
        if schema.is_some() {
            let message = "an answer that has to call a tool cannot have another form: leave `response_format` or `tool_choice` out";
            return Err(ApiError::value("response_format", message));
        }
        let several = fields.or("parallel_tool_calls", false)?;
        let functions = calls.into_iter().map(Tool::function).collect::<Result<_, _>>()?;
        Ok((true, Form::Calls { functions, several }))
    }

    fn as_the_model_likes(&self, schema: Option<Schema>) -> Result<Form, ApiError> {
        let functions = || self.functions.iter().map(Tool::as_promised).collect::<Result<Vec<_>, _>>();
        Ok(match schema {
            Some(schema) if self.functions.is_empty() => Form::Json(schema),
            Some(schema) => Form::JsonOrCalls(schema, functions()?),
            None if self.functions.iter().any(|tool| tool.strict) => Form::Talk(functions()?),
            None => Form::Free,
        })
    }
}

impl Tool {
    fn function(&self) -> Result<Function, ApiError> {
        let arguments = Schema::of_arguments(&self.param, self.parameters.clone())?;
        Ok(Function { name: self.name.clone(), arguments })
    }

    /// A function that is called as the model likes: with any object, unless it is strict.
    fn as_promised(&self) -> Result<Function, ApiError> {
        let any = Some(json!({}));
        let free = Self { parameters: any, ..self.clone() };
        if self.strict { self.function() } else { free.function() }
    }
}

/// What is said of the function that a tool is, or that is chosen.
fn function(path: &str, tool: Json) -> Result<Fields, ApiError> {
    let mut tool = Fields::within(path, tool)?;
    let kind: String = tool.required("type")?;
    if kind != "function" {
        return Err(ApiError::unsupported(tool.path("type"), format!("tools are functions, not `{kind}`")));
    }
    let path = tool.path("function");
    let function = tool.object("function")?;
    function.ok_or_else(|| ApiError::value(&path, format!("`{path}` is missing")))
}

fn choice(fields: &mut Fields) -> Result<Choice, ApiError> {
    let path = "tool_choice";
    match fields.json(path) {
        None => Ok(Choice::AsTheModelLikes),
        Some(Json::String(choice)) => match choice.as_str() {
            "auto" => Ok(Choice::AsTheModelLikes),
            "none" => Ok(Choice::Never),
            "required" => Ok(Choice::One),
            other => Err(ApiError::value(path, format!("there is no tool choice `{other}`"))),
        },
        Some(choice @ Json::Object(_)) => Ok(Choice::This(function(path, choice)?.required("name")?)),
        Some(_) => Err(ApiError::value(path, "`tool_choice` must be a string or an object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Json, schema: Option<Json>) -> Result<(bool, Form), ApiError> {
        let mut fields = Fields::read(body.to_string().as_bytes()).unwrap();
        let schema = schema.map(|json| Schema { json, param: "s".into() });
        Tools::take(&mut fields)?.form(&mut fields, schema)
    }

    fn tools(strict: bool) -> Json {
        let function = |name: &str| json!({ "type": "function", "function": { "name": name, "strict": strict } });
        json!([function("f"), function("g")])
    }

    fn names(form: Form) -> Vec<String> {
        match form {
            Form::Calls { functions, .. } | Form::JsonOrCalls(_, functions) | Form::Talk(functions) => {
                functions.into_iter().map(|function| function.name).collect()
            }
            Form::Free | Form::Json(_) => Vec::new(),
        }
    }

    #[test]
    fn calls_are_looked_for_unless_nobody_wants_them() {
        for choice in [json!(null), json!("auto")] {
            assert_eq!(read(json!({ "tools": tools(false), "tool_choice": choice }), None), Ok((true, Form::Free)));
            assert_eq!(read(json!({ "tool_choice": choice }), None), Ok((false, Form::Free)));
        }
        assert_eq!(read(json!({ "tools": tools(true), "tool_choice": "none" }), None), Ok((false, Form::Free)));
        let (looked_for, form) = read(json!({ "tools": tools(true) }), None).unwrap();
        assert!(looked_for && matches!(form, Form::Talk(_)), "what is strict is held to its schema");
    }

    #[test]
    fn a_call_may_be_wanted() {
        let (_, form) = read(json!({ "tools": tools(false), "tool_choice": "required" }), None).unwrap();
        assert!(matches!(form, Form::Calls { several: false, .. }));
        assert_eq!(names(form), ["f", "g"]);
        let named = json!({ "type": "function", "function": { "name": "g" } });
        let body = json!({ "tools": tools(false), "tool_choice": named, "parallel_tool_calls": true });
        let (_, form) = read(body, None).unwrap();
        assert!(matches!(form, Form::Calls { several: true, .. }));
        assert_eq!(names(form), ["g"]);
    }

    #[test]
    fn words_and_calls_may_both_have_a_form() {
        let schema = || Some(json!({ "type": "object" }));
        assert!(matches!(read(json!({}), schema()), Ok((false, Form::Json(_)))));
        assert!(matches!(read(json!({ "tools": tools(false) }), schema()), Ok((true, Form::JsonOrCalls(..)))));
        let never = json!({ "tools": tools(false), "tool_choice": "none" });
        assert!(matches!(read(never, schema()), Ok((false, Form::Json(_)))));
        let forced = read(json!({ "tools": tools(false), "tool_choice": "required" }), schema()).unwrap_err();
        assert_eq!(forced.param.as_deref(), Some("response_format"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let named = |choice: Json| json!({ "tools": tools(false), "tool_choice": choice });
        for (body, code, param) in [
            (json!({ "tools": [{ "type": "web" }] }), "unsupported", "tools[0].type"),
            (json!({ "tools": [{ "type": "function", "function": {} }] }), "invalid_value", "tools[0].function.name"),
            (
                json!({ "tools": [{ "type": "function", "function": { "name": "f", "strict": 1 } }] }),
                "invalid_value",
                "tools[0].function.strict",
            ),
            (json!({ "tool_choice": "required" }), "invalid_value", "tool_choice"),
            (named(json!("some")), "invalid_value", "tool_choice"),
            (named(json!(1)), "invalid_value", "tool_choice"),
            (named(json!({ "type": "allowed_tools" })), "unsupported", "tool_choice.type"),
            (named(json!({ "type": "function" })), "invalid_value", "tool_choice.function"),
            (
                named(json!({ "type": "function", "function": { "name": "h" } })),
                "invalid_value",
                "tool_choice.function.name",
            ),
        ] {
            let error = read(body.clone(), None).unwrap_err();
            assert_eq!((error.code, error.param.as_deref()), (Some(code), Some(param)), "{body}");
        }
    }
}
