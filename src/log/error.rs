//! What can go wrong with a log: faults of the disk, and answers to whoever appends or reads.

use std::{
    io,
    path::{Path, PathBuf},
};

use uuid::Uuid;

use crate::types::{Offset, ProducerEpoch, ProducerId, TopicPartition, uuid_to_base64};

/// A fault of the disk or of what is on it. Never the client's doing.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A call to the operating system failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb of the sentence "cannot … path".
        action: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes that were durable are not what was written. They are neither served nor cut off.
    #[error("{} is corrupt at position {position}: {reason}", path.display())]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in it, in bytes.
        position: u64,
        /// What is wrong.
        reason: String,
    },
    /// An earlier fault took the directory out of service; only a restart brings it back.
    #[error("log directory {} is offline: {reason}", dir.display())]
    DirOffline {
        /// The log directory.
        dir: PathBuf,
        /// The first fault.
        reason: String,
    },
    /// The partition is in a log directory that is not there: not among `log.dirs`, not mounted, emptied or replaced.
    #[error("its log directory {} is not there", directory_id.map_or_else(|| "(not noted)".to_owned(), uuid_to_base64))]
    DirMissing {
        /// `directory.id`, where it was noted.
        directory_id: Option<Uuid>,
    },
    /// The directory of the partition is gone from its log directory, which remembers its records.
    #[error("{} is gone, although it held records up to offset {offset}", path.display())]
    Lost {
        /// Where it was.
        path: PathBuf,
        /// The largest offset that a checkpoint has of it.
        offset: Offset,
    },
    /// Another process uses the directory.
    #[error("log directory {} is in use by another process (it holds {})", dir.display(), dir.join(".lock").display())]
    Locked {
        /// The log directory.
        dir: PathBuf,
    },
    /// The partition, or the segment, was deleted meanwhile. Nothing is wrong with the disk.
    #[error("{} is deleted", path.display())]
    Deleted {
        /// Where it is, or was.
        path: PathBuf,
    },
    /// The broker stops and has closed the log: nothing is appended behind the mark of a clean shutdown.
    #[error("{} is closed", path.display())]
    Closed {
        /// The partition's directory.
        path: PathBuf,
    },
    /// A file of the directory says something that cannot be.
    #[error("{} is not valid: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl LogError {
    /// For `map_err`: "cannot `action` `path`".
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::Io { action, path: path.to_owned(), source }
    }

    /// Whether the volume is merely full: nothing is lost, and room may come back.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, LogError::Io { source, .. } if is_disk_full(source))
    }

    /// Whether something ran short that is not the disk's fault, and may be there again: room, file descriptors,
    /// memory.
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
    /// A shortage is no fault. A failed sync is one for whatever reason, since the dirty pages are gone; only opening
    /// the file or directory for it may run short of descriptors. A file that ends too early was cut by somebody
    /// else: the device answered.
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

/// Why a batch was not appended. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// I3, I4: the sequence number is not the next one.
    #[error(
        "out of order sequence number for producer {producer_id} in partition {partition}: {sequence} (incoming), {last_sequence} (current end)"
    )]
    OutOfOrderSequence {
        /// Who.
        producer_id: ProducerId,
        /// Where.
        partition: TopicPartition,
        /// First sequence of the batch.
        sequence: i32,
        /// Last sequence known; -1 for none.
        last_sequence: i32,
    },
    /// I3: a newer incarnation of the producer has written already.
    #[error(
        "epoch of producer {producer_id} in partition {partition} is {epoch}, which is smaller than the last seen epoch {current}"
    )]
    InvalidProducerEpoch {
        /// Who.
        producer_id: ProducerId,
        /// Where.
        partition: TopicPartition,
        /// Of the batch.
        epoch: ProducerEpoch,
        /// Last seen.
        current: ProducerEpoch,
    },
    /// X7: a plain batch of a producer that has a transaction open here.
    #[error("expected transactional write from producer {producer_id} in partition {partition}")]
    InvalidTxnState {
        /// Who.
        producer_id: ProducerId,
        /// Where.
        partition: TopicPartition,
    },
    /// X6: a marker from a transaction coordinator that has been replaced.
    #[error(
        "invalid coordinator epoch for producer {producer_id} in partition {partition}: {coordinator_epoch} (zombie), {current} (current)"
    )]
    TransactionCoordinatorFenced {
        /// Who.
        producer_id: ProducerId,
        /// Where.
        partition: TopicPartition,
        /// Of the marker.
        coordinator_epoch: i32,
        /// Last seen.
        current: i32,
    },
    /// P5: the batch does not fit into a segment (`RECORD_LIST_TOO_LARGE`).
    #[error("a batch of {size_bytes} bytes exceeds the segment size of {segment_bytes} in partition {partition}")]
    LargerThanSegment {
        /// Of the batch.
        size_bytes: u64,
        /// `segment.bytes`.
        segment_bytes: i32,
        /// Where.
        partition: TopicPartition,
    },
    /// A replica was sent batches that lie before its end, or not in order.
    #[error("unexpected offset {offset} in append to {partition}, whose log ends at {log_end_offset}")]
    UnexpectedOffset {
        /// First offset sent.
        offset: Offset,
        /// Where the log ends.
        log_end_offset: Offset,
        /// Where.
        partition: TopicPartition,
    },
    /// A replica was sent bytes that are not whole, valid batches.
    #[error("corrupt batch in append to {partition}: {reason}")]
    Corrupt {
        /// Where.
        partition: TopicPartition,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed (`KAFKA_STORAGE_ERROR`).
    #[error(transparent)]
    Storage(#[from] LogError),
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// F4.
    #[error("offset {offset} of {partition} is outside of {log_start_offset}..={log_end_offset}")]
    OffsetOutOfRange {
        /// Asked for.
        offset: Offset,
        /// Where.
        partition: TopicPartition,
        /// First offset there is.
        log_start_offset: Offset,
        /// End of the log.
        log_end_offset: Offset,
    },
    /// The disk failed, or what it holds is damaged.
    #[error(transparent)]
    Storage(#[from] LogError),
}
