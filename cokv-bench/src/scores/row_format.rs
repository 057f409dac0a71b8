//! JSON with one row a line.

use std::io::{Result, Write};

use serde_json::ser::{Formatter, PrettyFormatter};

/// Indents like [`PrettyFormatter`], but writes every array and object that is an element of an array on one line: a
/// table has one line per row, and a changed row is one changed line.
#[derive(Default)]
pub struct RowFormatter {
    pretty: PrettyFormatter<'static>,
    /// Open containers, outermost first: whether each is an array.
    open: Vec<bool>,
    /// How many of the open containers are on one line.
    inline: usize,
}

impl RowFormatter {
    fn opens_inline(&mut self, array: bool) -> bool {
        let inline = self.inline > 0 || self.open.last() == Some(&true);
        self.inline += usize::from(inline);
        self.open.push(array);
        inline
    }

    fn closes_inline(&mut self) -> bool {
        self.open.pop();
        let inline = self.inline > 0;
        self.inline -= usize::from(inline);
        inline
    }
}

fn separate<W: Write + ?Sized>(writer: &mut W, first: bool) -> Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}

impl Formatter for RowFormatter {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.opens_inline(true) { writer.write_all(b"[") } else { self.pretty.begin_array(writer) }
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.closes_inline() { writer.write_all(b"]") } else { self.pretty.end_array(writer) }
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if self.inline > 0 { separate(writer, first) } else { self.pretty.begin_array_value(writer, first) }
    }

    fn end_array_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.inline > 0 { Ok(()) } else { self.pretty.end_array_value(writer) }
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.opens_inline(false) { writer.write_all(b"{") } else { self.pretty.begin_object(writer) }
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.closes_inline() { writer.write_all(b"}") } else { self.pretty.end_object(writer) }
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        if self.inline > 0 { separate(writer, first) } else { self.pretty.begin_object_key(writer, first) }
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        if self.inline > 0 { Ok(()) } else { self.pretty.end_object_value(writer) }
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Serializer, json};

    use super::*;

    #[test]
    fn rows_and_records_are_lines() {
        let value = json!({"a": [[1, 2], [3]], "b": {"c": []}, "d": [{"e": [1, 2], "f": {"g": 1}}], "h": ["x"]});
        let mut text = Vec::new();
        value.serialize(&mut Serializer::with_formatter(&mut text, RowFormatter::default())).unwrap();
        let expected = r#"{
  "a": [
    [1, 2],
    [3]
  ],
  "b": {
    "c": []
  },
  "d": [
    {"e": [1, 2], "f": {"g": 1}}
  ],
  "h": [
    "x"
  ]
}"#;
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
