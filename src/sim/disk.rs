//! A disk in memory. At a crash it does what real disks do: it loses unsynced data wholly, partly or in the wrong
//! order, and tears writes at sector boundaries. It also fails on demand.
//!
//! Synced data survives: a file's content after `sync_data`, a directory's entries after `sync_dir`. After a failed
//! sync the dirty data counts as clean, as in Linux: a second sync succeeds and saves nothing. Space reserved for a
//! file survives crashes, as with a journal. Files have modification times if the disk was given a clock.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::BorrowedFd,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{SimClock, locked};
use crate::{
    env::{
        Clock, Disk, File, Open,
        disk::{DirEntry, Space},
    },
    types::TimestampMs,
};

/// The disk writes a sector either whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Number of crashes; file handles from before a crash no longer work.
    life: AtomicU64,
    hold: Mutex<Hold>,
    hold_changed: Condvar,
}

/// State of a device that does not finish syncs for now.
#[derive(Default)]
struct Hold {
    is_held: bool,
    waiting: usize,
}

struct State {
    root: Arc<Node>,
    random: SplitMix,
    faults: Faults,
    capacity_bytes: u64,
    used_bytes: u64,
    locks: BTreeSet<PathBuf>,
    syncs: u64,
    clock: Option<SimClock>,
    cannot_reserve_space: bool,
}

/// The calls that will fail.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Only syncs, writes and reads of files that were opened below this directory fail and count. Empty: all.
    pub below: PathBuf,
    /// The n-th sync from now on (1 is the next).
    pub fail_sync: Option<u32>,
    /// The n-th write from now on.
    pub fail_write: Option<u32>,
    /// The n-th read from now on.
    pub fail_read: Option<u32>,
    /// How many more files can be opened; after that no descriptor is left (EMFILE) until some are closed or the faults
    /// are set again.
    pub fail_open: Option<u32>,
    /// Directories have no space for a longer name (ENOSPC).
    pub no_space_for_names: bool,
    /// How many more changes and syncs, of files and names, take place. All later ones fail, as if the process had
    /// ended there; a crash or kill must follow.
    pub end_after: Option<u32>,
}

impl Faults {
    fn count_change(&mut self) -> io::Result<()> {
        match &mut self.end_after {
            Some(0) => Err(io::Error::other("the process has ended")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fails if this is the call that must fail: a call for the file at `path`, counted in the field `of_kind`.
    fn count(&mut self, path: &Path, of_kind: fn(&mut Faults) -> &mut Option<u32>) -> io::Result<()> {
        if !path.starts_with(&self.below) {
            return Ok(());
        }
        let fault = of_kind(self);
        match fault {
            Some(1) => {
                *fault = None;
                Err(io::Error::other("injected I/O error"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

enum Node {
    Dir(Mutex<Dir>),
    File(Mutex<FileState>),
}

type Entries = BTreeMap<String, Arc<Node>>;

#[derive(Default)]
struct Dir {
    current: Entries,
    durable: Entries,
    /// The entries after each change since the last sync: a crash leaves one of these states, or the durable one.
    history: Vec<Entries>,
}

impl Dir {
    fn sync(&mut self) {
        self.durable = self.current.clone();
        self.history.clear();
    }

    fn change<T>(&mut self, change: impl FnOnce(&mut Entries) -> T) -> T {
        let result = change(&mut self.current);
        self.history.push(self.current.clone());
        result
    }
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

#[derive(Default)]
struct FileState {
    current: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    modified_ms: TimestampMs,
    durable_modified_ms: TimestampMs,
    /// Space is reserved up to here, if that is above the length.
    reserved_to: u64,
}

impl FileState {
    fn change(&mut self, change: Change, now_ms: TimestampMs) {
        Self::apply(&mut self.current, &change);
        self.changes.push(change);
        self.modified_ms = now_ms;
    }

    fn sync(&mut self) {
        self.changes.clear();
        self.durable_modified_ms = self.modified_ms;
        self.durable = self.current.clone();
    }

    fn apply(content: &mut Vec<u8>, change: &Change) {
        match change {
            Change::SetLen(len) => content.resize(*len as usize, 0),
            Change::Write(position, bytes) => {
                let end = *position as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*position as usize..end].copy_from_slice(bytes);
            }
        }
    }

    /// Keeps a random part of the changes since the last sync.
    fn crash(&mut self, random: &mut SplitMix) {
        let mut left = std::mem::take(&mut self.durable);
        let changes = std::mem::take(&mut self.changes);
        match random.below(4) {
            0 => self.modified_ms = self.durable_modified_ms,
            1 => changes.iter().for_each(|change| Self::apply(&mut left, change)),
            2 => {
                let kept = random.below(changes.len() as u64 + 1) as usize;
                changes[..kept].iter().for_each(|change| Self::apply(&mut left, change));
                if let Some(Change::Write(position, bytes)) = changes.get(kept) {
                    let torn = random.below(bytes.len() as u64 + 1) as usize;
                    Self::apply(&mut left, &Change::Write(*position, bytes[..torn].to_vec()));
                }
            }
            // Some sectors were written; the length was, and unwritten sectors read as zeros.
            _ => changes.iter().for_each(|change| Self::apply_some_sectors(&mut left, change, random)),
        }
        self.current = left.clone();
        self.durable = left;
        self.durable_modified_ms = self.modified_ms;
    }

    fn apply_some_sectors(content: &mut Vec<u8>, change: &Change, random: &mut SplitMix) {
        let Change::Write(position, bytes) = change else { return Self::apply(content, change) };
        let end = *position as usize + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        let mut at = 0;
        while at < bytes.len() {
            let sector_end = (*position as usize + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
            let part = (sector_end - *position as usize).min(bytes.len());
            if random.below(2) == 0 {
                content[*position as usize + at..*position as usize + part].copy_from_slice(&bytes[at..part]);
            }
            at = part;
        }
    }
}

/// A small random number generator (splitmix64); the seed is its whole state.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl SimDisk {
    /// An empty disk without a size limit; `seed` determines what crashes do.
    pub fn new(seed: u64) -> Self {
        let state = State {
            root: Arc::new(Node::Dir(Mutex::default())),
            random: SplitMix(seed),
            faults: Faults::default(),
            capacity_bytes: u64::MAX,
            used_bytes: 0,
            locks: BTreeSet::new(),
            syncs: 0,
            clock: None,
            cannot_reserve_space: false,
        };
        SimDisk {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                life: AtomicU64::new(0),
                hold: Mutex::default(),
                hold_changed: Condvar::new(),
            }),
        }
    }

    /// While held, syncs of files wait, as on a device that does not respond.
    pub fn block_syncs(&self, is_held: bool) {
        locked(&self.inner.hold).is_held = is_held;
        self.inner.hold_changed.notify_all();
    }

    /// Number of threads that wait in a sync.
    pub fn waiting_syncs(&self) -> usize {
        locked(&self.inner.hold).waiting
    }

    fn wait_while_held(&self) {
        let mut hold = locked(&self.inner.hold);
        hold.waiting += 1;
        while hold.is_held {
            hold = self.inner.hold_changed.wait(hold).expect("the lock of the simulated disk");
        }
        hold.waiting -= 1;
    }

    /// From now on modification times come from this clock; before that they are 0.
    pub fn set_clock(&self, clock: SimClock) {
        locked(&self.inner.state).clock = Some(clock);
    }

    fn now_ms(&self) -> TimestampMs {
        locked(&self.inner.state).clock.as_ref().map_or(0, SimClock::now_ms)
    }

    /// Sets the calls that fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        locked(&self.inner.state).faults = faults;
    }

    /// Sets how many bytes can be written in total (ENOSPC above).
    pub fn set_capacity(&self, bytes: u64) {
        locked(&self.inner.state).capacity_bytes = bytes;
    }

    /// Lets the disk take only this many more bytes than it has now; `None` for no limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        let mut state = locked(&self.inner.state);
        state.capacity_bytes = bytes.map_or(u64::MAX, |bytes| state.used_bytes.saturating_add(bytes));
    }

    /// Makes the file system unable to reserve space.
    pub fn cannot_reserve_space(&self) {
        locked(&self.inner.state).cannot_reserve_space = true;
    }

    /// Number of syncs of files and volumes so far, including failed ones.
    pub fn syncs(&self) -> u64 {
        locked(&self.inner.state).syncs
    }

    /// The end of the process that uses the disk: handles and locks become invalid, and everything written stays.
    pub fn kill(&self) {
        self.inner.life.fetch_add(1, Ordering::AcqRel);
        let mut state = locked(&self.inner.state);
        state.locks.clear();
        state.faults = Faults::default();
    }

    /// A power failure: unsynced data is lost, kept or torn. Handles and locks become invalid.
    pub fn crash(&self) {
        self.inner.life.fetch_add(1, Ordering::AcqRel);
        let mut state = locked(&self.inner.state);
        state.locks.clear();
        state.faults = Faults::default();
        let root = state.root.clone();
        crash_node(&root, &mut state.random);
    }

    /// Damages a byte of a file, durably.
    pub fn flip_byte(&self, path: &Path, position: usize) -> io::Result<()> {
        match &*self.find(path)? {
            Node::File(file) => {
                let mut file = locked(file);
                file.current[position] ^= 0x55;
                file.durable = file.current.clone();
                file.changes.clear();
                Ok(())
            }
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Takes a file descriptor, if one is left. Dropping it gives it back.
    fn take_descriptor(&self) -> io::Result<Descriptor> {
        let state = &mut *locked(&self.inner.state);
        match &mut state.faults.fail_open {
            Some(0) => return Err(rustix::io::Errno::MFILE.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(Descriptor(self.clone()))
    }

    fn root(&self) -> Arc<Node> {
        locked(&self.inner.state).root.clone()
    }

    fn find(&self, path: &Path) -> io::Result<Arc<Node>> {
        let mut node = self.root();
        for name in names(path) {
            let next = match &*node {
                Node::Dir(dir) => locked(dir).current.get(&name).cloned(),
                Node::File(_) => None,
            };
            node = next.ok_or_else(|| not_found(path))?;
        }
        Ok(node)
    }

    /// The directory that contains `path`, and the name of `path` in it.
    fn parent(&self, path: &Path) -> io::Result<(Arc<Node>, String)> {
        let mut all = names(path);
        let name = all.pop().ok_or_else(|| not_found(path))?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name))
    }

    fn in_parent<T>(&self, path: &Path, act: impl FnOnce(&mut Dir, String) -> io::Result<T>) -> io::Result<T> {
        let (parent, name) = self.parent(path)?;
        match &*parent {
            Node::Dir(dir) => act(&mut locked(dir), name),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    let normal = path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str().map(str::to_owned),
        _ => None,
    });
    normal.collect()
}

fn crash_node(node: &Node, random: &mut SplitMix) {
    match node {
        Node::File(file) => locked(file).crash(random),
        Node::Dir(dir) => {
            let mut dir = locked(dir);
            let at = random.below(dir.history.len() as u64 + 1) as usize;
            // A journal keeps the order: some number of changes survive, from the first on.
            dir.current = if at == 0 { dir.durable.clone() } else { dir.history[at - 1].clone() };
            dir.durable = dir.current.clone();
            dir.history.clear();
            for child in dir.current.values() {
                crash_node(child, random);
            }
        }
    }
}

fn sync_node(node: &Node) {
    match node {
        Node::File(file) => locked(file).sync(),
        Node::Dir(dir) => {
            let mut dir = locked(dir);
            dir.sync();
            dir.current.values().for_each(|child| sync_node(child));
        }
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let descriptor = self.take_descriptor()?;
        let node = self.in_parent(path, |dir, name| match (dir.current.get(&name), how) {
            (Some(_), Open::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), _) => Ok(node.clone()),
            (None, Open::Read | Open::ReadWrite) => Err(not_found(path)),
            (None, Open::Create | Open::CreateNew) => {
                locked(&self.inner.state).faults.count_change()?;
                let file = FileState { modified_ms: self.now_ms(), ..FileState::default() };
                let node = Arc::new(Node::File(Mutex::new(file)));
                dir.change(|entries| entries.insert(name, node.clone()));
                Ok(node)
            }
        })?;
        if matches!(*node, Node::Dir(_)) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(SimFile {
            _descriptor: descriptor,
            disk: self.clone(),
            path: path.to_owned(),
            node,
            life: self.inner.life.load(Ordering::Acquire),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.exists(from) {
            locked(&self.inner.state).faults.count_change()?;
        }
        let (source, source_name) = self.parent(from)?;
        let (target, target_name) = self.parent(to)?;
        let (Node::Dir(source_dir), Node::Dir(target_dir)) = (&*source, &*target) else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        if target_name.len() > source_name.len()
            && self.exists(from)
            && locked(&self.inner.state).faults.no_space_for_names
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if Arc::ptr_eq(&source, &target) {
            let mut dir = locked(source_dir);
            let node = dir.current.get(&source_name).cloned().ok_or_else(|| not_found(from))?;
            dir.change(|entries| {
                entries.remove(&source_name);
                entries.insert(target_name, node);
            });
            return Ok(());
        }
        let node = locked(source_dir).change(|entries| entries.remove(&source_name)).ok_or_else(|| not_found(from))?;
        locked(target_dir).change(|entries| entries.insert(target_name, node));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.exists(path) {
            locked(&self.inner.state).faults.count_change()?;
        }
        self.in_parent(path, |dir, name| match dir.current.get(&name).map(|node| matches!(**node, Node::File(_))) {
            None => Err(not_found(path)),
            Some(false) => Err(io::ErrorKind::IsADirectory.into()),
            Some(true) => {
                dir.change(|entries| entries.remove(&name));
                Ok(())
            }
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        if self.exists(path) {
            locked(&self.inner.state).faults.count_change()?;
        }
        self.in_parent(path, |dir, name| match dir.change(|entries| entries.remove(&name)) {
            Some(_) => Ok(()),
            None => Err(not_found(path)),
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut node = self.root();
        for name in names(path) {
            let next = match &*node {
                Node::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Node::Dir(dir) => {
                    let mut dir = locked(dir);
                    match dir.current.get(&name) {
                        Some(child) => child.clone(),
                        None => {
                            let child = Arc::new(Node::Dir(Mutex::default()));
                            dir.change(|entries| entries.insert(name, child.clone()));
                            child
                        }
                    }
                }
            };
            node = next;
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let _descriptor = self.take_descriptor()?;
        match &*self.find(path)? {
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            Node::Dir(dir) => Ok(locked(dir)
                .current
                .iter()
                .map(|(name, node)| match &**node {
                    Node::Dir(_) => DirEntry { name: name.clone(), is_dir: true, len: 0 },
                    Node::File(file) => {
                        DirEntry { name: name.clone(), is_dir: false, len: locked(file).current.len() as u64 }
                    }
                })
                .collect()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        self.find(path).is_ok()
    }

    fn modified_ms(&self, path: &Path) -> io::Result<TimestampMs> {
        match &*self.find(path)? {
            Node::File(file) => Ok(locked(file).modified_ms),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let _descriptor = self.take_descriptor()?;
        match &*self.find(path)? {
            Node::File(file) => Ok(locked(file).current.clone()),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        locked(&self.inner.state).faults.count_change()?;
        let _descriptor = self.take_descriptor()?;
        match &*self.find(path)? {
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            Node::Dir(dir) => {
                locked(dir).sync();
                Ok(())
            }
        }
    }

    fn sync_volume(&self, path: &Path) -> io::Result<()> {
        let _descriptor = self.take_descriptor()?;
        self.find(path)?;
        {
            let mut state = locked(&self.inner.state);
            state.faults.count_change()?;
            state.syncs += 1;
            state.faults.count(path, |faults| &mut faults.fail_sync)?;
        }
        sync_node(&self.root());
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.open(path, Open::Create)?;
        if !locked(&self.inner.state).locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            disk: self.clone(),
            path: path.to_owned(),
            life: self.inner.life.load(Ordering::Acquire),
        }))
    }

    fn open_files_limit(&self) -> usize {
        usize::MAX
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = locked(&self.inner.state);
        Ok(Space { total: state.capacity_bytes, usable: state.capacity_bytes.saturating_sub(state.used_bytes) })
    }
}

struct SimLock {
    disk: SimDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        if self.life == self.disk.inner.life.load(Ordering::Acquire) {
            locked(&self.disk.inner.state).locks.remove(&self.path);
        }
    }
}

/// One of the process's file descriptors.
struct Descriptor(SimDisk);

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(left) = &mut locked(&self.0.inner.state).faults.fail_open {
            *left += 1;
        }
    }
}

struct SimFile {
    _descriptor: Descriptor,
    disk: SimDisk,
    /// Where it was opened.
    path: PathBuf,
    node: Arc<Node>,
    life: u64,
}

impl SimFile {
    fn with<T>(
        &self,
        fault: impl FnOnce(&mut State) -> io::Result<()>,
        act: impl FnOnce(&mut FileState) -> T,
    ) -> io::Result<T> {
        if self.life != self.disk.inner.life.load(Ordering::Acquire) {
            return Err(io::Error::other("a handle from before the crash"));
        }
        fault(&mut locked(&self.disk.inner.state))?;
        match &*self.node {
            Node::File(file) => Ok(act(&mut locked(file))),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Writes as many of `bytes` as the capacity allows, as a real disk that fills up in the middle of a write.
    fn write(&self, bytes: Vec<u8>, position: u64) -> io::Result<()> {
        let wanted = bytes.len() as u64;
        let kept = self.with(|_| Ok(()), |file| file.reserved_to.saturating_sub(position).min(wanted))?;
        let mut room = wanted;
        self.with(
            |state| {
                state.faults.count_change()?;
                state.faults.count(&self.path, |faults| &mut faults.fail_write)?;
                let taken = (wanted - kept).min(state.capacity_bytes.saturating_sub(state.used_bytes));
                state.used_bytes += taken;
                room = kept + taken;
                Ok(())
            },
            |_| (),
        )?;
        let now_ms = self.disk.now_ms();
        let change = Change::Write(position, bytes[..room as usize].to_vec());
        self.with(|_| Ok(()), |file| file.change(change, now_ms))?;
        if room < wanted { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(
            |state| state.faults.count(&self.path, |faults| &mut faults.fail_read),
            |file| {
                let from = file.current.len().min(position as usize);
                let read = buffer.len().min(file.current.len() - from);
                buffer[..read].copy_from_slice(&file.current[from..from + read]);
                read
            },
        )
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.write(bytes.to_vec(), position)
    }

    fn write_all_vectored_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.write(parts.concat(), position)
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|_| Ok(()), |file| file.current.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let now_ms = self.disk.now_ms();
        let given_back = self.with(
            |state| {
                state.faults.count_change()?;
                state.faults.count(&self.path, |faults| &mut faults.fail_write)
            },
            |file| {
                file.change(Change::SetLen(len), now_ms);
                std::mem::take(&mut file.reserved_to).saturating_sub(len)
            },
        )?;
        self.with(
            |state| {
                state.used_bytes -= given_back;
                Ok(())
            },
            |_| (),
        )
    }

    fn reserve_space(&self, position: u64, length: u64) -> io::Result<()> {
        let kept = self.with(|_| Ok(()), |file| file.reserved_to.max(file.current.len() as u64))?;
        let wanted = (position + length).saturating_sub(kept);
        self.with(
            |state| {
                state.faults.count_change()?;
                state.faults.count(&self.path, |faults| &mut faults.fail_write)?;
                if state.cannot_reserve_space {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                if wanted > state.capacity_bytes.saturating_sub(state.used_bytes) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                state.used_bytes += wanted;
                Ok(())
            },
            |file| file.reserved_to = file.reserved_to.max(position + length),
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.wait_while_held();
        let failed = std::cell::RefCell::new(Ok(()));
        self.with(
            |state| {
                state.faults.count_change()?;
                state.syncs += 1;
                *failed.borrow_mut() = state.faults.count(&self.path, |faults| &mut faults.fail_sync);
                Ok(())
            },
            |file| match &*failed.borrow() {
                Ok(()) => file.sync(),
                // The pages are marked clean and never written: the data stays lost.
                Err(_) => file.changes.clear(),
            },
        )?;
        failed.into_inner()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_stays_and_the_rest_may_go() {
        let mut lost = 0;
        let mut torn = 0;
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            disk.create_dir_all(Path::new("/d")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            let path = Path::new("/d/f");
            let file = disk.open(path, Open::CreateNew).unwrap();
            file.write_all_at(&[1; 1000], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_all_at(&[2; 1000], 1000).unwrap();
            disk.open(Path::new("/d/unsynced"), Open::CreateNew).unwrap();
            disk.crash();
            assert!(file.len().is_err(), "handles do not survive");
            let content = disk.read(path).unwrap();
            assert_eq!(content[..1000], [1; 1000]);
            lost += usize::from(content.len() == 1000);
            torn += usize::from(content.len() > 1000 && content[1000..] != [2; 1000]);
        }
        assert!(lost > 20 && torn > 20, "{lost} {torn}");
    }

    #[test]
    fn a_failed_sync_loses_the_data_and_the_next_one_does_not_say_so() {
        let disk = SimDisk::new(1);
        let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        disk.set_faults(Faults { fail_sync: Some(1), ..Faults::default() });
        assert!(file.sync_data().is_err());
        disk.crash();
        assert_eq!(disk.read(Path::new("/f")).unwrap(), b"");
    }

    #[test]
    fn without_descriptors_nothing_is_opened_and_what_is_open_works() {
        let disk = SimDisk::new(1);
        disk.set_faults(Faults { fail_open: Some(1), ..Faults::default() });
        let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
        let error = disk.open(Path::new("/g"), Open::CreateNew).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
        assert!(!disk.exists(Path::new("/g")));
        file.write_all_at(b"x", 0).unwrap();
        disk.set_faults(Faults::default());
        assert_eq!(disk.read(Path::new("/f")).unwrap(), b"x");
    }

    #[test]
    fn a_full_disk_takes_a_part() {
        let disk = SimDisk::new(1);
        disk.set_capacity(10);
        let file = disk.open(Path::new("/f"), Open::CreateNew).unwrap();
        assert_eq!(file.write_all_at(&[7; 16], 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.read(Path::new("/f")).unwrap(), [7; 10]);
    }
}
