//! `cokv methods`

use anyhow::Result;
use cokv_core::config::Choice;
use cokv_core::{ConfigTable, Registry};

use super::output::print;

/// List the compressors and allocators, with their settings and defaults
///
/// Settings are shown with their defaults. In a configuration they are written
/// compressor = { name = "snapkv", window = 32, pooling = "max", order = "reduce-first" }.
#[derive(clap::Args)]
pub struct Arguments {}

pub fn run(_: &Arguments, registry: &Registry) -> Result<()> {
    let table = ConfigTable::parse("defaults", "")?;
    let mut lines = vec!["compressors".to_owned()];
    for name in registry.compressors() {
        lines.push(format!("  {name:<18} {:?}", registry.compressor(&Choice::named(name, &table))?));
    }
    lines.push("allocators".into());
    for name in registry.allocators() {
        lines.push(format!("  {name:<18} {:?}", registry.allocator(&Choice::named(name, &table))?));
    }
    print(&lines.join("\n"))
}
