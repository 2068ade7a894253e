//! What one owner takes of a memory that many share. It counts; who is refused when there is too much is decided
//! elsewhere.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes of one owner among those of all; given back when it is dropped.
#[derive(Debug)]
pub struct ByteAccount {
    used_bytes: Arc<AtomicUsize>,
    own_bytes: usize,
}

impl ByteAccount {
    /// An owner that has nothing yet. `used_bytes` is the sum over all.
    pub fn new(used_bytes: Arc<AtomicUsize>) -> ByteAccount {
        ByteAccount { used_bytes, own_bytes: 0 }
    }

    /// What the owner has.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// The owner has so many from now on.
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
