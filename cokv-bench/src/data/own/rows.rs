//! Rows: tables of fields, whatever file they come from.

use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value};

use super::files::TaskFiles;
use super::tables::{self, Visit};
use crate::data::{DataError, json_lines};

/// A table of fields, and where it stands.
#[derive(Clone, Debug)]
pub struct Row {
    /// Values by their names.
    pub fields: Map<String, Value>,
    /// Where.
    pub place: Place,
}

/// Where a row stands.
#[derive(Clone, Debug)]
pub struct Place {
    file: Rc<str>,
    line: usize,
    /// The row's number among all of the task, from 1.
    pub number: usize,
}

impl Place {
    /// What is wrong there.
    pub fn error(&self, message: String) -> DataError {
        DataError::Line { path: self.file.to_string(), line: self.line, message }
    }
}

/// Lists of tables that hold a file's records, or a document's texts.
const OF_DOCUMENTS: [&str; 5] = ["data", "records", "examples", "rows", "paragraphs"];

/// Lists of tables that hold a text's questions.
const OF_QUESTIONS: [&str; 2] = ["qas", "questions"];

/// Goes through the documents of a task's files: rows that may have several questions. SQuAD's `data` and `paragraphs` are
/// lists of such.
pub fn each_document(
    files: &TaskFiles,
    mut visit: impl FnMut(Row) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let mut number = 0;
    for path in &files.paths {
        let file: Rc<str> = path.display().to_string().into();
        let mut ended = false;
        each_value(path, &mut |line, value| {
            let Value::Object(fields) = value else {
                let message = format!("the record is {}, not a table of fields", crate::data::values::kind(&value));
                return Err(DataError::Line { path: file.to_string(), line, message });
            };
            for fields in unfolded(fields, &OF_DOCUMENTS) {
                number += 1;
                if visit(Row { fields, place: Place { file: file.clone(), line, number } })?.is_break() {
                    ended = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if ended {
            break;
        }
    }
    Ok(())
}

/// A row for each question of a document, where they are tables in a list.
pub fn questions(document: Row) -> Vec<Row> {
    let Row { fields, place } = document;
    unfolded(fields, &OF_QUESTIONS).into_iter().map(|fields| Row { fields, place: place.clone() }).collect()
}

fn each_value(path: &Path, visit: &mut Visit<'_>) -> Result<(), DataError> {
    let name = path.display().to_string();
    match tables::Kind::of(path) {
        Some(tables::Kind::Json) => json_lines::each(&name, tables::open(path)?, visit),
        Some(tables::Kind::Separated(separator)) => tables::each_separated(path, separator, visit),
        Some(tables::Kind::Parquet) => tables::each_parquet(path, visit),
        None => Err(DataError::File { path: name, message: tables::UNKNOWN.into() }),
    }
}

/// A table for each table in the lists that bear one of these names, lists in those too; what stands beside a list belongs
/// to all of its tables.
fn unfolded(mut fields: Map<String, Value>, lists: &[&str]) -> Vec<Map<String, Value>> {
    let holds_tables =
        |value: &Value| value.as_array().is_some_and(|items| !items.is_empty() && items.iter().all(Value::is_object));
    let Some(name) = lists.iter().find(|name| fields.get(**name).is_some_and(holds_tables)) else {
        return vec![fields];
    };
    let Some(Value::Array(items)) = fields.remove(*name) else { return vec![fields] };
    let of_item = |item: Value| {
        let mut inner = fields.clone();
        if let Value::Object(item) = item {
            inner.extend(item);
        }
        unfolded(inner, lists)
    };
    items.into_iter().flat_map(of_item).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_beside_a_list_belongs_to_all_of_it() {
        let Value::Object(squad) = json!({"version": 2, "data": [
            {"title": "T", "paragraphs": [{"context": "c1", "qas": [{"id": 1}, {"id": 2}]}, {"context": "c2", "qas": []}]},
            {"title": "U", "paragraphs": [{"context": "c3"}]}]})
        else {
            panic!()
        };
        let documents = unfolded(squad, &OF_DOCUMENTS);
        let of = |name: &str| documents.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
        assert_eq!(
            (of("context"), of("title")),
            (vec!["c1".into(), "c2".into(), "c3".into()], vec!["T".into(), "T".into(), "U".into()])
        );
        let asked = unfolded(documents[0].clone(), &OF_QUESTIONS);
        assert_eq!(
            asked.iter().map(|row| (&row["context"], &row["id"])).collect::<Vec<_>>(),
            [(&json!("c1"), &json!(1)), (&json!("c1"), &json!(2))]
        );
        let Value::Object(flat) = json!({"questions": ["a", "b"], "data": "text"}) else { panic!() };
        assert_eq!(unfolded(flat.clone(), &["questions", "data"]), [flat]);
    }
}
