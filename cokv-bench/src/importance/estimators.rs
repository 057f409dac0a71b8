//! Estimators of heads by name: those that sample coalitions, those that watch answers, and those of users' crates.

use std::sync::Arc;

use cokv_core::config::{Choice, unknown_name};
use cokv_core::{ConfigError, ImportanceEstimator, Named, Registry};
use cokv_shapley::Sampled;

use super::ImportanceSettings;
use super::detection::Detection;

/// The estimator that a configuration names, with its settings; `settings` say how those that sample do it.
pub fn named(
    choice: &Choice<'_>,
    settings: &ImportanceSettings,
    registry: &Registry,
) -> Result<Named<dyn ImportanceEstimator>, ConfigError> {
    if let Some(built) = registry.estimator(choice) {
        return built;
    }
    if let Some(detection) = Detection::ALL.into_iter().find(|detection| detection.name() == choice.name) {
        let Nothing {} = choice.settings.read()?;
        return Ok(Named::new(Arc::new(detection), choice.settings_of(&Nothing {})?));
    }
    if !cokv_shapley::NAMES.contains(&choice.name.as_str()) {
        let known =
            cokv_shapley::NAMES.into_iter().chain(Detection::ALL.map(Detection::name)).chain(registry.estimators());
        return Err(choice.settings.error(unknown_name("estimator", &choice.name, known)));
    }
    let estimator = cokv_shapley::estimator(choice)?;
    let written = estimator.settings().clone();
    let ImportanceSettings { design, records_per_pair, two_run_mae, allocation_distance, .. } = settings;
    let sampled = Sampled {
        estimator,
        design: design.clone(),
        records_per_sample: *records_per_pair,
        two_run_mae: *two_run_mae,
        allocation_distance: Some(*allocation_distance).filter(|most| *most < 1.0),
    };
    Ok(Named::new(Arc::new(sampled), written))
}

/// Settings of what has none.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}
