//! Estimators of heads by name: those that sample coalitions, those that watch answers, and those of users' crates.

use std::path::Path;
use std::sync::Arc;

use cokv_core::config::{Choice, unknown_name};
use cokv_core::{ConfigError, ImportanceEstimator, Named, Registry};
use cokv_shapley::diagnostics::Allocation;
use cokv_shapley::{Estimator, Sampled};

use super::ImportanceSettings;
use super::detection::Detection;
use crate::scores::{HeadName, ScoreFile};

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
    let ImportanceSettings { design, records_per_pair, two_run_mae, allocation_distance, drop_lowest, pilot, .. } =
        settings;
    let estimator = match &settings.prior_scores {
        Some(path) => informed(&estimator, path, &settings.heads).map_err(|reason| choice.settings.error(reason))?,
        None => estimator,
    };
    let sampled = Sampled {
        estimator,
        design: design.clone(),
        records_per_sample: *records_per_pair,
        two_run_mae: *two_run_mae,
        allocation_distance: Some(*allocation_distance).filter(|most| *most < 1.0),
        allocation: drop_lowest.map(|drop_lowest| Allocation { drop_lowest }),
        pilot: *pilot,
    };
    Ok(Named::new(Arc::new(sampled), written))
}

/// The estimator that expects what a score file says of the heads that play; else why it cannot.
fn informed(estimator: &Named<dyn Estimator>, path: &Path, heads: &[HeadName]) -> Result<Named<dyn Estimator>, String> {
    let file = ScoreFile::read(path).map_err(|error| format!("the prior {error}"))?;
    let (shown, values) = (path.display(), file.flat());
    if !file.players.is_empty() {
        return Err(format!(
            "the prior {shown} has scores of {} heads alone: it must have them of all",
            file.players.len()
        ));
    }
    let layout = file.model.layout().map_err(|problem| format!("the prior {}", problem.at(path)))?;
    let of_head = |head: &HeadName| {
        head.flat(layout).map(|flat| values[flat]).map_err(|error| format!("the prior {shown}: {error}"))
    };
    let expected = match heads {
        [] => values.clone(),
        heads => heads.iter().map(of_head).collect::<Result<_, _>>()?,
    };
    let informed = estimator.informed(&expected).ok_or_else(|| {
        format!("the estimator `{}` expects nothing of heads, so that it takes no prior: scpr does", estimator.name())
    })?;
    Ok(Named::new(Arc::from(informed), estimator.settings().clone()))
}

/// Settings of what has none.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}
