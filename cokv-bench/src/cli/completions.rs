//! `cokv completions` and `cokv man`

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

use super::output::print;

/// Print completions for a shell
///
/// bash: cokv completions bash > ~/.local/share/bash-completion/completions/cokv
/// zsh:  cokv completions zsh > ~/.zfunc/_cokv
/// fish: cokv completions fish > ~/.config/fish/completions/cokv.fish
#[derive(clap::Args)]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

/// Write a manual page for every command
#[derive(clap::Args)]
pub struct Man {
    /// The folder for them, such as ~/.local/share/man/man1
    folder: PathBuf,
}

pub fn completions(arguments: &Completions, mut command: Command) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "cokv", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

pub fn man(arguments: &Man, command: Command) -> Result<()> {
    let folder = &arguments.folder;
    let failed = || folder.display().to_string();
    std::fs::create_dir_all(folder).with_context(failed)?;
    clap_mangen::generate_to(command.disable_help_subcommand(true), folder).with_context(failed)?;
    let pages = pages(folder).with_context(failed)?;
    print(&format!("{pages} pages in {}; man -l {} shows the first", folder.display(), folder.join("cokv.1").display()))
}

fn pages(folder: &Path) -> std::io::Result<usize> {
    let entries = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(entries.filter(|path| path.extension().is_some_and(|extension| extension == "1")).count())
}
