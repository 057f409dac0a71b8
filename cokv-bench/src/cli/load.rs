//! Opening and loading a model with progress on the terminal.

use anyhow::Result;

use super::bar::{bar, fetching};
use crate::model::{Beside, Loaded, ModelSettings, Outlined};

/// What is known of a model without its weights, which are fetched unless it is only for a plan.
pub fn outline(settings: &ModelSettings, plan: bool) -> Result<Outlined> {
    let model = if plan { settings.outline_alone(fetching())? } else { settings.outline(fetching())? };
    model.outline.notices().iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(model)
}

/// The model itself, where there is room for it.
pub fn load(model: &Outlined, beside: &Beside) -> Result<Loaded> {
    let bar = bar(false, "loading {msg} {wide_bar} {pos}/{len} layers", 0).with_message(model.settings.source.clone());
    let loaded = model.load(beside, |layer, layers| {
        bar.set_length(layers as u64);
        bar.set_position(layer as u64);
    });
    bar.finish_and_clear();
    Ok(loaded?)
}
