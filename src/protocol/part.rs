//! The parts of a response: bytes in memory, and ranges of files that the kernel copies to the socket. Record data are
//! never copied into the buffer of a response.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::env::File;

/// One part of a response.
#[derive(Clone)]
pub enum Part {
    /// In memory.
    Bytes(Bytes),
    /// A range of a file on disk. It was readable when the part was made, and stays readable.
    File {
        /// The file. It may be opened only when it is sent: a deleted segment's file exists for `file.delete.delay.ms`.
        file: Arc<dyn File>,
        /// Position of the first byte.
        position: u64,
        /// Number of bytes.
        length: usize,
    },
}

impl Part {
    /// The number of bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { length, .. } => *length,
        }
    }

    /// The number of bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.len(),
            Part::File { .. } => 0,
        }
    }

    /// Whether the part has no bytes.
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
