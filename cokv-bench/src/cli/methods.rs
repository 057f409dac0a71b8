//! `cokv methods`

mod kvpress;

use anyhow::Result;
use cokv_core::config::Choice;
use cokv_core::{ConfigTable, Registry};
use serde_json::json;

use super::output::print;

/// List the compressors and allocators, with their settings and defaults, and the presets
///
/// A line is what a configuration may say after `compressor =` or `allocator =`. What is left out of it has the default that
/// is shown: { name = "snapkv", window = 32 } or "snapkv" will do. A preset has the settings that somebody published, and its
/// name stands where a compressor's would: compressor = "snapkv-paper", or { name = "snapkv-paper", window = 32 }. One with an
/// allocator is a whole method: compressor = "ada-snapkv" alone, or --method ada-snapkv.
#[derive(clap::Args)]
pub struct Arguments {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Instead, say which method each press of kvpress is here
    #[arg(long, conflicts_with = "json")]
    kvpress: bool,
    /// That as a page, docs/methods.md of the repository
    #[arg(long, requires = "kvpress")]
    markdown: bool,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    if arguments.kvpress {
        return print(&if arguments.markdown { kvpress::page(registry)? } else { kvpress::lines() });
    }
    let table = ConfigTable::parse("defaults", "")?;
    if arguments.json {
        let compressors = registry
            .compressors()
            .map(|name| Ok(registry.compressor(&Choice::named(name, &table))?.settings().clone()));
        let allocators =
            registry.allocators().map(|name| Ok(registry.allocator(&Choice::named(name, &table))?.settings().clone()));
        let presets = registry.presets().map(|(name, preset)| {
            let method = registry.method(ConfigTable::parse("presets", &format!("compressor = {name:?}"))?)?;
            Ok(json!({ "name": name, "method": method.settings(), "source": preset.source() }))
        });
        return print(&serde_json::to_string(&json!({
            "compressors": compressors.collect::<Result<Vec<_>>>()?,
            "allocators": allocators.collect::<Result<Vec<_>>>()?,
            "presets": presets.collect::<Result<Vec<_>>>()?,
        }))?);
    }
    let mut lines = vec!["compressors".to_owned()];
    for name in registry.compressors() {
        lines.push(format!("  {}", registry.compressor(&Choice::named(name, &table))?.settings()));
    }
    lines.push("allocators".into());
    for name in registry.allocators() {
        lines.push(format!("  {}", registry.allocator(&Choice::named(name, &table))?.settings()));
    }
    lines.push("presets".into());
    for (name, preset) in registry.presets() {
        let text = format!("compressor = {name:?}");
        let settings = registry.method(ConfigTable::parse("presets", &text)?)?.settings();
        lines.push(format!("  {name} = {settings}\n    {}", preset.source()));
    }
    print(&lines.join("\n"))
}
