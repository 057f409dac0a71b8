//! JSON as Python writes it: `json.dumps`.

use std::io::{Result, Write};

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

/// How `json.dumps` is told to write.
#[derive(Clone, Debug, Default)]
pub(super) struct Style {
    /// What a level is indented with; all is on one line where there is none.
    pub indent: Option<String>,
    /// Between values, and between keys and theirs; Python's own where there are none.
    pub separators: Option<[String; 2]>,
    /// Whether other letters than ASCII's are escaped.
    pub ascii: bool,
}

/// The JSON of a value, its tables in their own order.
pub(super) fn dumps(value: &impl Serialize, style: Style) -> std::result::Result<String, String> {
    let between = if style.indent.is_some() { "," } else { ", " };
    let [between, behind_key] = style.separators.unwrap_or_else(|| [between, ": "].map(str::to_owned));
    let python = Python { indent: style.indent, between, behind_key, ascii: style.ascii, level: 0, is_empty: true };
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, python)).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

struct Python {
    indent: Option<String>,
    between: String,
    behind_key: String,
    ascii: bool,
    level: usize,
    /// Whether the list or table that was begun last has nothing in it.
    is_empty: bool,
}

impl Python {
    fn begin<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.level += 1;
        self.is_empty = true;
        writer.write_all(bracket)
    }

    fn end<W: Write + ?Sized>(&mut self, writer: &mut W, bracket: &[u8]) -> Result<()> {
        self.level -= 1;
        if !std::mem::take(&mut self.is_empty) {
            self.break_line(writer)?;
        }
        writer.write_all(bracket)
    }

    fn member<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.is_empty = false;
        if !first {
            writer.write_all(self.between.as_bytes())?;
        }
        self.break_line(writer)
    }

    fn break_line<W: Write + ?Sized>(&self, writer: &mut W) -> Result<()> {
        match &self.indent {
            Some(indent) => write!(writer, "\n{}", indent.repeat(self.level)),
            None => Ok(()),
        }
    }
}

impl Formatter for Python {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"[")
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"]")
    }

    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.member(writer, first)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.begin(writer, b"{")
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        self.end(writer, b"}")
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        self.member(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> Result<()> {
        writer.write_all(self.behind_key.as_bytes())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> Result<()> {
        writer.write_all(repr(value).as_bytes())
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> Result<()> {
        if !self.ascii {
            return writer.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                // Python leaves DEL as it is.
                Ok(byte) if byte.is_ascii() => writer.write_all(&[byte])?,
                _ => write!(writer, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: Write + ?Sized>(&mut self, writer: &mut W, escape: CharEscape) -> Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// `repr` of a float: the shortest digits that are read as it, with an exponent of two digits or more from 1e16 and below 1e-4.
fn repr(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(-4..=15) => format!("{value:?}"),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What Python 3.11 writes.
    #[test]
    fn all_is_as_python_writes_it() {
        let value = json!({ "b": [1, 2.5, null, true], "a": { "é\u{7f}\u{1}\n\"/": "😀<&'" }, "empty": [[], {}] });
        let plain = dumps(&value, Style::default()).unwrap();
        assert_eq!(
            plain,
            r#"{"b": [1, 2.5, null, true], "a": {"é\u0001\n\"/": "😀<&'"}, "empty": [[], {}]}"#
                .replace("\\u0001", "\u{7f}\\u0001")
        );
        let ascii = dumps(&json!("é\u{7f}😀"), Style { ascii: true, ..Style::default() }).unwrap();
        assert_eq!(ascii, "\"\\u00e9\u{7f}\\ud83d\\ude00\"");
        let indented =
            dumps(&json!([1, { "a": [], "b": {} }]), Style { indent: Some("  ".into()), ..Style::default() });
        assert_eq!(indented.unwrap(), "[\n  1,\n  {\n    \"a\": [],\n    \"b\": {}\n  }\n]");
        let dense = Style { separators: Some([",".into(), ":".into()]), ..Style::default() };
        assert_eq!(dumps(&json!({ "a": [1, 2] }), dense).unwrap(), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1e-4, "0.0001"),
            (1.25e-5, "1.25e-05"),
            (-1e-10, "-1e-10"),
            (0.1, "0.1"),
        ] {
            assert_eq!(repr(value), text);
        }
    }
}
