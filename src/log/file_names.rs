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

/// `LogFileUtils.filenamePrefixFromOffset`.
pub(crate) fn file_name(base_offset: Offset, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// Where a partition's files are; a rename for deletion moves it under readers' feet.
pub(crate) struct PartitionDir {
    path: RwLock<PathBuf>,
    /// It was renamed, and will be removed.
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

    /// The path, which stays true for as long as the answer lives: for opening a file, and no longer.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, PathBuf> {
        lock::read(&self.path)
    }

    /// Moves the directory out of the way, to be removed. Nobody opens a file by the old path meanwhile: another
    /// partition of that name may soon be there. If the disk has no room for the new name, the directory is removed at
    /// once. Returns whether it is still there.
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

/// Lengths of a segment's files as the directory lists them; `None` where there is no such file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FileLengths(pub(crate) [Option<u64>; 4]);

impl FileLengths {
    pub(crate) fn of(&self, kind: FileKind) -> Option<u64> {
        self.0[kind as usize]
    }
}

/// Whether `name` is one of a segment's files: its base offset and kind.
pub(crate) fn parse_file_name(name: &str) -> Option<(Offset, FileKind)> {
    let (stem, extension) = name.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.extension() == extension)?;
    Some((parse_offset(stem)?, kind))
}

/// The 20 digits that a file name starts with.
pub(crate) fn parse_offset(stem: &str) -> Option<Offset> {
    (stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit())).then(|| stem.parse().ok())?
}
