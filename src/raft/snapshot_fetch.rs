//! A snapshot on its way from the leader to a voter that needs entries which the leader has trimmed (KIP-630).
//!
//! Owns both ends: the leader reads pieces of the file, and the voter asks for one piece after the other, writes them
//! into a partial file, and checks the whole file before it gets its name. All of it runs beside the metadata thread.
//! Leaves to the driver when a snapshot is fetched and how it replaces the log, and to the transport how a request
//! reaches the leader.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use uuid::Uuid;

use super::snapshot::{self, Snapshot, SnapshotError, SnapshotId};
use crate::{
    env::{BoxFuture, Disk, Env, File, Open, Tasks},
    types::{BrokerId, LeaderEpoch},
};

/// The largest piece of a snapshot in one response.
pub const MAX_PIECE_BYTES: usize = 1 << 20;
/// A piece that takes longer is asked for again.
const PIECE_LIMIT: Duration = Duration::from_secs(2);
/// A piece is asked for this often before the transfer fails.
const PIECE_TRIES: u32 = 3;
/// The wait before the next try, and after a failed transfer before the next one.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// A request for one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceRequest {
    /// The voter that fetches the snapshot, and its directory.
    pub replica: BrokerId,
    pub replica_directory: Uuid,
    /// The epoch of the leader that is asked.
    pub leader_epoch: LeaderEpoch,
    pub id: SnapshotId,
    /// The first byte.
    pub position: u64,
    pub max_bytes: usize,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The bytes of the whole snapshot.
    pub size: u64,
    pub position: u64,
    pub bytes: Bytes,
}

/// Why the leader has no piece.
#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    #[error("the epoch of the request is over")]
    FencedLeaderEpoch,
    #[error("the epoch of the request is not known")]
    UnknownLeaderEpoch,
    #[error("this node is not the leader")]
    NotLeader,
    #[error("there is no such snapshot")]
    NotFound,
    #[error("the position is outside of the snapshot")]
    OutOfRange,
    #[error("the snapshot cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The leader's response.
#[derive(Debug)]
pub struct PieceResponse {
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub piece: Result<Piece, PieceError>,
}

/// Why a voter has got no piece.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Another try is useless.
    #[error("the leader refuses the request: {0}")]
    Refused(String),
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// The snapshots of one other voter.
pub trait SnapshotSource: Send {
    /// Asks for a piece. It may take arbitrarily long; the future is dropped then.
    fn piece(&mut self, request: PieceRequest) -> BoxFuture<'_, Result<Piece, SourceError>>;
}

/// The snapshots of this node.
#[derive(Clone)]
pub(super) struct SnapshotFiles {
    pub(super) tasks: Tasks,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
}

impl SnapshotFiles {
    /// Reads a piece, on the blocking pool.
    pub(super) async fn piece(&self, request: PieceRequest) -> Result<Piece, PieceError> {
        let SnapshotFiles { disk, dir, .. } = self.clone();
        self.tasks.blocking("read a metadata snapshot", move || read_piece(&*disk, &dir, request)).await
    }
}

/// Apache: `KafkaRaftClient.handleFetchSnapshotRequest`. The snapshot of the format tool, which ends at offset 0, is
/// none that can be fetched.
fn read_piece(disk: &dyn Disk, dir: &Path, request: PieceRequest) -> Result<Piece, PieceError> {
    let PieceRequest { id, position, max_bytes, .. } = request;
    if id.end_offset <= 0 {
        return Err(PieceError::NotFound);
    }
    let file = disk.open(&dir.join(id.file_name()), Open::Read).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PieceError::NotFound,
        _ => PieceError::Io(error),
    })?;
    let size = file.len()?;
    let left = size.checked_sub(position).filter(|left| *left > 0).ok_or(PieceError::OutOfRange)?;
    let length = left.min(max_bytes.min(MAX_PIECE_BYTES) as u64) as usize;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, position)?;
    Ok(Piece { size, position, bytes: bytes.into() })
}

/// A transfer from the leader.
pub(super) struct SnapshotFetch {
    pub(super) env: Env,
    /// The directory of the metadata log.
    pub(super) dir: PathBuf,
    pub(super) own: BrokerId,
    pub(super) own_directory: Uuid,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) id: SnapshotId,
    /// Transfers of one process have different numbers: one that is given up may still write to its file.
    pub(super) attempt: u64,
}

impl SnapshotFetch {
    /// Fetches the snapshot. Its file is valid and durable when this returns.
    pub(super) async fn run(self, source: Option<Box<dyn SnapshotSource>>) -> anyhow::Result<Snapshot> {
        let (disk, dir, id) = (self.env.disk.clone(), self.dir.clone(), self.id);
        // An earlier transfer may have been complete when its leader lost its leadership.
        let present = self.env.tasks.blocking("read a metadata snapshot", move || snapshot::read(&*disk, &dir, id));
        if let Ok(snapshot) = present.await {
            return Ok(snapshot);
        }
        let mut source = source.context("the address of the leader is not known")?;
        let partial = self.dir.join(id.partial_file_name(self.attempt));
        let fetched = self.fetch_into(&partial, &mut *source).await;
        if fetched.is_err() {
            let disk = self.env.disk.clone();
            // If this fails, the next start removes the file.
            let remove = move || disk.remove_file(&partial);
            let _ = self.env.tasks.blocking("remove a partial snapshot", remove).await;
        }
        fetched
    }

    async fn fetch_into(&self, partial: &Path, source: &mut dyn SnapshotSource) -> anyhow::Result<Snapshot> {
        let (disk, path) = (self.env.disk.clone(), partial.to_owned());
        let create = move || disk.open(&path, Open::CreateNew);
        let file = self.env.tasks.blocking("create a partial snapshot", create).await?;
        let (mut position, mut size) = (0, None);
        while size.is_none_or(|size| position < size) {
            let piece = self.next_piece(position, source).await?;
            let end = position + piece.bytes.len() as u64;
            ensure!(piece.position == position && end > position, "the piece is not the one that was asked for");
            ensure!(end <= piece.size && size.is_none_or(|size| size == piece.size), "the snapshot has changed");
            size = Some(piece.size);
            let to = file.clone();
            let write = move || to.write_all_at(&piece.bytes, position);
            self.env.tasks.blocking("write a partial snapshot", write).await?;
            position = end;
        }
        let (disk, dir, partial, id) = (self.env.disk.clone(), self.dir.clone(), partial.to_owned(), self.id);
        let finish = move || finish(&*disk, &dir, &partial, id, &*file);
        Ok(self.env.tasks.blocking("finish a metadata snapshot", finish).await?)
    }

    async fn next_piece(&self, position: u64, source: &mut dyn SnapshotSource) -> anyhow::Result<Piece> {
        let request = PieceRequest {
            replica: self.own,
            replica_directory: self.own_directory,
            leader_epoch: self.leader_epoch,
            id: self.id,
            position,
            max_bytes: MAX_PIECE_BYTES,
        };
        let mut tries = 1;
        loop {
            let error = match self.env.within(PIECE_LIMIT, source.piece(request)).await {
                Some(Ok(piece)) => return Ok(piece),
                Some(Err(error @ SourceError::Refused(_))) => return Err(error.into()),
                Some(Err(SourceError::Failed(error))) => error,
                None => anyhow::anyhow!("no response within {PIECE_LIMIT:?}"),
            };
            if tries == PIECE_TRIES {
                return Err(error);
            }
            tries += 1;
            self.env.clock.sleep_until(self.env.clock.monotonic() + RETRY).await;
        }
    }
}

/// Checks the whole file, makes it durable, and gives it its name.
fn finish(
    disk: &dyn Disk,
    dir: &Path,
    partial: &Path,
    id: SnapshotId,
    file: &dyn File,
) -> Result<Snapshot, SnapshotError> {
    let snapshot = snapshot::read_file(disk, partial, id)?;
    file.sync_all()?;
    disk.rename(partial, &dir.join(id.file_name()))?;
    disk.sync_dir(dir)?;
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metadata::image::{MetadataImage, Provenance},
        sim::{SimDisk, SimNet, Simulation},
    };

    const ID: SnapshotId = SnapshotId { end_offset: 42, epoch: 3 };

    fn request(position: u64, max_bytes: usize) -> PieceRequest {
        PieceRequest { replica: 2, replica_directory: Uuid::nil(), leader_epoch: 1, id: ID, position, max_bytes }
    }

    /// The disk of a leader with one snapshot.
    fn leader() -> SimDisk {
        let disk = SimDisk::new(1);
        let provenance =
            Provenance { last_contained_offset: 41, last_contained_epoch: 3, last_contained_log_time_ms: 7 };
        let image = MetadataImage { provenance, ..MetadataImage::default() };
        snapshot::write(&disk, Path::new("/"), &image, None, 9, 7).unwrap();
        disk
    }

    #[test]
    fn a_piece_is_what_the_file_has_at_its_position() {
        let (disk, dir) = (leader(), Path::new("/"));
        let whole = disk.read(&dir.join(ID.file_name())).unwrap();
        let size = whole.len() as u64;
        for (position, max_bytes, length) in
            [(0, 10, 10), (5, 10, 10), (0, usize::MAX, whole.len()), (size - 1, 10, 1), (3, 0, 0)]
        {
            let piece = read_piece(&disk, dir, request(position, max_bytes)).unwrap();
            let bytes = Bytes::copy_from_slice(&whole[position as usize..][..length]);
            assert_eq!(piece, Piece { size, position, bytes });
        }
        for position in [size, size + 1, u64::MAX] {
            assert!(matches!(read_piece(&disk, dir, request(position, 10)), Err(PieceError::OutOfRange)));
        }
        for id in [SnapshotId { end_offset: 0, epoch: 0 }, SnapshotId { epoch: 4, ..ID }] {
            let request = PieceRequest { id, ..request(0, 10) };
            assert!(matches!(read_piece(&disk, dir, request), Err(PieceError::NotFound)));
        }
    }

    /// Serves a file in pieces of 50 bytes. Every other request fails, and one byte may be damaged.
    struct Flaky {
        disk: SimDisk,
        requests: u32,
        damaged: Option<u64>,
    }

    impl SnapshotSource for Flaky {
        fn piece(&mut self, request: PieceRequest) -> BoxFuture<'_, Result<Piece, SourceError>> {
            self.requests += 1;
            let piece = read_piece(&self.disk, Path::new("/"), PieceRequest { max_bytes: 50, ..request }).unwrap();
            let mut bytes = piece.bytes.to_vec();
            if let Some(byte) = self.damaged.and_then(|at| bytes.get_mut(at.checked_sub(piece.position)? as usize)) {
                *byte ^= 1;
            }
            let fails = self.requests % 2 == 1;
            Box::pin(async move {
                if fails {
                    return Err(SourceError::Failed(anyhow::anyhow!("cut")));
                }
                Ok(Piece { bytes: bytes.into(), ..piece })
            })
        }
    }

    #[test]
    fn a_snapshot_is_fetched_through_failures_and_a_damaged_one_gets_no_name() {
        let (leader, follower) = (leader(), SimDisk::new(2));
        let world = Simulation::new(1);
        let net = SimNet::new(&world);
        let run = |attempt, source: Option<Flaky>| {
            let env = world.start_node(2, follower.clone(), &net, 0);
            let (own, own_directory, leader_epoch) = (2, Uuid::nil(), 1);
            let fetch = SnapshotFetch { env, dir: "/".into(), own, own_directory, leader_epoch, id: ID, attempt };
            let source = source.map(|source| Box::new(source) as Box<dyn SnapshotSource>);
            let fetched = world.wait(2, "the transfer has ended", Duration::from_secs(60), fetch.run(source));
            world.crash(2);
            fetched
        };
        let source = |damaged| Some(Flaky { disk: leader.clone(), requests: 0, damaged });
        assert!(run(1, source(Some(70))).is_err());
        assert_eq!(follower.list(Path::new("/")).unwrap(), []);
        let fetched = run(2, source(None)).unwrap();
        assert_eq!((fetched.id, fetched.raft_index), (ID, Some(9)));
        follower.crash();
        // It is durable, so nothing is fetched again.
        assert_eq!(run(3, None).unwrap().id, ID);
        assert_eq!(follower.list(Path::new("/")).unwrap().len(), 1);
    }
}
