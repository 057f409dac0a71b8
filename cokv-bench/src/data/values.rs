//! Values of records as people write them: numbers as texts, texts as numbers, one answer or a list of them.

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// A value as a text; none of nothing, of lists and of tables.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One text or several: a value, a list of values, or of tables with a `text`, as SQuAD has answers, in either order of
/// tables and lists. Nothing is no text.
///
/// # Errors
/// What else it is.
pub fn texts(value: &Value) -> Result<Vec<String>, String> {
    let of_table = |value: &Value| value.get("text").and_then(text);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => {
            let one = |item: &Value| text(item).or_else(|| of_table(item)).ok_or_else(|| kind(item).to_owned());
            items.iter().map(one).collect::<Result<_, _>>().map_err(|kind| format!("a list with {kind} in it"))
        }
        Value::Object(table) => table.get("text").map_or_else(|| Err("a table without `text`".into()), texts),
        value => Ok(text(value).into_iter().collect()),
    }
}

/// A count, which may be written as a text or with decimals.
pub fn count(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    // What is cut off is a fraction; a negative count or NaN is none.
    number.filter(|number| *number >= 0.0 && number.is_finite()).map(|number| number as u64)
}

/// What a value is, for whoever is told that it is no other.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// For `deserialize_with`: [`texts`] of a field `answers`.
pub fn any_answers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    texts(&value).map_err(|kind| D::Error::custom(format!("`answers` is {kind}, not a text or a list of texts")))
}

/// For `deserialize_with`: as [`any_answers`], of which there must be one.
pub fn answers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let answers = any_answers(deserializer)?;
    if answers.is_empty() {
        return Err(D::Error::custom("`answers` is empty: the record could not be scored; remove it, or give it one"));
    }
    Ok(answers)
}

/// For `deserialize_with`: a text; nothing is none.
pub fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => text(&value).map(Some).ok_or_else(|| D::Error::custom(format!("{}, not a text", kind(&value)))),
    }
}

/// For `deserialize_with`: a count; nothing is none.
pub fn optional_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => count(&value).map(Some).ok_or_else(|| D::Error::custom(format!("`length` is {value}, not a count"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_come_in_many_forms() {
        for (value, wanted) in [
            (json!("Paris"), vec!["Paris"]),
            (json!(["Paris", 1889, 2.5, true]), vec!["Paris", "1889", "2.5", "true"]),
            (json!({"text": ["in France"], "answer_start": [3]}), vec!["in France"]),
            (json!([{"text": "in France", "answer_start": 3}]), vec!["in France"]),
            (json!(null), vec![]),
            (json!([]), vec![]),
        ] {
            assert_eq!(texts(&value).unwrap(), wanted, "{value}");
        }
        assert_eq!(texts(&json!([["a"], "b"])).unwrap_err(), "a list with a list in it");
        assert_eq!(texts(&json!(["a", null])).unwrap_err(), "a list with null in it");
        assert_eq!(texts(&json!({"answer": "a"})).unwrap_err(), "a table without `text`");
    }

    #[test]
    fn counts_may_be_texts_and_have_decimals() {
        for (value, wanted) in [
            (json!(7), Some(7)),
            (json!("4096"), Some(4096)),
            (json!(3.9), Some(3)),
            (json!("12.0"), Some(12)),
            (json!(-1), None),
            (json!("long"), None),
            (json!([1]), None),
        ] {
            assert_eq!(count(&value), wanted, "{value}");
        }
    }
}
