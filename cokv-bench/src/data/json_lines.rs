//! JSON as people have it: a document a line, a list, or documents one after the other; read as Python's `json.loads` reads
//! it, which is what wrote most of it.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::DataError;

/// All documents of a file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, DataError> {
    let file = File::open(path).map_err(DataError::io(path))?;
    collect(&path.display().to_string(), BufReader::new(file), usize::MAX)
}

/// The first `limit` documents of a text. `path` is what errors call it.
pub fn parse<T: DeserializeOwned>(path: &str, text: &str, limit: usize) -> Result<Vec<T>, DataError> {
    collect(path, text.as_bytes(), limit)
}

fn collect<T: DeserializeOwned>(path: &str, reader: impl BufRead, limit: usize) -> Result<Vec<T>, DataError> {
    let mut documents = Vec::new();
    if limit > 0 {
        each(path, reader, |line, document| {
            documents.push(typed(path, line, document)?);
            Ok(if documents.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
    }
    Ok(documents)
}

/// A document as the type that it should be.
fn typed<T: DeserializeOwned>(path: &str, line: usize, document: Value) -> Result<T, DataError> {
    serde_json::from_value(document).map_err(|error| at(path, line, error.to_string()))
}

/// Goes through the documents of a file, one in memory at a time, each with the line that it begins on. A file that begins
/// with `[` is a list of them; else every line is one, or, where the first line ends within a document, they follow one
/// another across lines. Blank lines and a byte order mark do not count.
pub fn each(
    path: &str,
    mut reader: impl BufRead,
    mut visit: impl FnMut(usize, Value) -> Result<ControlFlow<()>, DataError>,
) -> Result<(), DataError> {
    let mut pieces = Pieces::default();
    let mut bytes = Vec::new();
    let mut line = 0;
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes);
        if read.map_err(|error| DataError::Io { path: path.into(), error, hint: "" })? == 0 {
            return pieces.end(path);
        }
        line += 1;
        let text = utf8(path, line, &bytes)?;
        if line == 1 && !text.trim_start().starts_with('[') && ends_within_document(text) {
            pieces.across_lines = true;
        }
        for (first_line, document) in pieces.push(path, line, text)? {
            if visit(first_line, document)?.is_break() {
                return Ok(());
            }
        }
    }
}

/// Documents as they come to their ends.
#[derive(Default)]
struct Pieces {
    /// Within a list, whose elements are the documents.
    in_list: bool,
    /// Whether documents may go on behind a line's end.
    across_lines: bool,
    begun: bool,
    /// The beginning of a document that has not ended, and the line that it stands on.
    open: String,
    open_line: usize,
    scan: Scan,
}

impl Pieces {
    /// Takes in a line and gives the documents that end on it.
    fn push(&mut self, path: &str, line: usize, text: &str) -> Result<Vec<(usize, Value)>, DataError> {
        let mut text = text;
        if !self.begun && !text.trim().is_empty() {
            self.begun = true;
            if let Some(rest) = text.trim_start().strip_prefix('[') {
                (self.in_list, self.across_lines, text) = (true, true, rest);
            }
        }
        if !self.across_lines {
            let text = text.trim();
            return match text.is_empty() {
                true => Ok(Vec::new()),
                false => Ok(vec![(line, document(path, line, text)?)]),
            };
        }
        let mut ended = Vec::new();
        for character in text.chars() {
            if self.open.is_empty() {
                let between = character.is_whitespace() || (self.in_list && matches!(character, ',' | ']'));
                if between {
                    continue;
                }
                self.open_line = line;
            }
            self.open.push(character);
            if self.scan.take(character) {
                ended.push((self.open_line, document(path, self.open_line, &self.open)?));
                self.open.clear();
            } else if self.scan.depth == 0 {
                let message = format!("`{character}` stands where a record should begin with `{{`");
                return Err(at(path, line, message));
            }
        }
        Ok(ended)
    }

    /// The file is at its end.
    fn end(&self, path: &str) -> Result<(), DataError> {
        match self.open.is_empty() {
            true => Ok(()),
            false => {
                Err(at(path, self.open_line, "the record that begins here has no end: the file is cut off".into()))
            }
        }
    }
}

/// How deep in brackets a text is, those in strings left out.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Whether a document ends with this character.
    fn take(&mut self, character: char) -> bool {
        if self.in_string {
            match character {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match character {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Whether a line leaves a bracket open, as the first line of a document that was written across lines does.
fn ends_within_document(line: &str) -> bool {
    let mut scan = Scan::default();
    line.chars().for_each(|character| {
        scan.take(character);
    });
    // A cut-off string is a damaged line, and not a document that goes on: JSON has no line breaks in strings.
    scan.depth > 0 && !scan.in_string
}

fn document(path: &str, line: usize, text: &str) -> Result<Value, DataError> {
    serde_json::from_str(&without_lone_surrogates(text)).map_err(|error| {
        // Every line is a document of its own to the parser.
        let message = error.to_string().replace(" at line 1 column ", " at column ");
        at(path, line, message)
    })
}

fn utf8<'a>(path: &str, line: usize, bytes: &'a [u8]) -> Result<&'a str, DataError> {
    let (le, be) = (bytes.starts_with(&[0xff, 0xfe]), bytes.starts_with(&[0xfe, 0xff]));
    if line == 1 && (le || be) {
        return Err(at(path, 1, "the file is UTF-16; save it as UTF-8".into()));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let place = error.valid_up_to() + 1;
        at(path, line, format!("byte {place} of this line is not UTF-8; save the file as UTF-8"))
    })?;
    Ok(if line == 1 { text.trim_start_matches('\u{feff}') } else { text })
}

fn at(path: &str, line: usize, message: String) -> DataError {
    DataError::Line { path: path.to_owned(), line, message }
}

/// Escapes of halves of a character (`\ud83d` without `\ude00` behind it) are replaced by U+FFFD: Python reads and writes
/// them, where a text was cut within an emoji, and no text has them.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended.push_str(before);
        let length = match (unit(escape), unit(escape.get(6..).unwrap_or(""))) {
            (Some(0xd800..0xdc00), Some(0xdc00..0xe000)) => 12,
            (Some(0xd800..0xe000), _) => {
                mended.push_str("\\ufffd");
                rest = &escape[6..];
                continue;
            }
            // What is escaped is one character; a backslash must not begin another escape.
            _ => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    mended.push_str(rest);
    Cow::Owned(mended)
}

/// The number of an escape such as `\u00e9` that a text begins with.
fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(text: &str) -> Result<Vec<Value>, String> {
        parse("a.jsonl", text, usize::MAX).map_err(|error| error.to_string())
    }

    fn lines(text: &str) -> Vec<usize> {
        let mut lines = Vec::new();
        each("a", text.as_bytes(), |line, _| {
            lines.push(line);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        lines
    }

    /// Regressions: what Python reads was refused.
    #[test]
    fn lines_are_read_as_python_reads_them() {
        assert_eq!(all("\u{feff}{\"a\":1}\r\n\r\n{\"a\":2}\r\n").unwrap(), [json!({"a": 1}), json!({"a": 2})]);
        // U+2028 is a line break to some, and not to JSON.
        assert_eq!(all("{\"a\":\"x\u{2028}y\u{85}\"}\n{}").unwrap(), [json!({"a": "x\u{2028}y\u{85}"}), json!({})]);
        assert_eq!(all("{\"a\":1,\"a\":2}").unwrap(), [json!({"a": 2})], "the last of two keys counts");
        assert!(all("").unwrap().is_empty());
        let first: Vec<Value> = parse("a", "{}\nnonsense", 1).unwrap();
        assert_eq!(first.len(), 1, "what nobody asks for is not read");
    }

    #[test]
    fn halves_of_characters_are_replaced() {
        for (text, wanted) in [
            (r#""cut \ud83d""#, "cut \u{fffd}"),
            (r#""\uD83D\uDE00 whole""#, "😀 whole"),
            (r#""\ude00\ud83d\ud83d\ude00""#, "\u{fffd}\u{fffd}😀"),
            (r#""\\ud83d is no escape""#, "\\ud83d is no escape"),
            (r#""\\\ud83d\n""#, "\\\u{fffd}\n"),
            (r#""\ud83dé\u00e9""#, "\u{fffd}éé"),
        ] {
            assert_eq!(all(text).unwrap(), [json!(wanted)], "{text}");
        }
        assert!(all(r#""\ud83"#).unwrap_err().starts_with("a.jsonl:1: "));
    }

    /// Regression: a file that is one list was refused with "invalid type: map".
    #[test]
    fn lists_and_documents_across_lines_are_read() {
        let two = [json!({"a": "]}[{"}), json!({"b": [1, {"c": "\\\""}]})];
        let pretty = serde_json::to_string_pretty(&two).unwrap();
        assert_eq!(all(&pretty).unwrap(), two);
        assert_eq!(all(&serde_json::to_string(&two).unwrap()).unwrap(), two);
        assert_eq!(all(&format!("\n  {pretty}\n\n")).unwrap(), two);
        let one_by_one: Vec<String> = two.iter().map(|value| serde_json::to_string_pretty(value).unwrap()).collect();
        assert_eq!(all(&one_by_one.join("\n")).unwrap(), two);
        assert_eq!(lines("[\n{},\n{\n}\n,{}]"), [2, 3, 5]);
        assert_eq!(lines("{}\n\n{}\n"), [1, 3]);
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let error = |text: &str| all(text).unwrap_err();
        assert_eq!(error("{}\n{\"a\": tru}\n"), "a.jsonl:2: expected ident at column 10");
        assert!(error("{}\n{\"a\": \"cut").starts_with("a.jsonl:2: EOF while parsing a string"));
        assert_eq!(
            error("[{}, {\"a\":\n 1,"),
            "a.jsonl:1: the record that begins here has no end: the file is cut off"
        );
        assert!(error("[1, {}]").contains("`1` stands where a record should begin"));
        let bytes = |bytes: &[u8]| each("a", bytes, |_, _| Ok(ControlFlow::Continue(()))).unwrap_err().to_string();
        assert_eq!(bytes(b"{}\n{\"a\": \"\xe9\"}"), "a:2: byte 8 of this line is not UTF-8; save the file as UTF-8");
        assert_eq!(bytes(b"\xff\xfe{\0"), "a:1: the file is UTF-16; save it as UTF-8");
    }
}
