//! Parallel loops on candle's barrier pool, so that one set of threads serves the quantised layers and our kernels.
//!
//! The loops must not be nested: a candle operation inside one would wait for the pool that runs it.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Mutex;

use candle_core::utils::barrier_pool;

/// Threads that run the loops.
pub fn threads() -> usize {
    candle_core::utils::get_num_threads()
}

/// Runs `work` for every index below `count`.
pub fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    match count {
        0 => {}
        1 => work(0),
        _ => barrier_pool().execute_chunked(count, |range| range.for_each(&work)),
    }
}

/// Collects `work(index)` for every index below `count`.
pub fn map<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    for_each(count, |index| {
        let result = work(index);
        // Nobody panics while holding the lock, so it cannot be poisoned.
        if let Ok(mut slot) = slots[index].lock() {
            *slot = Some(result);
        }
    });
    slots.into_iter().filter_map(|slot| slot.into_inner().ok().flatten()).collect()
}

/// Runs `work` on consecutive pieces of `data`, `length` elements each (the last may be shorter).
pub fn for_each_chunk<T: Send>(data: &mut [T], length: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    let whole = data.len();
    let parts = Parts::of(data);
    for_each(whole.div_ceil(length), |index| {
        // SAFETY: every index is run once, and pieces do not overlap.
        let piece = unsafe { parts.part(index * length..whole.min((index + 1) * length)) };
        work(index, piece);
    });
}

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

#[cfg(test)]
mod tests {
    #[test]
    fn results_keep_their_order() {
        assert_eq!(super::map(1000, |index| index * 2), (0..1000).map(|index| index * 2).collect::<Vec<_>>());
        let mut data = vec![0; 103];
        super::for_each_chunk(&mut data, 10, |index, chunk| chunk.fill(index));
        assert!(data.iter().enumerate().all(|(at, &value)| value == at / 10));
    }
}
