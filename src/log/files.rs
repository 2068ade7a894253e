//! Limits the open file handles of segments, over all logs.
//!
//! A segment holds its handles itself; this ring only knows which segments have one. If there are too many, it closes
//! one that was not used since the last round (the clock algorithm). A reader that holds a handle keeps the file open
//! as long as it needs it; responses that are being sent hold a bounded number of handles.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{file_names::FileKind, segment::Segment};
use crate::env::lock::lock;

type Ring = VecDeque<(Weak<Segment>, FileKind)>;

/// How many files to close at a time when no descriptor is left.
const CLOSED_AT_ONCE: usize = 8;

/// The ring of open handles.
pub struct FileCache {
    capacity: usize,
    ring: Mutex<Ring>,
    most_pinned: usize,
    pinned: AtomicUsize,
}

fn close_down_to(ring: &mut Ring, count: usize) {
    // Two rounds suffice: the first clears every "used" bit.
    let mut steps = 2 * ring.len();
    while ring.len() > count && steps > 0 {
        steps -= 1;
        let Some((weak, kind)) = ring.pop_front() else { break };
        let Some(segment) = weak.upgrade() else { continue };
        if segment.close_if_unused(kind) {
            continue;
        }
        ring.push_back((weak, kind));
    }
}

impl FileCache {
    /// Allows about `open_files` at a time: three quarters for files that stay open between uses, the others for
    /// responses that are being sent.
    pub fn new(open_files: usize) -> Self {
        let most_pinned = open_files.max(4) / 4;
        FileCache {
            capacity: open_files.max(4) - most_pinned,
            ring: Mutex::default(),
            most_pinned,
            pinned: AtomicUsize::new(0),
        }
    }

    /// Counts a file that a response keeps open; [`FileCache::unpin`] must follow. `false` if there are too many.
    pub(crate) fn pin(&self) -> bool {
        let more = |pinned| (pinned < self.most_pinned).then_some(pinned + 1);
        self.pinned.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn unpin(&self) {
        self.pinned.fetch_sub(1, Ordering::AcqRel);
    }

    /// Adds the file of `kind` that `segment` has just opened, and closes others above the limit.
    pub(crate) fn opened(&self, segment: Weak<Segment>, kind: FileKind) {
        let mut ring = lock(&self.ring);
        ring.push_back((segment, kind));
        close_down_to(&mut ring, self.capacity);
    }

    /// Closes some files, if no descriptor is left. Returns whether it has closed any.
    pub(crate) fn close_some(&self) -> bool {
        let mut ring = lock(&self.ring);
        let before = ring.len();
        close_down_to(&mut ring, before.saturating_sub(CLOSED_AT_ONCE));
        ring.len() < before
    }

    /// Number of handles in the ring.
    pub fn len(&self) -> usize {
        lock(&self.ring).len()
    }

    /// Whether no handle is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
