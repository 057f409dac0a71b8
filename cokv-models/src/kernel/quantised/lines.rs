//! Where quants lie: side by side in regions of huge pages.
//!
//! A step of decoding reads every weight. In pages of 4 KiB the processor spends part of that on finding them, and fetches ahead
//! only to the end of each. One matrix of a small model fills no huge page, so that several share a region.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Line;
use crate::kernel::memory;

/// Lines of a region, unless one weight asks for more.
const REGION: usize = (32 << 20) / size_of::<Line>();

/// Lines of one weight.
pub(super) struct Lines {
    region: Arc<Region>,
    range: Range<usize>,
}

struct Region {
    start: *mut Line,
    layout: Layout,
}

// SAFETY: a region is memory, of which each of its `Lines` has a part of its own.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The region that has room, while anyone uses it, and the lines of it that are taken.
static OPEN: Mutex<(Weak<Region>, usize)> = Mutex::new((Weak::new(), 0));

impl Lines {
    /// As many lines of zeros.
    pub fn zeros(count: usize) -> Self {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = match open.0.upgrade().filter(|_| count <= REGION - open.1) {
            Some(region) => {
                let range = open.1..open.1 + count;
                open.1 = range.end;
                Self { region, range }
            }
            None => {
                let region = Arc::new(Region::new(count.max(REGION)));
                // A weight that fills a region leaves the open one to others.
                if count < REGION / 2 {
                    *open = (Arc::downgrade(&region), count);
                }
                Self { region, range: 0..count }
            }
        };
        // SAFETY: the range lies within the region, and nobody else has any of it.
        unsafe { lines.region.start.add(lines.range.start).write_bytes(0, count) };
        lines
    }
}

impl Region {
    fn new(lines: usize) -> Self {
        let bytes = (lines * size_of::<Line>()).next_multiple_of(memory::HUGE_PAGE);
        let layout = Layout::from_size_align(bytes, memory::HUGE_PAGE).expect("fewer bytes than there are addresses");
        // SAFETY: there is at least one huge page.
        let start = unsafe { alloc(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        memory::prefer_huge_pages(start, bytes);
        Self { start: start.cast(), layout }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last who had a part of it is gone.
        unsafe { dealloc(self.start.cast(), self.layout) };
    }
}

impl Deref for Lines {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: the range lies within the region, is initialised, and only changes through `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.region.start.add(self.range.start), self.range.len()) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above; ranges of a region do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.region.start.add(self.range.start), self.range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_zero_and_nobody_elses() {
        let sizes = [1, 1000, 0, REGION / 3, REGION + 1, REGION / 3, REGION / 3, 7];
        let mut all = sizes.map(Lines::zeros);
        for (mark, lines) in (1..).zip(&mut all) {
            assert!(lines.iter().all(|line| line.0 == [0; 64]));
            lines.fill(Line([mark; 64]));
        }
        for (mark, (lines, size)) in (1..).zip(all.iter().zip(sizes)) {
            assert_eq!(lines.len(), size);
            assert!(lines.as_ptr().addr().is_multiple_of(64));
            assert!(lines.iter().all(|line| line.0 == [mark; 64]));
        }
    }
}
