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
    let table = ConfigTable::parse("defaults", "")?;
    let mut lines = vec!["compressors".to_owned()];
    for name in registry.compressors() {
        lines.push(format!("  {}", registry.compressor(&Choice::named(name, &table))?.settings()));
    }
    lines.push("allocators".into());
    for name in registry.allocators() {
        lines.push(format!("  {}", registry.allocator(&Choice::named(name, &table))?.settings()));
    }
    print(&lines.join("\n"))
}
