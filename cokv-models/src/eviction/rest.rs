//! Compression of a cache that nobody answers from: its keys and values are all that is left of the text.

use std::sync::Arc;

use cokv_core::{Method, Protected};

use super::held::{HeldHead, Queries};
use super::keep_best;
use crate::cache::{RaggedCache, Segment};
use crate::engine::Engine;
use crate::error::ModelError;

/// What is kept of a frozen cache, `total` tokens of all heads together and `besides` first and last ones, as a segment of its own: whoever
/// reads the cache goes on reading it. None where no head keeps anything.
///
/// # Errors
/// Of the method, which must not lack anything ([`Method::lacks_at_rest`]), and where the backend has no memory for what is kept.
pub fn compress_at_rest(
    engine: &Arc<dyn Engine>,
    cache: &RaggedCache,
    method: &Method,
    total: usize,
    besides: Protected,
) -> Result<Option<Arc<Segment>>, ModelError> {
    let mut kept = cache.fork()?;
    let seen = cache.next_position();
    let (request, rotary) = (method.observations(Default::default()), engine.rotary(seen));
    let none = Queries { of_layer: Vec::new(), first_position: seen, count: 0 };
    let look = |cache: &RaggedCache, head: usize| {
        let window = engine.config().window(cache.layout().place(head).0);
        HeldHead::look(cache, head, &none, &request, None, window, &rotary)
    };
    keep_best(&mut kept, method, total, besides, look)?;
    kept.into_segment()
}
