//! One buffer that the pieces of a loop write, each a part of its own.

use std::marker::PhantomData;
use std::ops::Range;

/// A slice whose parts are written by the pieces of one loop.
pub struct Parts<'a, T> {
    data: *mut T,
    length: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it lends parts of a slice that it borrows exclusively, of which whoever asks for them promises that no two overlap.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Takes the slice apart.
    pub fn of(slice: &'a mut [T]) -> Self {
        Self { data: slice.as_mut_ptr(), length: slice.len(), slice: PhantomData }
    }

    /// Lends one part.
    ///
    /// # Safety
    ///
    /// No two parts that are lent at the same time may overlap.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that parts do not overlap")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "a part of a slice");
        // SAFETY: the range lies within the slice, and nobody else has any of it by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(range.start), range.len()) }
    }
}

/// A matrix, row-major, whose columns are written by the pieces of one loop.
pub struct Columns<'a> {
    data: *mut f32,
    rows: usize,
    columns: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it borrows the matrix exclusively, and whoever writes promises that no two write the same columns.
unsafe impl Sync for Columns<'_> {}

impl<'a> Columns<'a> {
    /// Takes `[rows, columns]` apart.
    pub fn of(matrix: &'a mut [f32], columns: usize) -> Self {
        Self { data: matrix.as_mut_ptr(), rows: matrix.len() / columns, columns, matrix: PhantomData }
    }

    /// The first row's number in a column; the others' lie as far apart as there are columns.
    pub fn start(&self, column: usize) -> *mut f32 {
        assert!(column < self.columns, "a column of a matrix");
        // SAFETY: the column lies within the first row, if there are rows.
        unsafe { self.data.add(column) }
    }

    /// Writes the part of `values` that lies within the row.
    ///
    /// # Safety
    ///
    /// Nothing else may look at these columns meanwhile.
    pub unsafe fn write(&self, row: usize, column: usize, values: &[f32]) {
        assert!(row < self.rows && column < self.columns, "a place in a matrix");
        let count = values.len().min(self.columns - column);
        // SAFETY: `count` numbers from the column on lie within the row, and are the caller's alone.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.data.add(row * self.columns + column), count) };
    }
}
