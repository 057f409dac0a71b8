//! Models and the caches that come back from files.

use cokv_core::Format;

use crate::NUMERICS;
use crate::cache::RaggedCache;
use crate::cache::file::{CacheFileError, Identity, SavedCache};
use crate::error::ModelError;
use crate::model::LanguageModel;
use crate::outline::Outline;

impl Outline {
    /// What a saved cache of this model and another have to have alike. `fingerprint` is the hash of the model's files.
    pub fn identity(&self, fingerprint: &str, format: Format) -> Result<Identity, ModelError> {
        Ok(Identity {
            model: fingerprint.to_owned(),
            tokenizer: self.tokenizer().fingerprint()?,
            numerics: NUMERICS.to_string(),
            layout: self.config().layout,
            format,
            rope: self.config().rope()?,
        })
    }
}

impl LanguageModel {
    /// Goes on with a cache that was saved, by whatever process. `identity` is this model's.
    ///
    /// # Errors
    /// As of [`SavedCache::restore`].
    pub fn restore(&self, saved: SavedCache, identity: &Identity) -> Result<RaggedCache, CacheFileError> {
        let empty = self.engine().cache(self.format(), 0)?;
        saved.restore(identity, self.config().vocabulary, &empty)
    }
}
