//! Tiles: the matrix registers of Intel's AMX, eight of sixteen rows of 64 bytes, and the instructions that multiply them.
//!
//! Kernels are written against [`Tiles`], so that a unit in plain Rust (`emulated.rs`) runs them in tests on processors that
//! have no such registers. Products of quantised weights are in `quantised/tile/amx.rs`, those of numbers in `dense.rs`.

pub(crate) mod dense;
#[cfg(test)]
pub(crate) mod emulated;
mod split;
mod unit;

pub(crate) use self::unit::Amx;

/// Tiles of a unit.
pub(crate) const TILES: usize = 8;
/// Rows of a tile.
pub(crate) const ROWS: usize = 16;
/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = 64;
/// Numbers of 32 bits in a row.
pub(crate) const LANES: usize = ROW_BYTES / 4;

/// How much of a tile is used. Tiles that are multiplied must fit: the first has a number of 32 bits in its rows for each row of the
/// second, and the result has the rows of the first and the row bytes of the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// At most [`ROWS`].
    pub rows: u8,
    /// At most [`ROW_BYTES`], whole numbers of 32 bits.
    pub row_bytes: u16,
}

impl Shape {
    /// A whole tile.
    pub const WHOLE: Self = Self { rows: ROWS as u8, row_bytes: ROW_BYTES as u16 };
}

/// A unit of tiles, named by their number.
///
/// Configured where a piece of work begins, released where it ends, and not kept between: others on the same thread (a
/// vendor's library) configure it for themselves, and tiles in use are 8 KiB more for the system to save at every switch of
/// threads.
pub(crate) trait Tiles {
    /// All tiles zero.
    ///
    /// # Safety
    ///
    /// The processor must have the unit, the system must permit it, and there must be no other on this thread.
    unsafe fn configured(shapes: [Shape; TILES]) -> Self;

    /// Sets all numbers of a tile to zero.
    fn zero<const TILE: usize>(&mut self);

    /// Reads the rows of a tile, which lie `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// The rows must be there.
    unsafe fn load<const TILE: usize>(&mut self, from: *const u8, stride: usize);

    /// Writes the rows of a tile, `stride` bytes apart.
    ///
    /// # Safety
    ///
    /// There must be room for the rows.
    unsafe fn store<const TILE: usize>(&self, to: *mut u8, stride: usize);

    /// `c += a b` of signed bytes in i32. Rows of `b` have four numbers of each column together.
    fn multiply_bytes<const C: usize, const A: usize, const B: usize>(&mut self);

    /// `c += a b` of bf16 in f32. Rows of `b` have two numbers of each column together. Denormal numbers count as zero; products
    /// of even and of odd places are summed apart, then both are added to `c`.
    fn multiply_bf16<const C: usize, const A: usize, const B: usize>(&mut self);
}
