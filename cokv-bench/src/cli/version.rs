//! What this program is, in a line.

use std::sync::LazyLock;

use cokv_models::Device;

/// The version, the commit where the build knew it, and what computes.
pub fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        // Set by cargo xtask.
        let commit = option_env!("COKV_COMMIT").and_then(|commit| commit.get(..7));
        let features =
            [("hub", cfg!(feature = "hub")), ("cuda", cfg!(feature = "cuda")), ("mkl", cfg!(feature = "mkl"))];
        let features = features.into_iter().filter(|(_, built)| *built).map(|(name, _)| name);
        let parts = commit.into_iter().chain([Device::of_this_build().backend()]).chain(features);
        format!("{} ({})", env!("CARGO_PKG_VERSION"), parts.collect::<Vec<_>>().join(", "))
    });
    &VERSION
}
