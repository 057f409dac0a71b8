//! Two policies that cokv does not know, beside all that it does.

mod late_layers;
mod vatp;

use cokv_core::Registry;
pub use late_layers::LateLayers;
pub use vatp::Vatp;

/// cokv's policies and ours.
pub fn registry() -> Registry {
    let mut registry = cokv_policies::registry();
    registry.add_compressor("vatp", |settings| settings.read::<Vatp>());
    registry.add_allocator("late-layers", |settings| settings.read::<LateLayers>());
    registry
}
