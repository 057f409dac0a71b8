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

use std::sync::Arc;

use cokv_core::config::{Choice, unknown_name};
use cokv_core::{ConfigError, Named};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Estimator;

/// The names of all estimators, the default first.
pub const NAMES: [&str; 9] =
    ["scpr", "ssv", "ssv-ridge", "complementary", "permutation", "kernel-shap", "leave-one-out", "banzhaf", "exact"];

/// The estimator that a configuration names, with its settings.
pub fn estimator(choice: &Choice<'_>) -> Result<Named<dyn Estimator>, ConfigError> {
    match choice.name.as_str() {
        "scpr" => read::<Scpr>(choice),
        "ssv" => read::<Ssv>(choice),
        "ssv-ridge" => read::<SsvRidge>(choice),
        "complementary" => read::<Complementary>(choice),
        "permutation" => read::<Permutation>(choice),
        "kernel-shap" => read::<KernelShap>(choice),
        "leave-one-out" => read::<LeaveOneOut>(choice),
        "banzhaf" => read::<Banzhaf>(choice),
        "exact" => read::<Exact>(choice),
        other => Err(choice.settings.error(unknown_name("estimator", other, NAMES))),
    }
}

fn read<E: Estimator + Serialize + DeserializeOwned + 'static>(
    choice: &Choice<'_>,
) -> Result<Named<dyn Estimator>, ConfigError> {
    let estimator: E = choice.settings.read()?;
    let settings = choice.settings_of(&estimator)?;
    Ok(Named::new(Arc::new(estimator), settings))
}

#[cfg(test)]
mod tests {
    use cokv_core::ConfigTable;

    use super::*;

    fn built(text: &str) -> Result<Named<dyn Estimator>, ConfigError> {
        let mut table = ConfigTable::parse("cokv.toml", text).unwrap();
        estimator(&table.take_choice("estimator").unwrap().unwrap())
    }

    #[test]
    fn estimators_are_found_by_their_name() {
        for name in NAMES {
            let estimator = built(&format!("estimator = '{name}'")).unwrap();
            assert_eq!(estimator.name(), name);
            let again = built(&format!("estimator = {}", estimator.settings())).unwrap();
            assert_eq!(again.settings(), estimator.settings());
        }
        let error = built("estimator = 'scp'").unwrap_err().to_string();
        assert!(error.contains("cokv.toml:1: unknown estimator `scp`; did you mean `scpr`?"), "{error}");
    }

    #[test]
    fn settings_reach_their_estimator() {
        let both = built("estimator = { name = 'ssv', sides = 'both' }").unwrap();
        assert_eq!(both.settings().to_string(), "{ name = \"ssv\", sides = \"both\" }");
        let error = built("estimator = { name = 'ssv', side = 'both' }").unwrap_err().to_string();
        assert!(error.contains("unknown key `side`; did you mean `sides`?"), "{error}");
    }
}
