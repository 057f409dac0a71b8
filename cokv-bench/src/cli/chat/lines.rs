//! Where lines come from: a terminal, in which they can be edited, or a pipe.

use std::io::{IsTerminal, Lines as IoLines, StdinLock, stdin};

use anyhow::Result;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

/// Lines of a terminal or a pipe.
pub enum Lines {
    Terminal(Box<DefaultEditor>),
    Piped(IoLines<StdinLock<'static>>),
}

impl Lines {
    pub fn open() -> Result<Self> {
        Ok(match stdin().is_terminal() {
            true => Self::Terminal(Box::new(DefaultEditor::new()?)),
            false => Self::Piped(stdin().lines()),
        })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next one; none at the end.
    pub fn next(&mut self) -> Result<Option<String>> {
        let editor = match self {
            Self::Piped(lines) => return Ok(lines.next().transpose()?),
            Self::Terminal(editor) => editor,
        };
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    // A line that is not remembered is only typed again.
                    let _ = editor.add_history_entry(line.as_str());
                    return Ok(Some(line));
                }
                Err(ReadlineError::Interrupted) => eprintln!("Ctrl-D or /quit ends"),
                Err(ReadlineError::Eof) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
