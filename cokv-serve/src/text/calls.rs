//! Calls of tools in an answer that is still growing.

use std::sync::Arc;

use super::stop::begun;
use crate::api::answer::{Call, Line, Piece};

/// Finds calls of tools in an answer: what is said beside them, and the calls, whose ids are drawn.
pub type ParseCalls = Arc<dyn Fn(&str) -> (String, Vec<Call>) + Send + Sync>;

/// How calls begin in the families that are known; an answer that is JSON from its first letter may be one, too.
const MARKS: [&str; 3] = ["<tool_call>", "[TOOL_CALLS]", "<|python_tag|>"];

/// Tells text as it comes until a call may begin, and holds back all from there on.
pub struct CallFinder {
    parse: ParseCalls,
    /// All of the answer.
    seen: String,
    /// Bytes of it that were told.
    told: usize,
    /// Tokens whose text was not.
    lines: Vec<Line>,
}

impl CallFinder {
    /// One that reads calls so.
    pub fn new(parse: ParseCalls) -> Self {
        Self { parse, seen: String::new(), told: 0, lines: Vec::new() }
    }

    /// Hears some text and says what may be told.
    pub fn push(&mut self, piece: Piece) -> Piece {
        self.seen.push_str(&piece.text);
        self.lines.extend(piece.lines);
        let free = free(&self.seen);
        if free <= self.told {
            return Piece::default();
        }
        let text = self.seen[self.told..free].to_owned();
        self.told = free;
        Piece { text, lines: std::mem::take(&mut self.lines) }
    }

    /// What was held back and is no call, and the calls.
    pub fn finish(self) -> (Piece, Vec<Call>) {
        let (beside, calls) = (self.parse)(&self.seen);
        let text = match calls.is_empty() {
            true => &self.seen[self.told..],
            false => beside.get(self.told..).unwrap_or_default(),
        };
        (Piece { text: text.to_owned(), lines: self.lines }, calls)
    }
}

/// Whether what is left of an answer that was cut is the beginning of another call.
pub fn is_begun(rest: &str) -> bool {
    MARKS.iter().any(|mark| rest.contains(mark))
}

/// Bytes of a text that are no part of a call, whatever comes next.
fn free(text: &str) -> usize {
    let first = text.trim_start();
    if first.is_empty() || first.starts_with(['{', '[']) {
        return 0;
    }
    let found = MARKS.iter().filter_map(|mark| text.find(mark)).min();
    found.unwrap_or_else(|| text.len() - begun(text, &MARKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever stands behind a mark is a call.
    fn parse(text: &str) -> (String, Vec<Call>) {
        let call = |arguments: &str| Call { id: "1".into(), name: "f".into(), arguments: arguments.into() };
        match text.split_once("<tool_call>") {
            Some((beside, arguments)) => (beside.into(), vec![call(arguments)]),
            None if text.starts_with('{') && text.ends_with('}') => (String::new(), vec![call(text)]),
            None => (text.into(), Vec::new()),
        }
    }

    fn told(pieces: &[&str]) -> (Vec<String>, String, usize) {
        let mut finder = CallFinder::new(Arc::new(parse));
        let mut push = |text: &&str| finder.push(Piece { text: (*text).into(), lines: Vec::new() }).text;
        let told = pieces.iter().map(&mut push).collect();
        let (rest, calls) = finder.finish();
        (told, rest.text, calls.len())
    }

    #[test]
    fn text_is_told_until_a_call_may_begin() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&["ab <to", "ol_call>x", "y"]), (strings(&["ab ", "", ""]), String::new(), 1));
        assert_eq!(told(&["ab <to", "p>"]), (strings(&["ab ", "<top>"]), String::new(), 0));
        assert_eq!(told(&["ab <to"]), (strings(&["ab "]), "<to".into(), 0));
        assert_eq!(told(&[" ", "{", "}"]), (strings(&["", "", ""]), " {}".into(), 0));
        assert_eq!(told(&["{", "}"]), (strings(&["", ""]), String::new(), 1));
        assert_eq!(told(&["{", "} no"]), (strings(&["", ""]), "{} no".into(), 0));
    }
}
