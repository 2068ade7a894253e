//! Open file handles of segments, bounded over all logs.
//!
//! A segment holds its handles itself; this ring only knows who has one and, when there are too many,
//! takes one back from whoever has not used it since the hand last passed (the clock algorithm).
//! A reader that holds the handle keeps the file open as long as it needs it; answers that are being sent
//! hold a bounded part of them.

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

/// Files closed together when no descriptor is left.
const CLOSED_AT_ONCE: usize = 8;

/// The ring of open handles.
pub struct FileCache {
    capacity: usize,
    ring: Mutex<Ring>,
    most_pinned: usize,
    pinned: AtomicUsize,
}

fn close_down_to(ring: &mut Ring, count: usize) {
    // Two rounds suffice: the first clears every mark.
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
    /// At most about `open_files` at a time: three quarters between uses, the others for answers that are being sent.
    pub fn new(open_files: usize) -> Self {
        let most_pinned = open_files.max(4) / 4;
        FileCache {
            capacity: open_files.max(4) - most_pinned,
            ring: Mutex::default(),
            most_pinned,
            pinned: AtomicUsize::new(0),
        }
    }

    /// Counts a file that an answer keeps open, to be followed by [`FileCache::unpin`]; `false` where there are
    /// enough of them.
    pub(crate) fn pin(&self) -> bool {
        let more = |pinned| (pinned < self.most_pinned).then_some(pinned + 1);
        self.pinned.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub(crate) fn unpin(&self) {
        self.pinned.fetch_sub(1, Ordering::AcqRel);
    }

    /// Notes that `segment` has just opened its file of `kind`, and closes others beyond the bound.
    pub(crate) fn opened(&self, segment: Weak<Segment>, kind: FileKind) {
        let mut ring = lock(&self.ring);
        ring.push_back((segment, kind));
        close_down_to(&mut ring, self.capacity);
    }

    /// For when no descriptor is left: closes some files. Returns whether there were any.
    pub(crate) fn close_some(&self) -> bool {
        let mut ring = lock(&self.ring);
        let before = ring.len();
        close_down_to(&mut ring, before.saturating_sub(CLOSED_AT_ONCE));
        ring.len() < before
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
