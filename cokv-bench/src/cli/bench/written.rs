//! What a run writes down beside its rows.

use anyhow::Result;
use cokv_core::{HeadLayout, Method};
use serde_json::{Value as Json, json};
use toml::Value;

use crate::config::{Column, Config};
use crate::fingerprint::build;
use crate::machine::memory::processor;
use crate::run::{Manifest, ManifestMethod, Matrix, Measure, Row, cells};
use crate::scores::HeadScoresWorth;

/// What a report will need to know of a model.
pub fn manifest(config: &Config, fingerprint: &str, layout: HeadLayout, matrix: &Matrix<'_>) -> Manifest {
    let method = |name: String, method: &Method, worth: Option<&HeadScoresWorth>| ManifestMethod {
        name,
        settings: Some(method.settings()),
        off_budget: method.spending().reason().map(str::to_owned),
        head_scores: method.head_scores().map(|scores| scores.values().to_vec()),
        head_scores_worth: worth.cloned(),
    };
    let mut methods = Vec::new();
    for variant in config.columns.iter().flat_map(|column| &column.variants) {
        let name = variant.method.name();
        if variant.of_task.is_empty() {
            methods.push(method(name.into(), &variant.method, variant.worth.get(&None)));
        }
        let of_task = |(task, own): (&String, &Method)| method(format!("{name} on {task}"), own, variant.worth(task));
        methods.extend(variant.of_task.iter().map(of_task));
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

/// The configuration with every default written out; `text` is what the user wrote. It reads back to the same run.
pub fn resolved(config: &Config, text: &str) -> Result<String> {
    let mut table = toml::Table::try_from(&config.run)?;
    table.insert("model".into(), Value::try_from(&config.models)?);
    table.insert("data".into(), config.run.data.written()?.into());
    let importance = config.importance.iter().map(|(name, table)| Ok((name.clone(), table.written()?.into())));
    table.insert("importance".into(), Value::Table(importance.collect::<Result<_>>()?));
    let written: toml::Table = text.parse()?;
    let tables = written.get("method").and_then(Value::as_array).into_iter().flatten();
    let methods = config.columns.iter().zip(tables).map(|(column, table)| method(column, table));
    table.insert("method".into(), methods.collect::<Result<Vec<Value>>>()?.into());
    Ok(toml::to_string(&table)?)
}

/// A `[[method]]` table: what it lists to choose from and where its head scores come from as it was written.
fn method(column: &Column, written: &Value) -> Result<Value> {
    let mut table = written.as_table().cloned().unwrap_or_default();
    table.insert("name".into(), column.name.clone().into());
    table.extend(toml::Table::try_from(column.variants[0].method.settings())?);
    Ok(table.into())
}

/// What a run was made with: versions, settings with all models, and the machine.
pub fn environment(config: &Config) -> Result<String> {
    let mut settings = serde_json::to_value(&config.run)?;
    settings["model"] = serde_json::to_value(&config.models)?;
    let environment = json!({
        "cokv": env!("CARGO_PKG_VERSION"),
        "build": build(config.run.model.device.backend()),
        // Set by cargo xtask.
        "commit": option_env!("COKV_COMMIT"),
        "settings": settings,
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processor": processor(),
        "threads": cokv_models::threads(),
    });
    Ok(serde_json::to_string_pretty(&environment)? + "\n")
}

/// Every cell's numbers, for a program.
pub fn summary(rows: &[Row], missing: usize) -> Json {
    let cells: Vec<Json> = cells(rows)
        .iter()
        .map(|cell| {
            let measures: serde_json::Map<_, _> = Measure::ALL
                .map(|measure| (measure.key().to_owned(), json!(cell.estimate(measure))))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;

    /// Regression: `--json` had the headings of tables ("log-lik.") where the CSV has keys.
    #[test]
    fn programs_read_keys_and_not_headings() {
        let done = summary(&[row("x")], 0);
        let names: Vec<&String> = done["cells"][0]["measures"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["score", "log-likelihood", "divergence", "agreement"]);
    }

    #[test]
    fn all_models_are_written_down_whichever_runs() {
        let text = "budgets = [64]\n[[model]]\nsource = 'a'\n[[model]]\nsource = 'b'\n[[method]]\ncompressor = 'full'";
        let mut config = Config::parse("cokv.toml", text, &cokv_policies::registry()).unwrap();
        let of_first = (environment(&config).unwrap(), resolved(&config, text).unwrap());
        config.run.model = config.models[1].clone();
        assert_eq!((environment(&config).unwrap(), resolved(&config, text).unwrap()), of_first);
        let environment: Json = serde_json::from_str(&of_first.0).unwrap();
        let models = environment["settings"]["model"].as_array().unwrap();
        assert_eq!(models.iter().map(|model| model["source"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn a_resolved_configuration_reads_back_to_the_same_run() {
        let registry = cokv_policies::registry();
        let methods = "[[method]]\ncompressor = { name = 'critical-kv', base = 'h2o' }\nallocator = 'ada-kv'\n\
             select = { floor = [0.0, 0.2] }\n\
             [[method]]\ncompressor = 'snapkv'\nallocator = 'cokv'\nimportance = 'own'\n\
             [[method]]\ncompressor = { name = 'ada-snapkv', window = 9 }\n\
             [[method]]\nname = 'from-file'\ncompressor = 'snapkv'\nallocator = 'cokv'\nscores = 'x.scores.json'\n\
             [importance.own]\nper_task = true\nestimator = { name = 'ssv', sides = 'both' }\ndesign = 'slices 3,4'\n\
             [[method]]\nname = 'keys'\ncompressor = 'snapkv'\nallocator = 'cokv'\nimportance = 'keys'\n\
             [importance.keys]\ntasks = ['key-value']\nrecords = 3\ncontext_tokens = [300, 400]\n";
        for data in ["source = 'x'\nsplit = 'test'", "tasks = ['needle']\ncontext_lengths = [300, 200]\ndepths = 3", ""]
        {
            let text = format!("budgets = [64, '10%', '1 MiB']\n[data]\n{data}\n{methods}");
            let config = Config::parse("cokv.toml", &text, &registry).unwrap();
            let written = resolved(&config, &text).unwrap();
            let again = Config::parse("resolved.toml", &written, &registry).unwrap();
            assert_eq!(resolved(&again, &written).unwrap(), written);
            // Regression: the records of importance tables were left out.
            let records = |config: &Config| config.importance["keys"].settings.records.clone();
            assert_eq!((records(&again), records(&again).records), (records(&config), Some(3)));
            let definitions =
                |config: &Config| config.methods().map(|m| m.name().to_owned() + &m.definition()).collect::<Vec<_>>();
            assert_eq!(definitions(&again), definitions(&config));
            assert_eq!(toml::to_string(&again.run).unwrap(), toml::to_string(&config.run).unwrap());
            assert!(written.contains("window = 8") && written.contains("recent_share"), "{written}");
            assert!(written.contains("window = 9") && written.contains("name = \"ada-snapkv\""), "{written}");
        }
    }
}
