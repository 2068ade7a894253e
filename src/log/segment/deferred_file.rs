//! The `.log` file of a segment for a later read: a response may refer to hundreds of files, and needs a descriptor
//! only for the one that is being sent.

use std::{io, os::fd::BorrowedFd, sync::OnceLock};

use super::*;

/// Opens the file for each use. From the first use of its descriptor on it keeps the file open, if the limit of files
/// for responses allows. Otherwise it has no descriptor, and the sender must read the file.
struct DeferredFile {
    segment: Arc<Segment>,
    pinned: OnceLock<PinnedFile>,
}

/// A file that counts among those that responses keep open.
struct PinnedFile {
    ctx: Arc<LogContext>,
    file: Arc<dyn File>,
}

impl Drop for PinnedFile {
    fn drop(&mut self) {
        self.ctx.files.unpin();
    }
}

impl Segment {
    /// The `.log` file, which needs no descriptor until it is used. Its use fails if the segment's files were removed
    /// before.
    pub(crate) fn deferred_log_file(self: &Arc<Segment>) -> Arc<dyn File> {
        Arc::new(DeferredFile { segment: self.clone(), pinned: OnceLock::new() })
    }
}

impl DeferredFile {
    fn file(&self) -> io::Result<Arc<dyn File>> {
        if let Some(pinned) = self.pinned.get() {
            return Ok(pinned.file.clone());
        }
        self.segment.log_file().map_err(|error| match error {
            LogError::Io { source, .. } => source,
            error => io::Error::other(error),
        })
    }

    fn pin(&self) {
        let ctx = &self.segment.ctx;
        if !ctx.files.pin() {
            return;
        }
        match self.segment.log_file() {
            // If two threads get here at once, dropping the second value also gives back its count.
            Ok(file) => _ = self.pinned.set(PinnedFile { ctx: ctx.clone(), file }),
            Err(_) => ctx.files.unpin(),
        }
    }
}

impl File for DeferredFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file()?.read_at(buffer, position)
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file()?.write_all_at(bytes, position)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.file()?.write_all_vectored_at(parts, position)
    }

    fn len(&self) -> io::Result<u64> {
        self.file()?.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file()?.set_len(len)
    }

    fn reserve_space(&self, position: u64, length: u64) -> io::Result<()> {
        self.file()?.reserve_space(position, length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file()?.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file()?.sync_all()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        if self.pinned.get().is_none() {
            self.pin();
        }
        self.pinned.get()?.file.fd()
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        // If it cannot be opened there is nothing to wait for: the read will return the error.
        self.file().map_or(true, |file| file.is_cached(position, length))
    }
}
