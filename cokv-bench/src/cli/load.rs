//! Loading a model with progress on the terminal.

use anyhow::{Context, Result};
use cokv_models::source::Source;
use cokv_models::{LanguageModel, LoadOptions};

use super::bar::bar;
use crate::config::ModelSettings;

/// A loaded model and the hash that identifies its files.
pub struct Loaded {
    pub model: LanguageModel,
    pub fingerprint: String,
}

pub fn load(settings: &ModelSettings) -> Result<Loaded> {
    let source: Source = settings.source.parse()?;
    let files = source.fetch(true)?;
    let bar = bar(false, "loading {msg} {wide_bar} {pos}/{len} layers", 0).with_message(source.to_string());
    let options = LoadOptions { weight_type: settings.weights, cache_type: settings.cache, device: device()? };
    let model = LanguageModel::load(&files, &options, |layer, layers| {
        bar.set_length(layers as u64);
        bar.set_position(layer as u64);
    });
    bar.finish_and_clear();
    Ok(Loaded { model: model?, fingerprint: cokv_models::fingerprint(&files)? })
}

/// The accelerator that this build knows, else the CPU.
fn device() -> Result<candle_core::Device> {
    if cfg!(feature = "cuda") {
        return candle_core::Device::new_cuda(0)
            .context("no CUDA device; build without --features cuda to run on the CPU");
    }
    if cfg!(feature = "metal") {
        return candle_core::Device::new_metal(0)
            .context("no Metal device; build without --features metal to run on the CPU");
    }
    Ok(candle_core::Device::Cpu)
}
