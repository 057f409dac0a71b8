//! The estimators, by name.

mod banzhaf;
mod complementary;
mod exact;
mod kernel_shap;
mod leave_one_out;
mod permutation;
mod scpr;
mod ssv;
mod ssv_ridge;

pub use banzhaf::Banzhaf;
pub use complementary::Complementary;
pub use exact::Exact;
pub use kernel_shap::KernelShap;
pub use leave_one_out::LeaveOneOut;
pub use permutation::Permutation;
pub use scpr::{Prior, Scpr};
pub use ssv::{Sides, Ssv};
pub use ssv_ridge::SsvRidge;

use cokv_core::config::{Choice, unknown_name};
use cokv_core::{ConfigError, ConfigTable};
use serde::de::DeserializeOwned;

use crate::Estimator;

/// The names of all estimators, the default first.
pub const NAMES: [&str; 9] =
    ["scpr", "ssv", "ssv-ridge", "complementary", "permutation", "kernel-shap", "leave-one-out", "banzhaf", "exact"];

/// The estimator that a configuration names, with its settings.
pub fn estimator(choice: &Choice<'_>) -> Result<Box<dyn Estimator>, ConfigError> {
    let settings = &choice.settings;
    match choice.name.as_str() {
        "scpr" => read::<Scpr>(settings),
        "ssv" => read::<Ssv>(settings),
        "ssv-ridge" => read::<SsvRidge>(settings),
        "complementary" => read::<Complementary>(settings),
        "permutation" => read::<Permutation>(settings),
        "kernel-shap" => read::<KernelShap>(settings),
        "leave-one-out" => read::<LeaveOneOut>(settings),
        "banzhaf" => read::<Banzhaf>(settings),
        "exact" => read::<Exact>(settings),
        other => Err(settings.error(unknown_name("estimator", other, NAMES))),
    }
}

fn read<E: Estimator + DeserializeOwned + 'static>(
    settings: &ConfigTable<'_>,
) -> Result<Box<dyn Estimator>, ConfigError> {
    Ok(Box::new(settings.read::<E>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(text: &str) -> Result<Box<dyn Estimator>, ConfigError> {
        let mut table = ConfigTable::parse("cokv.toml", text).unwrap();
        estimator(&table.take_choice("estimator").unwrap().unwrap())
    }

    #[test]
    fn estimators_are_found_by_their_name() {
        for name in NAMES {
            assert_eq!(built(&format!("estimator = '{name}'")).unwrap().name(), name);
        }
        let error = built("estimator = 'scp'").unwrap_err().to_string();
        assert!(error.contains("cokv.toml:1: unknown estimator `scp`; did you mean `scpr`?"), "{error}");
    }

    #[test]
    fn settings_reach_their_estimator() {
        let both = built("estimator = { name = 'ssv', sides = 'both' }").unwrap();
        assert_eq!(format!("{both:?}"), "Ssv { sides: Both }");
        let error = built("estimator = { name = 'ssv', side = 'both' }").unwrap_err().to_string();
        assert!(error.contains("unknown key `side`; did you mean `sides`?"), "{error}");
    }
}
