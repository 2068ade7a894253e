//! Errors of a log: faults of the disk, and why an append or a read is refused.

use std::{
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::types::{Offset, ProducerEpoch, ProducerId, TopicPartition, uuid_to_base64};

/// A fault of the disk or of its content. Never caused by a client.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A call to the operating system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb of the sentence "cannot … path".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Durable bytes have changed. They are neither served nor truncated.
    #[error("{} is corrupt at position {position}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Position in the file, in bytes.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// An earlier fault took the directory offline; only a restart brings it back.
    #[error("log directory {} is offline: {reason}", dir.display())]
    DirOffline {
        /// The log directory.
        dir: PathBuf,
        /// The first fault.
        reason: String,
    },
    /// The partition's log directory is missing: not among `log.dirs`, not mounted, emptied or replaced.
    #[error("its log directory {} is missing", directory_id.map_or_else(|| "(unknown)".to_owned(), uuid_to_base64))]
    DirMissing {
        /// `directory.id`, if it is known.
        directory_id: Option<Uuid>,
    },
    /// The partition's directory is missing, although a checkpoint of the log directory knows of its records.
    #[error("{} is gone, although it held records up to offset {offset}", path.display())]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// The partition's largest offset in a checkpoint.
        offset: Offset,
    },
    /// Another process uses the directory.
    #[error("log directory {} is in use by another process (it holds {})", dir.display(), dir.join(".lock").display())]
    Locked {
        /// The log directory.
        dir: PathBuf,
    },
    /// The partition, or the segment, was deleted in the meantime. Nothing is wrong with the disk.
    #[error("{} is deleted", path.display())]
    Deleted {
        /// Where it is, or was.
        path: PathBuf,
    },
    /// The broker is stopping and has closed the log. No change is accepted, since the clean-shutdown file says that
    /// the files are complete.
    #[error("{} is closed", path.display())]
    Closed {
        /// The partition's directory.
        path: PathBuf,
    },
    /// A file of the directory has an invalid content.
    #[error("{} is not valid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LogError {
    /// For `map_err`: makes the error "cannot `action` `path`".
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { action, path: path.to_owned(), source }
    }

    /// Whether the volume is merely full: nothing is lost, and space may become free.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if is_disk_full(source))
    }

    /// Whether space, file descriptors or memory ran short: the disk is not broken, and a retry may succeed.
    pub fn is_shortage(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if is_shortage(source))
    }

    /// Whether the process or the system has no file descriptor left.
    pub fn is_out_of_files(&self) -> bool {
        use rustix::io::Errno;
        let is_out = |error| matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE));
        matches!(self, LogError::Io { source, .. } if is_out(source))
    }

    /// Whether the log directory can no longer be trusted (`UnifiedLog.maybeHandleIOException`).
    ///
    /// A shortage is no fault. A failed sync always is one, since the dirty pages are lost; the exception is a lack of
    /// file descriptors when opening the file for it. A file that ends too early was truncated from outside: the device
    /// works.
    pub fn is_disk_fault(&self) -> bool {
        match self {
            LogError::Io { action: "sync", .. } => !self.is_out_of_files(),
            LogError::Io { source, .. } if source.kind() == io::ErrorKind::Unsupported => false,
            LogError::Io { source, .. } => !self.is_shortage() && source.kind() != io::ErrorKind::UnexpectedEof,
            LogError::Corrupt { .. }
            | LogError::DirOffline { .. }
            | LogError::DirMissing { .. }
            | LogError::Lost { .. }
            | LogError::Locked { .. }
            | LogError::Deleted { .. }
            | LogError::Closed { .. }
            | LogError::Invalid { .. } => false,
        }
    }
}

/// As [`LogError::is_shortage`].
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    is_disk_full(error) || matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM))
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Why a batch was not appended. Unless it is [`AppendError::Storage`], nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// I3, I4: the sequence number is not the next one.
    #[error(
        "out of order sequence number for producer {producer_id} in partition {partition}: {sequence} (incoming), {last_sequence} (current end)"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The partition.
        partition: TopicPartition,
        /// First sequence number of the batch.
        sequence: i32,
        /// Last known sequence number; -1 if there is none.
        last_sequence: i32,
    },
    /// I3: the producer has already written with a newer epoch.
    #[error(
        "epoch of producer {producer_id} in partition {partition} is {epoch}, which is smaller than the last seen epoch {current}"
    )]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The partition.
        partition: TopicPartition,
        /// Of the batch.
        epoch: ProducerEpoch,
        /// The last one seen.
        current: ProducerEpoch,
    },
    /// X7: a non-transactional batch of a producer that has an open transaction in this partition.
    #[error("expected transactional write from producer {producer_id} in partition {partition}")]
    InvalidTxnState {
        /// The producer.
        producer_id: ProducerId,
        /// The partition.
        partition: TopicPartition,
    },
    /// X6: a marker from an old transaction coordinator.
    #[error(
        "invalid coordinator epoch for producer {producer_id} in partition {partition}: {coordinator_epoch} (zombie), {current} (current)"
    )]
    TransactionCoordinatorFenced {
        /// The producer.
        producer_id: ProducerId,
        /// The partition.
        partition: TopicPartition,
        /// Of the marker.
        coordinator_epoch: i32,
        /// The last one seen.
        current: i32,
    },
    /// P5: the batch does not fit into a segment (`RECORD_LIST_TOO_LARGE`).
    #[error("a batch of {size_bytes} bytes exceeds the segment size of {segment_bytes} in partition {partition}")]
    LargerThanSegment {
        /// Of the batch.
        size_bytes: u64,
        /// `segment.bytes`.
        segment_bytes: i32,
        /// The partition.
        partition: TopicPartition,
    },
    /// The batches sent to a replica start before its log end offset, or are not in order.
    #[error("unexpected offset {offset} in append to {partition}, whose log ends at {log_end_offset}")]
    UnexpectedOffset {
        /// First offset sent.
        offset: Offset,
        /// Where the log ends.
        log_end_offset: Offset,
        /// The partition.
        partition: TopicPartition,
    },
    /// The bytes sent to a replica are not whole, valid batches.
    #[error("corrupt batch in append to {partition}: {reason}")]
    Corrupt {
        /// The partition.
        partition: TopicPartition,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed (`KAFKA_STORAGE_ERROR`).
    #[error(transparent)]
    Storage(#[from] LogError),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// F4: the offset is below the log start or above the log end.
    #[error("offset {offset} of {partition} is outside of {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// The requested offset.
        offset: Offset,
        /// The partition.
        partition: TopicPartition,
        /// First offset of the log.
        log_start_offset: Offset,
        /// End of the log.
        log_end_offset: Offset,
    },
    /// The disk failed, or its content is damaged.
    #[error(transparent)]
    Storage(#[from] LogError),
}
