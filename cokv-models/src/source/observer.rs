//! Who hears how a fetch goes. Nothing is printed here: a command line draws a bar, a server writes a log.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::{Source, SourceError};

/// What happens while a source is fetched.
#[derive(Debug)]
pub enum FetchEvent<'a> {
    /// Another process fetches the same thing, and this one waits for the lock file.
    Waiting(&'a Path),
    /// Bytes of a file that have arrived, of how many where that is known; the first time, none have.
    Fetching {
        /// The file or package.
        what: &'a str,
        /// Bytes that have arrived.
        bytes: u64,
        /// Bytes of the whole.
        total: Option<u64>,
    },
    /// Nothing more of the last file arrives: it is whole, or it failed, as the result of the fetch says.
    Ended,
    /// A source of a preset failed, and the next one is tried.
    Failed(&'a Source, &'a SourceError),
}

type Hear = dyn Fn(FetchEvent<'_>) + Send + Sync;

/// Hears how a fetch goes; by default nobody does.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Hear>>);

impl Observer {
    /// Has `hear` called for every event.
    pub fn new(hear: impl Fn(FetchEvent<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hear)))
    }

    pub(super) fn tell(&self, event: FetchEvent<'_>) {
        if let Some(hear) = &self.0 {
            hear(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Observer(somebody)" } else { "Observer(nobody)" })
    }
}
