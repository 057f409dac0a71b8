//! `cokv methods`

use anyhow::Result;
use cokv_core::config::Choice;
use cokv_core::{ConfigTable, Registry};

use super::output::print;

/// List the compressors and allocators, with their settings and defaults, and the presets
///
/// A line is what a configuration may say after `compressor =` or `allocator =`. What is left out of it has the default that
/// is shown: { name = "snapkv", window = 32 } or "snapkv" will do. A preset has the settings that somebody published, and its
/// name stands where a compressor's would: compressor = "snapkv-paper", or { name = "snapkv-paper", window = 32 }. One with an
/// allocator is a whole method: compressor = "ada-snapkv" alone, or --method ada-snapkv.
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments, registry: &Registry) -> Result<()> {
    let table = ConfigTable::parse("defaults", "")?;
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
