//! What options stand for that are keys in a configuration.

use anyhow::{Error, Result, anyhow, bail};
use cokv_core::config::Choice;
use cokv_core::{ConfigError, ConfigTable};

/// Builds what `flag` names, with `KEY=VALUE` settings as a configuration would write them.
pub fn with_choice<T>(
    flag: &str,
    name: &str,
    settings: &[String],
    build: impl FnOnce(&Choice<'_>) -> Result<T, ConfigError>,
) -> Result<T> {
    let entries: Vec<String> = std::iter::once(format!("name = {name:?}")).chain(settings.iter().cloned()).collect();
    let toml = format!("choice = {{ {} }}", entries.join(", "));
    let mut table = ConfigTable::parse(flag, &toml)?;
    let Some(choice) = table.take_choice("choice")? else { bail!("{flag} names nothing") };
    Ok(build(&choice)?)
}

/// A setting that makes no sense, by the name of its option.
pub fn refused((key, message): (&str, String)) -> Error {
    let option = if key == "tasks" { "task".into() } else { key.replace('_', "-") };
    anyhow!("--{option}: {message}")
}
