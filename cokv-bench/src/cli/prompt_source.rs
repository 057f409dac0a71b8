//! A prompt from the command line.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cokv_models::Outline;

use crate::data::prompt::{Framed, framed};

/// Where a prompt comes from, and how it is put to the model.
#[derive(clap::Args)]
pub struct PromptArguments {
    /// The prompt itself; where neither this nor --prompt-file is given, standard input is read
    #[arg(long, conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file with the prompt; - reads standard input
    #[arg(long)]
    prompt_file: Option<PathBuf>,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
}

impl PromptArguments {
    /// The text; an error where there is none.
    pub fn text(&self) -> Result<String> {
        let text = match (&self.prompt, &self.prompt_file) {
            (Some(prompt), _) => prompt.clone(),
            (None, Some(path)) => read_text(path, "--prompt-file")?,
            (None, None) if std::io::stdin().is_terminal() => {
                bail!("no prompt: give --prompt TEXT or --prompt-file FILE (- for standard input), or pipe one in")
            }
            (None, None) => read_input()?,
        };
        if text.trim().is_empty() {
            bail!("the prompt is empty");
        }
        Ok(text)
    }

    /// The text as the model reads it.
    pub fn framed(&self, text: String, model: &Outline) -> Result<Framed> {
        Ok(framed(model.tokenizer(), model.chat_template().filter(|_| !self.raw), text)?)
    }
}

/// The text of a file that an option names; `-` is standard input.
pub fn read_text(path: &Path, option: &str) -> Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path).with_context(|| format!("{option} {}", path.display()));
    }
    if std::io::stdin().is_terminal() {
        eprintln!("{option}: reading from the terminal; end it with Ctrl-D");
    }
    read_input()
}

fn read_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    Ok(text)
}
