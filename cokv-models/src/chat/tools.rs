//! Calls of tools in what a model says.

use serde_json::{Map, Value as Json};

/// How a model writes calls of tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolSyntax {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`, among text: Hermes, Qwen.
    Hermes,
    /// `{"name": …, "parameters": …}` and nothing else: Llama 3. Several are parted by `;` or white space.
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}, …]`, behind text: Mistral. The marker is a control token, which an answer's text may
    /// have lost.
    Mistral,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Which.
    pub name: String,
    /// What with: the text of a JSON table.
    pub arguments: String,
}

const HERMES: [&str; 2] = ["<tool_call>", "</tool_call>"];
const MISTRAL: &str = "[TOOL_CALLS]";
/// Llama 3 may put this before calls.
const PYTHON_TAG: &str = "<|python_tag|>";

impl ToolSyntax {
    /// The syntax in which a template writes calls that were made.
    pub(super) fn of_template(source: &str) -> Option<Self> {
        if source.contains(HERMES[0]) {
            Some(Self::Hermes)
        } else if source.contains(MISTRAL) {
            Some(Self::Mistral)
        } else if source.contains("<|start_header_id|>")
            && source.contains("tool_calls")
            && source.contains(r#""parameters""#)
        {
            Some(Self::Llama3)
        } else {
            None
        }
    }

    /// What an answer says beside its calls, trimmed where there are any, and the calls. Whatever is no call remains text.
    pub fn parse(self, answer: &str) -> (String, Vec<ToolCall>) {
        let (text, calls) = match self {
            Self::Hermes => hermes(answer),
            Self::Llama3 => {
                let calls = answer.trim().trim_start_matches(PYTHON_TAG);
                (String::new(), calls_in_row(calls).unwrap_or_default())
            }
            Self::Mistral => {
                let (text, calls) = answer.split_once(MISTRAL).unwrap_or(("", answer));
                (text.to_owned(), list_of_calls(calls).unwrap_or_default())
            }
        };
        if calls.is_empty() { (answer.to_owned(), calls) } else { (text.trim().to_owned(), calls) }
    }
}

fn hermes(answer: &str) -> (String, Vec<ToolCall>) {
    let (mut text, mut calls) = (String::new(), Vec::new());
    let mut parts = answer.split(HERMES[0]);
    text += parts.next().unwrap_or_default();
    for part in parts {
        // The last may have ended an answer without being closed.
        let (inside, behind) = part.split_once(HERMES[1]).unwrap_or((part, ""));
        match serde_json::from_str(inside).ok().and_then(call) {
            Some(call) => {
                calls.push(call);
                text += behind;
            }
            None => {
                text += HERMES[0];
                text += part;
            }
        }
    }
    (text, calls)
}

fn calls_in_row(text: &str) -> Option<Vec<ToolCall>> {
    let (mut calls, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Json>();
        calls.push(call(values.next()?.ok()?)?);
        let is_between = |letter: char| letter == ';' || letter.is_whitespace();
        rest = rest[values.byte_offset()..].trim_start_matches(is_between);
    }
    Some(calls)
}

fn list_of_calls(text: &str) -> Option<Vec<ToolCall>> {
    serde_json::from_str::<Vec<Json>>(text.trim()).ok()?.into_iter().map(call).collect()
}

fn call(json: Json) -> Option<ToolCall> {
    let Json::Object(mut table) = json else { return None };
    let Some(Json::String(name)) = table.remove("name") else { return None };
    let arguments = match table.remove("arguments").or(table.remove("parameters")) {
        None | Some(Json::Null) => Map::new(),
        Some(Json::Object(arguments)) => arguments,
        Some(Json::String(text)) => serde_json::from_str(&text).ok()?,
        Some(_) => return None,
    };
    Some(ToolCall { name, arguments: Json::Object(arguments).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn called(name: &str, arguments: &str) -> ToolCall {
        ToolCall { name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn hermes_calls_stand_among_text() {
        let parse = |answer| ToolSyntax::Hermes.parse(answer);
        let answer = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Zürich\", \"a\": 1.5}}\n</tool_call>\n\
                      <tool_call>{\"name\": \"now\"}</tool_call>";
        let calls = vec![called("weather", r#"{"city":"Zürich","a":1.5}"#), called("now", "{}")];
        assert_eq!(parse(answer), ("Let me see.".into(), calls));
        assert_eq!(parse("<tool_call>{\"name\": \"f\", \"arguments\": {}}"), (String::new(), vec![called("f", "{}")]));
        for text in
            [" no call ", "<tool_call>{\"name\": \"f\", \"argum", "<tool_call>{\"arguments\": {}}</tool_call> x", ""]
        {
            assert_eq!(parse(text), (text.into(), vec![]));
        }
        let half = "<tool_call>nothing</tool_call> <tool_call>{\"name\": \"f\"}</tool_call>";
        assert_eq!(parse(half), ("<tool_call>nothing</tool_call>".into(), vec![called("f", "{}")]));
    }

    #[test]
    fn llama_calls_stand_alone() {
        let parse = |answer| ToolSyntax::Llama3.parse(answer);
        let weather = called("weather", r#"{"city":"Bern"}"#);
        assert_eq!(
            parse(r#" {"name": "weather", "parameters": {"city": "Bern"}}"#),
            (String::new(), vec![weather.clone()])
        );
        let two =
            r#"<|python_tag|>{"name": "weather", "parameters": {"city": "Bern"}}; {"name": "now", "parameters": {}}"#;
        assert_eq!(parse(two).1, [weather, called("now", "{}")]);
        for text in [r#"I call {"name": "f"}"#, r#"{"name": "f"} now"#, r#"{"parameters": {}}"#, "{\"name\"", "", "[1]"]
        {
            assert_eq!(parse(text), (text.into(), vec![]), "{text}");
        }
    }

    #[test]
    fn mistral_calls_are_a_list_behind_text() {
        let parse = |answer| ToolSyntax::Mistral.parse(answer);
        let list =
            r#"[{"name": "f", "arguments": {"x": [1]}, "id": "abcdefghi"}, {"name": "g", "arguments": "{\"y\": 2}"}]"#;
        let calls = vec![called("f", r#"{"x":[1]}"#), called("g", r#"{"y":2}"#)];
        let behind_text = format!("Well.[TOOL_CALLS] {list}");
        assert_eq!(parse(&behind_text), ("Well.".into(), calls.clone()));
        assert_eq!(parse(list), (String::new(), calls));
        for text in ["[TOOL_CALLS]", "[TOOL_CALLS][{]", "[1, 2]", "[]", "text"] {
            assert_eq!(parse(text), (text.into(), vec![]), "{text}");
        }
    }
}
