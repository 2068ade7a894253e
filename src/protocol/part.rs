//! What an answer is made of: bytes in memory, and ranges of files that the kernel copies to the
//! socket. Large record data is never moved into an answer's buffer.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::env::File;

/// A piece of an answer, in the order of the wire.
#[derive(Clone)]
pub enum Part {
    /// In memory.
    Bytes(Bytes),
    /// On disk; the range is below the end that was readable when it was taken, and stays so.
    File {
        /// Where from. It may be opened only now; deleting its segment does no harm for `file.delete.delay.ms`.
        file: Arc<dyn File>,
        /// First byte.
        position: u64,
        /// Count of bytes.
        length: usize,
    },
}

impl Part {
    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { length, .. } => *length,
        }
    }

    /// Bytes in memory.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { .. } => 0,
        }
    }

    /// Whether the piece adds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Part::File { position, length, .. } => write!(f, "File({position}+{length})"),
        }
    }
}
