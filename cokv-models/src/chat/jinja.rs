//! Jinja as transformers sets it up (`_compile_jinja_template`), by minijinja.

use std::fmt::Write;

use chrono::Local;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use super::json::{Style, dumps};
use crate::error::ModelError;

/// What a template writes of a context.
pub(super) fn render(source: &str, context: Map<String, Json>) -> Result<String, ModelError> {
    let render = || environment()?.render_str(&as_minijinja_reads_it(source), Value::from(Serde(context)));
    render().map_err(failed)
}

/// Names that a template looks up and does not set, in order.
pub(super) fn variables(source: &str) -> Result<Vec<String>, ModelError> {
    let environment = environment().map_err(failed)?;
    let source = as_minijinja_reads_it(source);
    let template = environment.template_from_str(&source).map_err(failed)?;
    let mut names = Vec::from_iter(template.undeclared_variables(false));
    names.sort_unstable();
    Ok(names)
}

fn failed(error: Error) -> ModelError {
    ModelError::ChatTemplate(error.to_string())
}

fn environment() -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", tojson);
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The local time, in a format of Python's `strftime`.
fn strftime_now(format: &str) -> Result<String, Error> {
    let mut text = String::new();
    let wrong = |_| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: `{format}` is no format of a date"));
    write!(text, "{}", Local::now().format(format)).map_err(wrong)?;
    Ok(text)
}

/// `json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)`: jinja's own filter escapes
/// HTML.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent = match options.get::<Option<Value>>("indent")?.filter(|indent| !indent.is_none()) {
        Some(indent) if indent.is_integer() => Some(" ".repeat(usize::try_from(indent)?)),
        indent => indent.map(|indent| indent.to_string()),
    };
    let separators = match options.get::<Option<Vec<String>>>("separators")? {
        Some(pair) => Some(<[String; 2]>::try_from(pair).map_err(|_| wrong("tojson: separators are two texts"))?),
        None => None,
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let style = Style { indent, separators, ascii };
    let text = match sort_keys {
        true => {
            let mut json = serde_json::to_value(&value).map_err(|error| wrong(&error.to_string()))?;
            json.sort_all_objects();
            dumps(&json, style)
        }
        false => dumps(&value, style),
    };
    text.map_err(|error| wrong(&error))
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.to_owned())
}

/// Jinja reads all line ends as one, and transformers adds the block `generation`, which marks an assistant's words for
/// training. Nothing is trained here: to minijinja it is a scope of its own, as it is to jinja.
fn as_minijinja_reads_it(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut parts = source.split("{%");
    let mut read = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (tag, rest) = part.split_at(part.find("%}").unwrap_or(part.len()));
        let name = tag.trim_matches(|letter: char| letter == '-' || letter == '+' || letter.is_whitespace());
        let tag = match name {
            "generation" => tag.replace(name, "with"),
            "endgeneration" => tag.replace(name, "endwith"),
            _ => tag.to_owned(),
        };
        read += "{%";
        read += &tag;
        read += rest;
    }
    read
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str) -> String {
        let context = json!({ "list": [1, 2, 3], "text": "a < 'b' & c", "table": { "a": [1, "é"], "b": {} } });
        render(source, context.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn blocks_of_generation_are_only_scopes() {
        assert_eq!(rendered("a\n{% generation %}\n b\n{% endgeneration %}\nc"), "a\n b\nc");
        assert_eq!(rendered("a \n{%- generation -%}\n b \n{%- endgeneration +%}\nc"), "ab\nc");
        assert_eq!(rendered("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}"), "21");
        assert_eq!(rendered("{{ 'generation' }} {% raw %}{% if %}{% endraw %}"), "generation {% if %}");
    }

    #[test]
    fn loops_can_be_left_and_gone_on_with() {
        let source = "{% for i in list %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}{% endfor %}";
        assert_eq!(rendered(source), "13");
        assert_eq!(rendered(&source.replace("continue", "break")), "1");
    }

    #[test]
    fn all_line_ends_are_one() {
        assert_eq!(rendered("a\r\n{% if true %}\r\nb\rc\r\n{% endif %}\r\n"), "a\nb\nc\n");
        assert_eq!(rendered("{{ 'a\r\nb' }}"), "a\nb");
    }

    #[test]
    fn the_date_is_written_as_asked() {
        let year = rendered("{{ strftime_now('%Y') }}");
        assert!(year.parse::<u32>().is_ok_and(|year| year >= 2025), "{year}");
        assert_eq!(rendered("{{ strftime_now is defined }} {{ strftime_now('x%%') }}"), "True x%");
        let error = render("{{ strftime_now('%!') }}", Map::new()).unwrap_err().to_string();
        assert!(error.contains("`%!` is no format of a date"), "{error}");
    }

    /// What `json.dumps` writes.
    #[test]
    fn json_is_written_as_python_writes_it() {
        assert_eq!(rendered("{{ text | tojson }}"), r#""a < 'b' & c""#);
        assert_eq!(rendered("{{ table | tojson }}"), r#"{"a": [1, "é"], "b": {}}"#);
        assert_eq!(rendered("{{ list | tojson(indent=2) }}"), "[\n  1,\n  2,\n  3\n]");
        let sorted = r#"{{ {'b': 1, 'a': {'d': 2, 'c': 3}} | tojson(sort_keys=true, separators=(',', ':')) }}"#;
        assert_eq!(rendered(sorted), r#"{"a":{"c":3,"d":2},"b":1}"#);
        assert_eq!(
            rendered("{{ table | tojson(ensure_ascii=true, indent=none) }}"),
            r#"{"a": [1, "\u00e9"], "b": {}}"#
        );
        for wrong in ["sort=true", "separators=[',']", "indent=-1"] {
            assert!(render(&format!("{{{{ 1 | tojson({wrong}) }}}}"), Map::new()).is_err(), "{wrong}");
        }
    }
}
