//! Files and directories behind a trait. Owns the real disk; leaves the simulated one, which tears writes and loses
//! unsynced data, to `sim/disk.rs`.
//!
//! Calls block. Appends write to the page cache in the calling thread; fsync and reads that may wait for the disk must
//! run on the blocking pool (`tasks.rs`).
#![allow(clippy::disallowed_methods)] // These calls are allowed only here.

use std::{
    any::Any,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::Arc,
    time::SystemTime,
};

use crate::types::TimestampMs;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; created if it is missing, otherwise its content is kept.
    Create,
    /// For reading and writing; it must not exist yet.
    CreateNew,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The last component of the path. Names that are not UTF-8 are not listed: the broker never creates them.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Length in bytes; 0 for a directory.
    pub len: u64,
}

/// Space on the volume of a path, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The volume's size.
    pub total: u64,
    /// Bytes that an ordinary user may still write.
    pub usable: u64,
}

/// A volume.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;
    /// Moves a file or directory over whatever was at `to`. Durable only after [`Disk::sync_dir`] of the parent.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and its content.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether there is anything at `path`.
    fn exists(&self, path: &Path) -> bool;
    /// Time of the last change of a file's content or length, by the wall clock.
    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Makes creations, renames and removals in this directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes everything on the volume of `path` durable, even files of other processes: cheaper than many single syncs.
    fn sync_volume(&self, path: &Path) -> io::Result<()>;
    /// Holds an exclusive advisory lock on the file (created if missing) until the value is dropped; `WouldBlock` if
    /// another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>>;
    /// Space on the volume of `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// How many files and sockets this process may have open at a time.
    fn open_files_limit(&self) -> usize;

    /// Replaces a whole file so that a crash leaves the old content or the new one: temporary
    /// file, fsync, rename, fsync of the directory.
    fn write_atomically(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.replace(path, content)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }

    /// [`Disk::write_atomically`] without the last step: a crash may bring the old content back, but never a mixture.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = Path::new(&temporary);
        let file = self.open(temporary, Open::Create)?;
        file.set_len(0)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        self.rename(temporary, path)
    }
}

/// An open file. Positions are explicit: there is no cursor, so it may be shared freely.
pub trait File: Send + Sync + 'static {
    /// Reads up to `buffer.len()` bytes; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Writes the parts one after the other, in as few system calls as possible.
    fn write_all_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no content.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Truncates the file or extends it with zeros. It counts as modified even if it had that length already.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space on the volume for `length` bytes from `position` on, so that writing them cannot fail by a full
    /// disk. The file's length does not change; [`File::set_len`] releases the space after the new length.
    /// `Unsupported` if the file system cannot do that.
    fn reserve_space(&self, position: u64, length: u64) -> io::Result<()>;
    /// Makes content and length durable. An error is final: writes since the last success may be lost, and a second
    /// call would not report that.
    fn sync_data(&self) -> io::Result<()>;
    /// As [`File::sync_data`], for the metadata too.
    fn sync_all(&self) -> io::Result<()>;
    /// The descriptor, from which the kernel can copy; `None` for a simulated file.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Whether the range can probably be read without waiting for a device; only both ends are checked.
    fn is_cached(&self, position: u64, length: usize) -> bool {
        let _ = (position, length);
        true
    }

    /// Fills `buffer`, or fails with `UnexpectedEof`.
    fn read_exact_at(&self, mut buffer: &mut [u8], mut position: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            let read = self.read_at(buffer, position)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buffer = &mut buffer[read..];
            position += read as u64;
        }
        Ok(())
    }
}

/// The operating system's file systems.
pub struct SystemDisk;

struct SystemFile(std::fs::File);

impl Disk for SystemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        options.read(true);
        match how {
            Open::Read => &mut options,
            Open::ReadWrite => options.write(true),
            Open::Create => options.write(true).create(true).truncate(false),
            Open::CreateNew => options.write(true).create_new(true),
        };
        Ok(Arc::new(SystemFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Follows links: a log directory may be a link.
            let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs> {
        let modified = std::fs::metadata(path)?.modified()?;
        // A time before 1970 counts as 1970.
        let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(TimestampMs::try_from(since_epoch.as_millis()).unwrap_or(TimestampMs::MAX))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::fs::File::open(path)?.sync_all()
    }

    fn sync_volume(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(std::fs::File::open(path)?)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(std::fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    fn open_files_limit(&self) -> usize {
        super::open_files::limit()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, usable: stat.f_bavail * stat.f_frsize })
    }
}

impl SystemFile {
    fn write_slices_at(&self, mut rest: &mut [io::IoSlice<'_>], mut position: u64) -> io::Result<()> {
        const MOST_SLICES: usize = 64;
        io::IoSlice::advance_slices(&mut rest, 0); // Drops empty parts at the front.
        while !rest.is_empty() {
            let most = rest.len().min(MOST_SLICES);
            match rustix::io::pwritev(&self.0, &rest[..most], position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    position += written as u64;
                    io::IoSlice::advance_slices(&mut rest, written);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl File for SystemFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buffer, position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        // A batch has two parts, its header and its records: that needs no allocation.
        const FEW_PARTS: usize = 4;
        if parts.len() > FEW_PARTS {
            let mut slices: Vec<io::IoSlice<'_>> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
            return self.write_slices_at(&mut slices, position);
        }
        let mut slices = [io::IoSlice::new(&[]); FEW_PARTS];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = io::IoSlice::new(part);
        }
        self.write_slices_at(&mut slices[..parts.len()], position)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn reserve_space(&self, position: u64, length: u64) -> io::Result<()> {
        use rustix::{
            fs::{FallocateFlags, fallocate},
            io::Errno,
        };
        loop {
            return match fallocate(&self.0, FallocateFlags::KEEP_SIZE, position, length) {
                Err(Errno::INTR) => continue,
                Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::IO)) => Err(error.into()),
                // Not possible on this file system, for this range, or in this sandbox.
                Err(error) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
                Ok(()) => Ok(()),
            };
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn is_cached(&self, position: u64, length: usize) -> bool {
        let is_cached_at = |position| {
            let mut byte = [0u8];
            let mut slices = [io::IoSliceMut::new(&mut byte)];
            let read = rustix::io::preadv2(&self.0, &mut slices, position, rustix::io::ReadWriteFlags::NOWAIT);
            // File systems that do not support this return NOTSUP; such a range counts as cached.
            !matches!(read, Err(rustix::io::Errno::AGAIN))
        };
        length == 0 || (is_cached_at(position) && is_cached_at(position + length as u64 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectored_writes_land_in_order_and_skip_empty_parts() {
        let dir = tempfile::tempdir().unwrap();
        for count in [0, 1, 2, 4, 5, 200u8] {
            let file = SystemDisk.open(&dir.path().join(count.to_string()), Open::CreateNew).unwrap();
            let many: Vec<Vec<u8>> = (0..count).map(|i| vec![i; usize::from(i % 3)]).collect();
            let parts: Vec<&[u8]> = many.iter().map(Vec::as_slice).collect();
            file.write_all_vectored_at(&parts, 5).unwrap();
            let expected = many.concat();
            let mut read = vec![0; expected.len()];
            file.read_exact_at(&mut read, 5).unwrap();
            assert_eq!(read, expected);
            let end = if expected.is_empty() { 0 } else { 5 + expected.len() as u64 };
            assert_eq!(file.len().unwrap(), end);
            assert!(file.read_exact_at(&mut [0; 1], end).is_err());
        }
    }

    #[test]
    fn a_write_modifies_a_file_and_opening_or_syncing_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = SystemDisk.open(&path, Open::CreateNew).unwrap();
        let a_day_ago = SystemTime::now() - std::time::Duration::from_secs(86_400);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(a_day_ago).unwrap();
        let expected = a_day_ago.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        SystemDisk.open(&path, Open::Create).unwrap().sync_all().unwrap();
        assert_eq!(SystemDisk.modified_ms(&path).unwrap() as u128, expected);
        file.write_all_at(b"x", 0).unwrap();
        assert!(SystemDisk.modified_ms(&path).unwrap() as u128 > expected + 80_000_000);
    }

    #[test]
    fn room_is_kept_behind_the_end_until_the_length_is_set() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = SystemDisk.open(&path, Open::CreateNew).unwrap();
        let allocated = || std::fs::metadata(&path).unwrap().blocks() * 512;
        if file.reserve_space(0, 1 << 20).is_ok() {
            assert_eq!(file.len().unwrap(), 0);
            assert!(allocated() >= 1 << 20);
            file.set_len(0).unwrap();
            assert_eq!(allocated(), 0);
        }
    }

    #[test]
    fn a_lock_is_exclusive_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let held = SystemDisk.lock(&path).unwrap();
        assert_eq!(SystemDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        SystemDisk.lock(&path).unwrap();
    }
}
