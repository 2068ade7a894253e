//! Counts the bytes that each owner uses of a shared memory limit. Leaves it to the callers to refuse work above the
//! limit.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes of one owner, included in a shared sum; subtracted when dropped.
#[derive(Debug)]
pub struct ByteAccount {
    used_bytes: Arc<AtomicUsize>,
    own_bytes: usize,
}

impl ByteAccount {
    /// An owner with no bytes yet. `used_bytes` is the sum over all owners.
    pub fn new(used_bytes: Arc<AtomicUsize>) -> ByteAccount {
        ByteAccount { used_bytes, own_bytes: 0 }
    }

    /// The bytes of this owner.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Sets the bytes of this owner.
    pub fn set(&mut self, bytes: usize) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.used_bytes.fetch_sub(self.own_bytes, Ordering::Relaxed);
        self.own_bytes = bytes;
    }
}

impl Drop for ByteAccount {
    fn drop(&mut self) {
        self.used_bytes.fetch_sub(self.own_bytes, Ordering::Relaxed);
    }
}
