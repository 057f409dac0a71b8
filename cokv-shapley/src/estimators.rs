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

use crate::Estimator;

/// The names of all estimators, the default first.
pub const NAMES: [&str; 9] =
    ["scpr", "ssv", "ssv-ridge", "complementary", "permutation", "kernel-shap", "leave-one-out", "banzhaf", "exact"];

/// The estimator of a name, with its default settings.
pub fn estimator(name: &str) -> Option<Box<dyn Estimator>> {
    Some(match name {
        "scpr" => Box::new(Scpr::default()),
        "ssv" => Box::new(Ssv::default()),
        "ssv-ridge" => Box::new(SsvRidge {}),
        "complementary" => Box::new(Complementary {}),
        "permutation" => Box::new(Permutation::default()),
        "kernel-shap" => Box::new(KernelShap {}),
        "leave-one-out" => Box::new(LeaveOneOut {}),
        "banzhaf" => Box::new(Banzhaf {}),
        "exact" => Box::new(Exact {}),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimators_are_found_by_their_name() {
        for name in NAMES {
            assert_eq!(estimator(name).unwrap().name(), name);
        }
        assert!(estimator("scp").is_none());
    }
}
