//! `cokv methods`

use anyhow::Result;
use cokv_core::config::Choice;
use cokv_core::{ConfigTable, Registry};

use super::output::print;

/// List the compressors and allocators, with their settings and defaults
///
/// A line is what a configuration may say after `compressor =` or `allocator =`. What is left out of it has the default that
/// is shown: { name = "snapkv", window = 32 } or "snapkv" will do.
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments, registry: &Registry) -> Result<()> {
    let Defaults { compressors, allocators } = Defaults::of(registry)?;
    let line = |(name, debug): &(&str, String)| match settings(debug, &compressors) {
        Some(settings) => format!("  {{ name = {name:?}, {settings} }}"),
        None => format!("  {name:?}"),
    };
    let titled = |title: &str, lines: &[(&str, String)]| {
        std::iter::once(title.to_owned()).chain(lines.iter().map(line)).collect::<Vec<_>>().join("\n")
    };
    print(&[titled("compressors", &compressors), titled("allocators", &allocators)].join("\n"))
}

/// Names, and what `Debug` shows of them with their default settings.
struct Defaults<'a> {
    compressors: Vec<(&'a str, String)>,
    allocators: Vec<(&'a str, String)>,
}

impl<'a> Defaults<'a> {
    fn of(registry: &'a Registry) -> Result<Self> {
        let table = ConfigTable::parse("defaults", "")?;
        let compressor = |name| Ok((name, format!("{:?}", registry.compressor(&Choice::named(name, &table))?)));
        let allocator = |name| Ok((name, format!("{:?}", registry.allocator(&Choice::named(name, &table))?)));
        Ok(Self {
            compressors: registry.compressors().map(compressor).collect::<Result<_>>()?,
            allocators: registry.allocators().map(allocator).collect::<Result<_>>()?,
        })
    }
}

/// The settings of a policy that `Debug` shows, as TOML: the types of those that have a name become it, others are left out,
/// and variants are texts in kebab case.
fn settings(debug: &str, named: &[(&str, String)]) -> Option<String> {
    let mut rest = debug.split_once(" { ")?.1.strip_suffix(" }")?;
    let mut toml = String::new();
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let end = if is_word(first) { rest.find(|other| !is_word(other)) } else { Some(first.len_utf8()) };
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        if !first.is_ascii_uppercase() {
            toml += if word == ":" { " =" } else { word };
            continue;
        }
        let of_type = |(_, debug): &&(&str, String)| debug.split(' ').next() == Some(word);
        let name = named.iter().find(of_type).map(|(name, _)| *name);
        if let Some(fields) = rest.strip_prefix(" {") {
            toml += &name.map_or_else(|| "{".into(), |name| format!("{{ name = {name:?},"));
            rest = fields;
        } else {
            toml += &format!("{:?}", name.map_or_else(|| kebab_case(word), str::to_owned));
        }
    }
    Some(toml)
}

fn kebab_case(name: &str) -> String {
    let mut kebab = String::new();
    for (at, character) in name.char_indices() {
        if at > 0 && character.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::super::choice::with_choice;
    use super::*;

    #[test]
    fn a_line_says_what_a_configuration_may_say() -> Result<()> {
        let registry = cokv_policies::registry();
        let Defaults { compressors, allocators } = Defaults::of(&registry)?;
        let written = |debug: &str| settings(debug, &compressors).into_iter().collect::<Vec<_>>();
        for (name, debug) in &compressors {
            let read = with_choice("written", name, &written(debug), |choice| registry.compressor(choice))?;
            assert_eq!(format!("{read:?}"), *debug);
        }
        for (name, debug) in &allocators {
            let read = with_choice("written", name, &written(debug), |choice| registry.allocator(choice))?;
            assert_eq!(format!("{read:?}"), *debug);
        }
        Ok(())
    }
}
