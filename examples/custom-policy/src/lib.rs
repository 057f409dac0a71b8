//! Two scorers, an allocator and an estimator of heads that cokv does not know, beside all that it does.

mod late_layers;
mod separators;
mod sharp_heads;
mod vatp;

use cokv_core::Registry;
pub use late_layers::LateLayers;
pub use separators::Separators;
pub use sharp_heads::SharpHeads;
pub use vatp::Vatp;

/// cokv's policies and ours.
pub fn registry() -> Registry {
    let mut registry = cokv_policies::registry();
    registry.add_compressor("separators", |settings| settings.read::<Separators>());
    registry.add_compressor("vatp", |settings| settings.read::<Vatp>());
    registry.add_allocator("late-layers", |settings| settings.read::<LateLayers>());
    registry.add_estimator("sharp-heads", |settings| settings.read::<SharpHeads>());
    registry.add_preset(
        "late-vatp",
        "compressor = { name = 'vatp', window = 16 }\nallocator = { name = 'late-layers', weight = 3.0 }",
        "this example",
    );
    registry
}
