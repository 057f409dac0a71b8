//! Loading a model with progress on the terminal.

use anyhow::Result;

use super::bar::{bar, fetching};
use crate::model::{Loaded, ModelSettings};

pub fn load(settings: &ModelSettings) -> Result<Loaded> {
    let bar = bar(false, "loading {msg} {wide_bar} {pos}/{len} layers", 0).with_message(settings.source.clone());
    let loaded = settings.load(fetching(), |layer, layers| {
        bar.set_length(layers as u64);
        bar.set_position(layer as u64);
    });
    bar.finish_and_clear();
    let loaded = loaded?;
    loaded.model.notices().iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(loaded)
}
