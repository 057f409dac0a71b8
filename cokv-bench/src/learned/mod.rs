//! What is found out about a model once, from texts, for compressors that need it ([`Learned`](cokv_core::Learned)): what its queries
//! look like, and a guess at what a second reading would say of a token.
//!
//! Everything is a sum over tokens, so that texts come one by one, and a stopped run goes on from its sums.

mod direction;
mod file;
mod ridge;
mod sums;

use std::path::Path;

use cokv_core::{LayerView, Method, ObservationRequest, Registry};
use cokv_models::{LanguageModel, ModelError};
use cokv_shapley::whole;

pub use self::file::{LearnedFile, LearnedFileError};
pub use self::sums::Sums;
use crate::model::ModelSettings;

/// The method whose scores are guessed at.
pub const GUESSED: &str = "kvzip-plus";

/// What prefill must record to learn from it.
fn observations(guessed: Option<&Method>) -> ObservationRequest {
    let queries = ObservationRequest { queries: usize::MAX, ..ObservationRequest::default() };
    match guessed {
        None => queries,
        Some(method) => {
            let inputs = ObservationRequest { inputs: true, ..method.observations(Default::default()) };
            queries.union(inputs)
        }
    }
}

/// Learns from a text. With a method, also what its scores have to do with hidden states.
///
/// # Errors
/// Of the model.
pub fn learn(
    model: &LanguageModel,
    tokens: &[u32],
    guessed: Option<&Method>,
    sums: &mut Sums,
    mut progress: impl FnMut(usize),
) -> Result<(), ModelError> {
    let mut prefill = model.prefill(tokens, observations(guessed), &mut progress)?;
    if let Some(replay) = guessed.and_then(Method::replay) {
        model.replay(&mut prefill, &replay, &[], |done, _| progress(tokens.len() + done))?;
    }
    for layer in 0..model.config().layout.layers {
        prefill.view(layer, |view: &LayerView<'_>| -> Result<(), ModelError> {
            sums.add_queries(view)?;
            match guessed {
                None => Ok(()),
                Some(method) => Ok(sums.add_scores(view, &method.score(view)?)?),
            }
        })??;
    }
    sums.texts += 1;
    Ok(())
}

/// The method whose scores are guessed at, if any are to be.
pub fn guessed(registry: &Registry, wanted: bool) -> Result<Option<Method>, cokv_core::ConfigError> {
    let text = format!("compressor = '{GUESSED}'");
    let method = |text: &str| registry.method(cokv_core::ConfigTable::parse("learn", text)?);
    wanted.then(|| method(&text)).transpose()
}

/// Hash of what sums are of: the model, as it is held, the texts and what is guessed.
pub fn fingerprint_of(model: &str, settings: &ModelSettings, texts: &[Vec<u32>], guess: bool) -> String {
    let of_texts = texts.iter().map(|text| crate::fingerprint::fingerprint(text.iter().map(u32::to_string)));
    let head = ["learned 1".to_owned(), model.to_owned(), settings.held_as(), guess.to_string()];
    crate::fingerprint::fingerprint(head.into_iter().chain(of_texts))
}

/// Writes sums down so that a later run goes on from them.
///
/// # Errors
/// Of the file system.
pub fn keep(path: &Path, sums: &Sums, fingerprint: &str) -> Result<(), LearnedFileError> {
    let at = |error| LearnedFileError::Io { path: path.display().to_string(), error };
    whole::write(path, sums.written(fingerprint)).map_err(at)
}
