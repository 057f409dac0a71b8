//! The form of an answer as a grammar in llguidance's Lark: <https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md>.

use cokv_models::chat::ToolSyntax;
use serde_json::{Value as Json, json};

use crate::api::form::{Form, Function, Schema};

/// White space between two signs of JSON: a space, or a line's end with what the next line begins with. Where there may be any, a model
/// may go on with it for ever.
const WHITE_SPACE: &str = r" |\r?\n[ \t]{0,32}";

/// How calls are written.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// In whose manner.
    pub syntax: ToolSyntax,
    /// The control token that stands before them, where they have one.
    pub marker: Option<u32>,
}

/// The grammar of a form. What is free has none.
pub fn grammar(form: &Form, calls: Calls) -> Option<String> {
    Some(match form {
        Form::Free => return None,
        Form::Json(schema) => format!("start: {}\n", json_of(schema)),
        Form::Calls { functions, several } => format!("start: calls\n{}", calls.rules(functions, *several)),
        Form::JsonOrCalls(schema, functions) => {
            format!("start: {} | calls\n{}", json_of(schema), calls.rules(functions, true))
        }
        Form::Talk(functions) => format!("{}{}", calls.among_words(), calls.rules(functions, true)),
    })
}

/// A schema as llguidance is to read it.
pub fn schema(schema: &Schema) -> Json {
    let mut json = schema.json.clone();
    // Whoever sends a schema has no say in how it is read.
    json["x-guidance"] = json!({ "whitespace_pattern": WHITE_SPACE });
    json
}

fn json_of(of: &Schema) -> String {
    format!("%json {}", schema(of))
}

impl Calls {
    /// The rules `calls` and `call`.
    fn rules(self, functions: &[Function], several: bool) -> String {
        let key = if self.syntax == ToolSyntax::Llama3 { "parameters" } else { "arguments" };
        let call = |function: &Function| {
            let before = format!("{{\"name\": {}, \"{key}\": ", Json::from(function.name.as_str()));
            format!("{} {} \"}}\"", text(&before), json_of(&function.arguments))
        };
        let call = functions.iter().map(call).collect::<Vec<_>>().join("\n    | ");
        let row = |begins: &str, between: &str, ends: &str| {
            let more = if several { format!(" ({} call)*", text(between)) } else { String::new() };
            [begins, " call", &more, ends].concat()
        };
        let calls = match self.syntax {
            ToolSyntax::Hermes => {
                row(&text(HERMES[0]), &[HERMES[1], "\n", HERMES[0]].concat(), &format!(" {}", text(HERMES[1])))
            }
            ToolSyntax::Llama3 => row("", "; ", ""),
            ToolSyntax::Mistral => format!("{} list", self.mark()),
        };
        let list = row("/ ?\\[/", ", ", " \"]\"");
        format!("calls: {calls}\nlist: {list}\ncall: {call}\n")
    }

    /// The rule `start` of words among which there may be calls.
    fn among_words(self) -> String {
        let (begins, call) = match self.syntax {
            ToolSyntax::Llama3 => return "start: calls | words\nwords: /([^{\\s](.|\\n)*)?/\n".into(),
            ToolSyntax::Mistral if self.marker.is_some() => {
                return "start: words | words calls\nwords: /(.|\\n)*/\n".into();
            }
            ToolSyntax::Hermes => ("<tool_call>", format!("\"\\n\" call {}", text(HERMES[1]))),
            ToolSyntax::Mistral => (r"\[TOOL_CALLS\]", "list".into()),
        };
        // The shortest words that end with what begins a call.
        format!("start: (first {call})* words\nfirst[lazy]: /(.|\\n)*{begins}/\nwords: /(.|\\n)*/\n")
    }

    fn mark(self) -> String {
        match self.marker {
            Some(token) => format!("<[{token}]>"),
            None => text("[TOOL_CALLS]"),
        }
    }
}

const HERMES: [&str; 2] = ["<tool_call>\n", "\n</tool_call>"];

/// A text as Lark writes it, which is how JSON does.
fn text(text: &str) -> String {
    Json::from(text).to_string()
}
