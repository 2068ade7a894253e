//! The files of a segment: their kinds, their names, and the directory they are in.

use std::{
    path::PathBuf,
    sync::{Arc, RwLock},
};

use crate::types::Offset;

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
pub(crate) struct PartitionDir(RwLock<PathBuf>);

impl PartitionDir {
    pub(crate) fn new(path: PathBuf) -> Arc<Self> {
        Arc::new(PartitionDir(RwLock::new(path)))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.read().map(|path| path.clone()).unwrap_or_default()
    }

    pub(crate) fn moved_to(&self, path: PathBuf) {
        if let Ok(mut current) = self.0.write() {
            *current = path;
        }
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
