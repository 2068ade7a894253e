//! The files of a segment: their kinds, their names, and the directory they are in.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
};

use super::error::is_disk_full;
use crate::{
    env::{Disk, lock},
    types::Offset,
};

/// The files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FileKind {
    Log,
    Index,
    TimeIndex,
    TxnIndex,
}

impl FileKind {
    pub(crate) const ALL: [FileKind; 4] = [FileKind::Log, FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex];

    pub(crate) fn extension(self) -> &'static str {
        match self {
            FileKind::Log => "log",
            FileKind::Index => "index",
            FileKind::TimeIndex => "timeindex",
            FileKind::TxnIndex => "txnindex",
        }
    }
}

/// How far a segment is that a cleaner writes (Apache: `LogFileUtils`). Its files have this suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// It is part of the log.
    InUse,
    /// It is being written; a start removes it.
    Cleaned,
    /// It is complete and takes the place of other segments; a start completes that.
    Swap,
}

impl Stage {
    pub(crate) const ALL: [Stage; 3] = [Stage::InUse, Stage::Cleaned, Stage::Swap];

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Stage::InUse => "",
            Stage::Cleaned => ".cleaned",
            Stage::Swap => ".swap",
        }
    }

    /// The name of a segment's file at this stage.
    pub(crate) fn file_name(self, base_offset: Offset, kind: FileKind) -> String {
        file_name(base_offset, kind.extension()) + self.suffix()
    }
}

/// `LogFileUtils.filenamePrefixFromOffset`.
pub(crate) fn file_name(base_offset: Offset, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// The path of a partition's directory. A deletion renames the directory while readers use it.
pub(crate) struct PartitionDir {
    path: RwLock<PathBuf>,
    /// Whether it was renamed for deletion.
    deleted: AtomicBool,
}

impl PartitionDir {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(PartitionDir { path: RwLock::new(path), deleted: AtomicBool::new(false) })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.read().clone()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// The path, which stays valid while the guard is held. Hold it only to open a file.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, PathBuf> {
        lock::read(&self.path)
    }

    /// Renames the directory to `to`, for a later removal. Nobody can open a file by the old path in the meantime:
    /// another partition may soon use that path. If the disk has no space for the new name, the directory is removed at
    /// once. Returns whether it still exists.
    pub(crate) fn delete(&self, disk: &dyn Disk, to: PathBuf) -> io::Result<bool> {
        let mut path = lock::write(&self.path);
        let is_there = match disk.rename(&path, &to) {
            Ok(()) => true,
            Err(error) if is_disk_full(&error) => {
                disk.remove_dir_all(&path)?;
                false
            }
            Err(error) => return Err(error),
        };
        *path = to;
        self.deleted.store(true, Ordering::Release);
        Ok(is_there)
    }
}

/// Lengths of a segment's files as the directory lists them; `None` if there is no such file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileLengths(pub(crate) [Option<u64>; 4]);

impl FileLengths {
    pub(crate) fn of(&self, kind: FileKind) -> Option<u64> {
        self.0[kind as usize]
    }
}

/// Base offset and kind of the segment file `name`; `None` for other files.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, FileKind)> {
    let (stem, extension) = name.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    Some((parse_offset(stem)?, kind))
}

/// Parses the 20 digits at the start of a file name.
pub(crate) fn parse_offset(stem: &str) -> Option<Offset> {
    (stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit())).then(|| stem.parse().ok())?
}
