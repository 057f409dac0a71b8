//! Where the numbers of a cache lie.

use std::any::Any;
use std::fmt::Debug;
use std::ops::Range;

use cokv_core::Pairs;

use crate::error::ModelError;

/// Keys and values of every KV head, in the memory of a backend. Heads are counted flat, rows of a head from its first.
///
/// Who shares what, and which tokens the rows are of, is the cache's business.
pub trait Store: Any + Debug + Send + Sync {
    /// Rows of a head.
    fn rows(&self, head: usize) -> usize;

    /// A store of the same kind that holds nothing and takes no memory.
    fn empty(&self) -> Box<dyn Store>;

    /// A copy of some rows of each head that takes exactly their memory.
    fn gather(&self, rows: &[&[u32]]) -> Result<Box<dyn Store>, ModelError>;

    /// Copies a range of each head's rows behind one's own. `from` is a store of the same backend, shape and format.
    fn append(&mut self, from: &dyn Store, rows: &[Range<usize>]) -> Result<(), ModelError>;

    /// Makes room for this many more rows in every head and no more.
    fn reserve(&mut self, rows: usize) -> Result<(), ModelError>;

    /// Drops the last rows of every head; the room stays.
    fn forget(&mut self, rows: usize);

    /// Bytes that the buffers take, room included.
    fn allocated_bytes(&self) -> usize;

    /// A store of the same kind that holds these rows and takes exactly their memory.
    ///
    /// # Errors
    /// Where the backend has no memory for them, or none for biases.
    fn of_pairs(&self, heads: &[Pairs]) -> Result<Box<dyn Store>, ModelError>;

    /// What a head holds, in f32.
    fn read(&self, head: usize) -> Result<Pairs, ModelError>;
}
