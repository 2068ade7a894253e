//! Open file handles of segments, bounded over all logs.
//!
//! A segment holds its handles itself; this ring only knows who has one and, when there are too many,
//! takes one back from whoever has not used it since the hand last passed (the clock algorithm).
//! A reader that holds the handle keeps the file open as long as it needs it.

use std::{
    collections::VecDeque,
    sync::{Mutex, Weak},
};

use super::{context::lock, file_names::FileKind, segment::Segment};

/// The ring of open handles.
pub struct FileCache {
    capacity: usize,
    ring: Mutex<VecDeque<(Weak<Segment>, FileKind)>>,
}

impl FileCache {
    /// Keeps at most about `capacity` files open between uses.
    pub fn new(capacity: usize) -> Self {
        FileCache { capacity: capacity.max(4), ring: Mutex::default() }
    }

    /// Notes that `segment` has just opened its file of `kind`, and closes others beyond the bound.
    pub(crate) fn opened(&self, segment: Weak<Segment>, kind: FileKind) {
        let mut ring = lock(&self.ring);
        ring.push_back((segment, kind));
        // Two rounds suffice: the first clears every mark.
        let mut steps = 2 * ring.len();
        while ring.len() > self.capacity && steps > 0 {
            steps -= 1;
            let Some((weak, kind)) = ring.pop_front() else { break };
            let Some(segment) = weak.upgrade() else { continue };
            if segment.close_if_unused(kind) {
                continue;
            }
            ring.push_back((weak, kind));
        }
    }

    /// Handles in the ring.
    pub fn len(&self) -> usize {
        lock(&self.ring).len()
    }

    /// Whether no handle is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
