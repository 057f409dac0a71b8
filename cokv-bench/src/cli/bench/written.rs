//! What a run writes down beside its rows.

use anyhow::Result;
use cokv_core::{HeadLayout, Method};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::fingerprint::build;
use crate::run::memory::processor;
use crate::run::{Manifest, ManifestMethod, Matrix, Measure, Row, cells};

/// What a report will need to know of a model.
pub fn manifest(config: &Config, fingerprint: &str, layout: HeadLayout, matrix: &Matrix<'_>) -> Manifest {
    let method = |name: String, method: &Method| ManifestMethod {
        name,
        definition: method.settings(),
        head_scores: method.head_scores().map(|scores| scores.values().to_vec()),
    };
    let mut methods = Vec::new();
    for variant in config.columns.iter().flat_map(|column| &column.variants) {
        let name = variant.method.name();
        if variant.of_task.is_empty() {
            methods.push(method(name.into(), &variant.method));
        }
        methods.extend(variant.of_task.iter().map(|(task, own)| method(format!("{name} on {task}"), own)));
    }
    Manifest {
        model: config.run.model.source.clone(),
        fingerprint: fingerprint.into(),
        layers: layout.layers,
        kv_heads: layout.kv_heads,
        methods,
        rows: matrix.fingerprints().map(str::to_owned).collect(),
    }
}

/// The configuration with every default of `[model]`, `[data]` and `[run]` written out. Those of policies stand in a
/// comment, because policies of other crates cannot be written back.
pub fn resolved(config: &Config, text: &str) -> Result<String> {
    let mut table = toml::Table::try_from(&config.run)?;
    let written: toml::Table = text.parse()?;
    for key in ["method", "importance"] {
        if let Some(value) = written.get(key) {
            table.insert(key.into(), value.clone());
        }
    }
    table.insert("model".into(), toml::Value::try_from(&config.models)?);
    let policies: Vec<String> =
        config.methods().map(|method| format!("# {} = {}\n", method.name(), method.settings())).collect();
    Ok(format!("# Policies with all their settings:\n{}\n{}", policies.concat(), toml::to_string(&table)?))
}

/// What a run was made with: versions, and the machine.
pub fn environment(config: &Config) -> Result<String> {
    let environment = json!({
        "cokv": env!("CARGO_PKG_VERSION"),
        "build": build(),
        // Set by cargo xtask.
        "commit": option_env!("COKV_COMMIT"),
        "settings": serde_json::to_value(&config.run)?,
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processor": processor(),
        "threads": std::thread::available_parallelism().map_or(0, usize::from),
    });
    Ok(serde_json::to_string_pretty(&environment)? + "\n")
}

/// Every cell's numbers, for a program.
pub fn summary(rows: &[Row], missing: usize) -> Json {
    let cells: Vec<Json> = cells(rows)
        .iter()
        .map(|cell| {
            let measures: serde_json::Map<_, _> = Measure::ALL
                .map(|measure| (measure.name().to_owned(), json!(cell.estimate(measure))))
                .into_iter()
                .collect();
            json!({
                "model": cell.model,
                "method": cell.method,
                "budget": cell.budget,
                "kept_share": cell.mean(|row| row.kept_share),
                "cache_bytes": cell.mean(|row| row.cache_bytes as f64),
                "measures": measures,
            })
        })
        .collect();
    json!({ "event": "done", "missing_rows": missing, "cells": cells })
}
