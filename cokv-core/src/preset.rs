//! Published settings under names of their own.

use crate::config::Choice;
use crate::{ConfigError, ConfigTable};

/// A compressor, and an allocator where it is a whole method that is named.
pub(crate) type Choices<'i> = (Choice<'i>, Option<Choice<'i>>);

/// Settings of a compressor, or a whole method, as somebody published them. Its name stands where a compressor's would:
/// `compressor = "ada-snapkv"`.
#[derive(Clone, Debug)]
pub struct Preset {
    /// What errors call it.
    label: String,
    text: String,
    source: String,
}

impl Preset {
    /// `text` is a `[[method]]` table, with an allocator where the preset is a whole method; `source` says who
    /// published it.
    pub(crate) fn new(name: &str, text: &str, source: &str) -> Self {
        Self { label: format!("preset {name}"), text: text.into(), source: source.into() }
    }

    /// Who published it, and where.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its compressor, and its allocator if it is a whole method.
    pub(crate) fn choices(&self) -> Result<Choices<'_>, ConfigError> {
        let mut table = ConfigTable::parse(&self.label, &self.text)?;
        let (compressor, allocator) = (table.take_choice("compressor")?, table.take_choice("allocator")?);
        let compressor = compressor.ok_or_else(|| table.error("a preset needs a compressor"))?;
        Ok((compressor, allocator))
    }
}
