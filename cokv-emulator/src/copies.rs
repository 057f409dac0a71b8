//! Copies into shared memory that a thread asks for and waits for later (`cp.async`).

use std::collections::VecDeque;

/// Numbers of 16 bytes that a thread asked to be copied, in groups, those of an open group last.
pub struct Copies {
    /// Whether they are done at once, or only when they are waited for. A GPU may do either.
    eager: bool,
    open: Vec<Copy>,
    groups: VecDeque<Vec<Copy>>,
}

struct Copy {
    to: *mut [u8; 16],
    from: *const [u8; 16],
}

impl Copies {
    pub fn new(eager: bool) -> Self {
        Self { eager, open: Vec::new(), groups: VecDeque::new() }
    }

    /// # Safety
    ///
    /// Both places may be used until the copy has been waited for or is forgotten.
    pub unsafe fn ask(&mut self, to: *mut [u8; 16], from: *const [u8; 16]) {
        let copy = Copy { to, from };
        if self.eager {
            // SAFETY: the caller's.
            unsafe { copy.run() };
        } else {
            self.open.push(copy);
        }
    }

    pub fn commit(&mut self) {
        self.groups.push_back(std::mem::take(&mut self.open));
    }

    /// All groups but the latest `pending` are done after it.
    pub fn wait(&mut self, pending: usize) {
        while self.groups.len() > pending {
            for copy in self.groups.pop_front().into_iter().flatten() {
                // SAFETY: who asked for it vouched for the places.
                unsafe { copy.run() };
            }
        }
    }
}

impl Copy {
    unsafe fn run(&self) {
        unsafe { self.to.write(self.from.read()) }
    }
}
