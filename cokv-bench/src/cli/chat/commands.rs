//! What can be said in a conversation beside words.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Map, Value as Json};

/// What `/help` says.
pub const HELP: &str = "\
/document FILE             begin anew with a text, or a cache that was saved
/compress METHOD [BUDGET]  keep less of what was said up to here, such as /compress keydiff 30%
/save FILE                 save the document, or what /compress has made of the conversation
/regenerate                another answer, with the next seed
/seed NUMBER               what draws the next answers
/status                    tokens, what is kept, memory, tokens a second
/clear                     forget what was said; the document stays
/quit                      end, as does Ctrl-D
A line that begins with // says the rest of it.";

/// A line of a conversation.
#[derive(Debug, PartialEq)]
pub enum Command {
    Say(String),
    Document(PathBuf),
    Compress(Map<String, Json>),
    Save(PathBuf),
    Regenerate,
    Seed(u64),
    Status,
    Clear,
    Help,
    Quit,
}

impl Command {
    /// What a line means; nothing where it is empty.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(None);
        }
        if let Some(rest) = line.strip_prefix("//") {
            return Ok(Some(Self::Say(format!("/{rest}"))));
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Some(Self::Say(line.to_owned()))) };
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        let command = match (name, rest) {
            ("document", file) if !file.is_empty() => Self::Document(file.into()),
            ("save", file) if !file.is_empty() => Self::Save(file.into()),
            ("compress", said) => Self::Compress(method(said)),
            ("regenerate", "") => Self::Regenerate,
            ("seed", seed) if seed.parse::<u64>().is_ok() => Self::Seed(seed.parse()?),
            ("status", "") => Self::Status,
            ("clear", "") => Self::Clear,
            ("help", "") => Self::Help,
            ("quit" | "exit", "") => Self::Quit,
            _ => bail!("/{command} is none of these:\n{HELP}"),
        };
        Ok(Some(command))
    }
}

/// A compressor, then a budget, each of which may be missing.
fn method(said: &str) -> Map<String, Json> {
    let (compressor, budget) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
    let pairs = [("compressor", compressor), ("budget", budget.trim())];
    pairs.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.into(), text.into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_words_or_commands() {
        let parse = |line: &str| Command::parse(line).unwrap();
        assert_eq!(parse("  "), None);
        assert_eq!(parse(" Who? "), Some(Command::Say("Who?".into())));
        assert_eq!(parse("//etc/hosts?"), Some(Command::Say("/etc/hosts?".into())));
        assert_eq!(parse("/document a b.txt"), Some(Command::Document("a b.txt".into())));
        let said = json!({ "compressor": "keydiff", "budget": "8 MiB" }).as_object().unwrap().clone();
        assert_eq!(parse("/compress keydiff 8 MiB"), Some(Command::Compress(said)));
        assert_eq!(parse("/compress"), Some(Command::Compress(Map::new())));
        assert_eq!((parse("/seed 7"), parse("/quit")), (Some(Command::Seed(7)), Some(Command::Quit)));
        for wrong in ["/seed x", "/save", "/statistics", "/clear all"] {
            let error = Command::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(wrong) && error.contains("/regenerate"), "{error}");
        }
    }
}
