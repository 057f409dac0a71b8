//! Where weights lie: side by side in regions of huge pages.
//!
//! A step of decoding reads every weight. In pages of 4 KiB the processor spends part of that on finding them, and fetches ahead
//! only to the end of each. One matrix of a small model fills no huge page, so that several share a region.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use half::{bf16, f16};

use super::{memory, pool};

/// Bytes of a region, unless one weight asks for more.
const REGION: usize = 32 << 20;
/// Bytes between the beginnings of two weights: what the widest register loads in one go.
const LINE: usize = 64;

/// What bytes of zeros may stand for.
///
/// # Safety
///
/// Zeros must be a valid value, nothing may have to be dropped, and no more than [`LINE`] bytes be asked for as alignment.
pub unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: numbers, of which zeros are one.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f16 {}
// SAFETY: as above.
unsafe impl Plain for bf16 {}
// SAFETY: as of its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// An array in huge pages.
pub struct Huge<T: Plain> {
    region: Arc<Region>,
    /// Of the first, in bytes of the region.
    start: usize,
    len: usize,
    of: PhantomData<T>,
}

struct Region {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: a region is memory, of which each array has a part of its own.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The region that has room, while anyone uses it, and the bytes of it that are taken.
static OPEN: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

impl<T: Plain> Huge<T> {
    /// As many zeros.
    pub fn zeros(len: usize) -> Self {
        const { assert!(align_of::<T>() <= LINE) };
        let bytes = (len * size_of::<T>()).next_multiple_of(LINE);
        let (region, start) = place(bytes);
        // SAFETY: the bytes lie within the region, nobody else has any of them, and nothing is said of what they hold.
        let fresh: &mut [MaybeUninit<u8>] =
            unsafe { std::slice::from_raw_parts_mut(region.start.add(start).cast(), bytes) };
        // The system finds and clears memory when it is first touched, which takes longer than reading what will lie there.
        pool::for_each_chunk(fresh, memory::HUGE_PAGE, |_, bytes| bytes.fill(MaybeUninit::new(0)));
        Self { region, start, len, of: PhantomData }
    }

    /// Whatever the iterator gives, in its order.
    pub fn collect(numbers: impl ExactSizeIterator<Item = T>) -> Self {
        let mut array = Self::zeros(numbers.len());
        array.iter_mut().zip(numbers).for_each(|(place, number)| *place = number);
        array
    }
}

/// A region, and where in it as many bytes are nobody's.
fn place(bytes: usize) -> (Arc<Region>, usize) {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(region) = open.0.upgrade().filter(|_| bytes <= REGION - open.1) {
        let start = open.1;
        open.1 += bytes;
        return (region, start);
    }
    let region = Arc::new(Region::new(bytes.max(REGION)));
    // A weight that fills a region leaves the open one to others.
    if bytes < REGION / 2 {
        *open = (Arc::downgrade(&region), bytes);
    }
    (region, 0)
}

impl Region {
    fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(memory::HUGE_PAGE);
        let layout = Layout::from_size_align(bytes, memory::HUGE_PAGE).expect("fewer bytes than there are addresses");
        // SAFETY: there is at least one huge page.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        memory::prefer_huge_pages(start, bytes);
        Self { start, layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last who had a part of it is gone.
        unsafe { dealloc(self.start, self.layout) };
    }
}

impl<T: Plain> Deref for Huge<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the array lies within the region, aligned, is initialised, and only changes through `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.region.start.add(self.start).cast(), self.len) }
    }
}

impl<T: Plain> DerefMut for Huge<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above; arrays of a region do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.region.start.add(self.start).cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Plain + PartialEq>(zero: T, marks: [T; 8]) {
        let region = REGION / size_of::<T>();
        let sizes = [1, 1000, 0, region / 3, region + 1, region / 3, region / 3, 7];
        let mut all = sizes.map(Huge::<T>::zeros);
        for (mark, array) in marks.iter().zip(&mut all) {
            assert!(array.iter().all(|number| *number == zero));
            array.fill(*mark);
        }
        for (mark, (array, size)) in marks.iter().zip(all.iter().zip(sizes)) {
            assert_eq!(array.len(), size);
            assert!(array.as_ptr().addr().is_multiple_of(LINE));
            assert!(array.iter().all(|number| number == mark));
        }
    }

    #[test]
    fn arrays_are_zero_and_nobody_elses() {
        check(0.0, [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        check(f16::ZERO, [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0].map(f16::from_f32));
    }

    #[test]
    fn numbers_are_collected_in_their_order() {
        assert_eq!(Huge::collect((0..100).map(|i| i as f32))[..], (0..100).map(|i| i as f32).collect::<Vec<_>>());
    }
}
