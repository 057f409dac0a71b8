//! Where a template writes what is said: it is rendered a second time, with marks in place of texts, and the two are compared.

use std::ops::Range;

use serde_json::Value as Json;

use super::conversation::Conversation;
use super::secret::Secret;

/// Where in a conversation a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is the content of this message.
    Content(usize),
    /// Anywhere else: a part of a content, a call of a tool, a tool.
    Elsewhere,
}

/// Texts that are looked for, and the conversation with marks in their places.
pub(super) struct Marks {
    secret: Secret,
    texts: Vec<(Said, String)>,
    conversation: Conversation,
}

/// A text that was found.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub said: Said,
    /// In the rendering. White space at its ends may be missing.
    pub range: Range<usize>,
    /// Bytes of the text that are missing before it.
    pub trimmed: usize,
}

impl Marks {
    /// Marks the texts that are wanted.
    pub(super) fn of(conversation: &Conversation, wanted: impl Fn(Said, &str) -> bool) -> Self {
        let mut marks = Self { secret: Secret::draw(), texts: Vec::new(), conversation: conversation.clone() };
        let Self { secret, texts, conversation } = &mut marks;
        let mut mark = |said: Said, text: &mut String| {
            if wanted(said, text) {
                // Letters around the number, so that it ends where it ends.
                let mark = format!("{}n{}n", secret.as_str(), texts.len());
                texts.push((said, std::mem::replace(text, mark)));
            }
        };
        for (index, message) in conversation.messages.iter_mut().enumerate() {
            for (key, member) in message.as_object_mut().into_iter().flatten() {
                match member {
                    Json::String(text) if key == "content" => mark(Said::Content(index), text),
                    // Templates decide by roles.
                    _ if key == "role" => {}
                    member => for_each_text(member, &mut |text| mark(Said::Elsewhere, text)),
                }
            }
        }
        for member in conversation.tools.iter_mut().chain(conversation.kwargs.values_mut()) {
            for_each_text(member, &mut |text| mark(Said::Elsewhere, text));
        }
        marks
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// What is to be rendered for [`found`](Self::found).
    pub(super) fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// Where the rendering has the texts, in its order, given what the template made of the marks; none where it made something else
    /// of them.
    pub(super) fn found(&self, marked: &str, rendered: &str) -> Option<Vec<Found>> {
        let mut found = Vec::new();
        let (literal, mut marked) = self.until_mark(marked);
        let mut rest = rendered.strip_prefix(literal)?;
        while !marked.is_empty() {
            let (number, behind) = marked[self.secret.as_str().len()..].strip_prefix('n')?.split_once('n')?;
            let (said, text) = self.texts.get(number.parse::<usize>().ok()?)?;
            let (literal, next) = self.until_mark(behind);
            let follows = |rest: &str| if next.is_empty() { rest == literal } else { rest.starts_with(literal) };
            let written =
                forms(text).into_iter().find(|(_, form)| rest.strip_prefix(form.as_str()).is_some_and(follows));
            let (trimmed, form) = written?;
            let start = rendered.len() - rest.len();
            found.push(Found { said: *said, range: start..start + form.len(), trimmed });
            rest = &rest[form.len() + literal.len()..];
            marked = next;
        }
        rest.is_empty().then_some(found)
    }

    /// The same for templates that look into what is said: every text but for white space at its ends, where each is there once.
    pub(super) fn searched(&self, rendered: &str) -> Option<Vec<Found>> {
        let mut end = 0;
        let find = |(said, text): &(Said, String)| {
            let (trimmed, form) = (text.len() - text.trim_start().len(), text.trim());
            let mut places = rendered.match_indices(form).map(|(place, _)| place);
            let start = places.next().filter(|&start| start >= end && !form.is_empty() && places.next().is_none())?;
            end = start + form.len();
            Some(Found { said: *said, range: start..end, trimmed })
        };
        self.texts.iter().map(find).collect()
    }

    fn until_mark<'a>(&self, marked: &'a str) -> (&'a str, &'a str) {
        marked.split_at(marked.find(self.secret.as_str()).unwrap_or(marked.len()))
    }
}

/// How templates write a text, with the bytes that are missing before it: as it is, trimmed, or as JSON.
fn forms(text: &str) -> [(usize, String); 5] {
    let before = text.len() - text.trim_start().len();
    let json = Json::from(text).to_string();
    [
        (0, text.into()),
        (0, text.trim_end().into()),
        (before, text.trim_start().into()),
        (before, text.trim().into()),
        (0, json[1..json.len() - 1].into()),
    ]
}

fn for_each_text(json: &mut Json, visit: &mut dyn FnMut(&mut String)) {
    match json {
        Json::String(text) => visit(text),
        Json::Array(list) => list.iter_mut().for_each(|member| for_each_text(member, visit)),
        Json::Object(table) => table.values_mut().for_each(|member| for_each_text(member, visit)),
        _ => {}
    }
}

/// Whether a predicate holds for any key of a table, which no mark can stand for.
pub(super) fn any_key(json: &Json, holds: &dyn Fn(&str) -> bool) -> bool {
    match json {
        Json::Array(list) => list.iter().any(|member| any_key(member, holds)),
        Json::Object(table) => table.iter().any(|(key, member)| holds(key) || any_key(member, holds)),
        _ => false,
    }
}
