//! From a document to a small cache of it.

use std::sync::Arc;
use std::time::Instant;

use cokv_core::{Budget, ConfigTable, Frame, Method, Registry};
use cokv_models::cache::Segment;
use cokv_models::config::ModelConfig;
use cokv_models::{Compressed, LanguageModel};

use super::error::DocumentError;
use super::turn::OpenTurn;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// So many of the document's tokens are read.
    Read(usize),
    /// Of a second pass over it, so many tokens of how many.
    ReadAgain(usize, usize),
}

/// What is kept of a document.
pub struct CompressedDocument {
    /// Frozen.
    pub cache: Arc<Segment>,
    /// Tokens that all heads together were allowed to keep.
    pub allowed: usize,
    /// That reading it took, however often.
    pub read_seconds: f64,
    /// That choosing took.
    pub compress_seconds: f64,
}

/// Refuses a method that cannot do without a question.
pub fn check_method(method: &Method, registry: &Registry) -> Result<(), DocumentError> {
    match method.needs_question() {
        true => Err(DocumentError::NeedsQuestion { method: method.name().into(), instead: without_question(registry) }),
        false => Ok(()),
    }
}

/// What a user should know of a method that looks from the document's end.
pub fn window_remark(method: &Method, frame: Frame, registry: &Registry) -> Option<String> {
    let window = method.observations(frame).last_queries();
    let remark = || {
        format!(
            "{} scores tokens by what the last of a prompt look at ({window}), where a question usually stands; here they are the \
             document's own. Made for any question: {}",
            method.name(),
            without_question(registry)
        )
    };
    (window > 0).then(remark)
}

/// Compressors that look at no question, and not for one where it usually stands.
fn without_question(registry: &Registry) -> String {
    evicting(registry, |method| {
        let looks_back = method.observations(Frame::default()).last_queries() > 0;
        !method.needs_question() && !looks_back
    })
}

/// The names of compressors that evict and are fit for something.
pub fn evicting(registry: &Registry, fit: impl Fn(&Method) -> bool) -> String {
    let method = |name: &&str| {
        let line = format!("compressor = {name:?}");
        registry.method(ConfigTable::parse("a registered name", &line).ok()?).ok()
    };
    // Lots that are drawn look at nothing.
    let names = registry.compressors().filter(|&name| name != "random");
    let fit = |name: &&str| method(name).is_some_and(|method| method.evicts() && fit(&method));
    names.filter(fit).collect::<Vec<_>>().join(", ")
}

/// Refuses a document behind which nothing can be asked.
pub fn check_document(document: &OpenTurn, model: &ModelConfig) -> Result<(), DocumentError> {
    let (tokens, limit) = (document.tokens.len(), model.max_tokens());
    if tokens < limit { Ok(()) } else { Err(DocumentError::TooLong { tokens, limit }) }
}

/// Reads a document, as often as the method wants to see it, and keeps what the budget allows. `close` is what the chat template
/// puts behind a user's text.
pub fn compress(
    model: &LanguageModel,
    document: &OpenTurn,
    close: &[u32],
    method: &Method,
    budget: Budget,
    mut hear: impl FnMut(Done),
) -> Result<CompressedDocument, DocumentError> {
    check_document(document, model.config())?;
    let (started, frame) = (Instant::now(), document.frame);
    let prefill = model.prefill(&document.tokens, method.observations(frame), |tokens| hear(Done::Read(tokens)))?;
    let mut prefill = prefill.within(frame);
    if let Some(replay) = method.replay() {
        model.replay(&mut prefill, &replay, close, |tokens, of| hear(Done::ReadAgain(tokens, of)))?;
    }
    let read_seconds = started.elapsed().as_secs_f64();
    let (cache, allowed) = match method.evicts() {
        true => {
            let Compressed { cache, allowed, .. } = prefill.compress_apart(method, budget)?;
            (cache.into_segment()?.ok_or(DocumentError::NothingKept(budget))?, allowed)
        }
        false => (Arc::clone(prefill.prompt()), prefill.prompt().total_tokens()),
    };
    let compress_seconds = started.elapsed().as_secs_f64() - read_seconds;
    Ok(CompressedDocument { cache, allowed, read_seconds, compress_seconds })
}

#[cfg(test)]
mod tests {
    use cokv_core::{BudgetAllocator, CacheCompressor, LayerView, Named, PolicyError, Settings};
    use cokv_policies::allocators::Uniform;

    use super::*;

    #[derive(Debug)]
    struct Asking;

    impl CacheCompressor for Asking {
        fn needs_question(&self) -> bool {
            true
        }

        fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
            Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
        }
    }

    #[test]
    fn methods_that_need_a_question_are_told_from_those_that_look_for_one() {
        let registry = cokv_policies::registry();
        let of = |name: &str| {
            let line = format!("compressor = '{name}'");
            registry.method(ConfigTable::parse("test", &line).unwrap()).unwrap()
        };
        let settings = Settings::of("asking", &toml::Table::new()).unwrap();
        let compressor = Named::new(Arc::new(Asking) as Arc<dyn CacheCompressor>, settings.clone());
        let allocator = Named::new(Arc::new(Uniform::default()) as Arc<dyn BudgetAllocator>, settings);
        let asking = Method::new("asking", compressor, allocator);
        let error = check_method(&asking, &registry).unwrap_err().to_string();
        assert!(error.contains("`asking` scores tokens by a question") && error.contains("keydiff, knorm"), "{error}");
        assert!(!error.contains("snapkv") && !error.contains("full"), "{error}");

        let remark = |name: &str| {
            assert!(check_method(&of(name), &registry).is_ok());
            window_remark(&of(name), Frame::default(), &registry)
        };
        assert_eq!([remark("knorm"), remark("full"), remark("keydiff")], [None, None, None]);
        assert!(remark("snapkv").unwrap().starts_with("snapkv scores tokens by what the last"));
    }
}
