//! What options stand for that are keys in a configuration.

use anyhow::{Error, Result, anyhow, bail};
use cokv_core::config::Choice;
use cokv_core::{ConfigError, ConfigTable};

/// Builds what `flag` names, with `KEY=VALUE` settings as a configuration would write them; words need no quotes.
pub fn with_choice<T>(
    flag: &str,
    name: &str,
    settings: &[String],
    build: impl FnOnce(&Choice<'_>) -> Result<T, ConfigError>,
) -> Result<T> {
    let entries: Vec<String> =
        std::iter::once(format!("name = {name:?}")).chain(settings.iter().map(|setting| quoted(setting))).collect();
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

/// A setting whose value is a word, which TOML would have in quotes.
fn quoted(setting: &str) -> String {
    let Some((key, value)) = setting.split_once('=') else { return setting.to_owned() };
    let value = value.trim();
    let is_word = value.starts_with(|first: char| first.is_ascii_alphabetic())
        && value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_".contains(letter));
    match is_word && !["true", "false", "inf", "nan"].contains(&value) {
        true => format!("{key} = {value:?}"),
        false => setting.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_need_no_quotes() {
        assert_eq!(quoted("sides=both"), "sides = \"both\"");
        for setting in ["sides=\"both\"", "antithetic=false", "beta=1.01", "heads=[1, 2]", "word"] {
            assert_eq!(quoted(setting), setting);
        }
    }
}
