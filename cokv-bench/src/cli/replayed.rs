//! A prompt that is fed again, for methods that look at it twice.

use anyhow::Result;
use cokv_core::{Method, Replay};
use cokv_models::{LanguageModel, Prefill};

use super::bar::bar;

/// Feeds a prompt again as often as the methods want to see it.
pub fn replayed(mut prefill: Prefill, methods: &[Method], model: &LanguageModel) -> Result<Prefill> {
    let close = prefill.tokens()[prefill.prompt_len() - prefill.frame().tail..].to_vec();
    for replay in Replay::covering(methods.iter().filter_map(Method::replay).collect()) {
        let bar = bar(false, "second pass {wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left", prefill.prompt_len());
        model.replay(&mut prefill, &replay, &close, |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
    }
    Ok(prefill)
}
