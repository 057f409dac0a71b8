//! What a saved document says of where it comes from.

use cokv_core::{Budget, ConfigError, ConfigTable, Registry};
use cokv_models::Outline;
use cokv_models::cache::file::{Description, Identity};
use cokv_scheduler::{Document, MadeBy};

use crate::document::{Made, Turn, describe, prefix_hash};
use crate::model::ModelSettings;

/// Describes documents of one model.
pub struct Describing {
    /// How the model is held.
    pub by: ModelSettings,
    /// What a file of it and another have to have alike.
    pub identity: Identity,
    /// What computes.
    pub backend: &'static str,
    /// What stands in a file where everything is kept.
    everything: MadeBy,
}

impl Describing {
    /// Of documents of a model that is held and computed so.
    ///
    /// # Errors
    /// Where there is no method that keeps everything.
    pub fn new(
        by: ModelSettings,
        identity: Identity,
        backend: &'static str,
        registry: &Registry,
    ) -> Result<Self, ConfigError> {
        let full = registry.method(ConfigTable::parse("the method", "compressor = \"full\"")?)?;
        Ok(Self { by, identity, backend, everything: MadeBy::of(&full, Budget::Share(1.0)) })
    }

    /// What its file is to say of a document. A text that stands in one user's turn is described as `cokv compress` does, so that
    /// `cokv ask` answers from it.
    pub fn describe(&self, document: &Document, outline: &Outline) -> Description {
        let opened = Turn::of(outline).and_then(|turn| turn.open(&document.text)).ok();
        let opened = opened.filter(|opened| opened.tokens == *document.tokens);
        let prefix = prefix_hash(opened.as_ref().map_or(&document.text, |opened| &opened.text));
        let made_by = document.made_by.clone().unwrap_or_else(|| self.everything.clone());
        let (identity, backend) = (self.identity.clone(), self.backend);
        describe(Made { by: &self.by, identity, backend, prefix, made_by })
    }
}
