//! Snapshots of the metadata: when one is written and the log trimmed, and how one comes from the leader to a node that
//! needs entries which the leader has trimmed.
//!
//! Owns the state of these transfers on both sides. Leaves the format to `snapshot.rs`, the requests for pieces to
//! `snapshot_fetch.rs`, and when a node needs a snapshot to raft.

use super::*;
use crate::raft::{
    snapshot_fetch::{self, SnapshotFetch},
    voters::conf_state,
};

/// A failed snapshot is retried after this time. Until then the log is not trimmed; nothing else is affected.
pub(super) const RETRY: Duration = Duration::from_secs(60);
/// The leader waits this long for the next request of a voter that fetches a snapshot. Then the transfer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A snapshot that another voter fetches from this leader.
struct Outgoing {
    id: SnapshotId,
    index: u64,
    /// The transfer has failed if the voter asks for nothing until then.
    until: Duration,
}

/// A snapshot that this node fetches from the leader.
struct Incoming {
    attempt: u64,
    leader: BrokerId,
    epoch: LeaderEpoch,
    /// raft gets this message when the snapshot is durable. There is none if this node is an observer.
    message: Option<Message>,
    /// When it is dropped, the transfer is given up.
    _cancel: oneshot::Sender<()>,
}

/// See the head of the file.
#[derive(Default)]
pub(super) struct Snapshots {
    /// The raft index of the newest snapshot.
    pub(super) last_index: u64,
    /// `MetadataStorage::bytes_written` at that snapshot.
    bytes_at_last: u64,
    /// `MetadataStorage::bytes_written` at the snapshot that is being written now.
    pub(super) running: Option<u64>,
    /// No snapshot is tried before this time, because the last one failed.
    next_at: Duration,
    /// The voters that fetch a snapshot from this leader.
    outgoing: BTreeMap<BrokerId, Outgoing>,
    /// The snapshot that this node fetches.
    incoming: Option<Incoming>,
    /// The number of snapshots that this node has begun to fetch.
    attempts: u64,
    /// A snapshot that is fetched and durable, for the next `Ready`.
    pub(super) fetched: Option<Box<Snapshot>>,
}

impl Snapshots {
    /// The newest snapshot ends with this entry.
    pub(super) fn since(last_index: u64) -> Self {
        Snapshots { last_index, ..Snapshots::default() }
    }
}

impl Driver {
    /// Starts a snapshot if enough bytes were written since the last one. The blocking pool writes it, and the driver
    /// continues meanwhile.
    pub(super) fn maybe_snapshot(&mut self) {
        if self.snapshots.running.is_some()
            || self.events.is_none()
            || self.node.store().bytes_written() - self.snapshots.bytes_at_last
                < self.options.max_bytes_between_snapshots
            || self.env.clock.monotonic() < self.snapshots.next_at
        {
            return;
        }
        let Some((index, _)) = self.node.store().entry_ending_at(self.applied_offset()) else { return };
        if index <= self.snapshots.last_index {
            return;
        }
        self.snapshots.running = Some(self.node.store().bytes_written());
        let fetched = self.snapshots.outgoing.values().map(|outgoing| outgoing.id).collect();
        self.store.save(&self.committed);
        let voters = self.node.store().voters_at(self.applied_offset()).clone();
        let image = self.committed.clone();
        let (disk, dir, now_ms) = (self.env.disk.clone(), self.options.dir.clone(), self.env.clock.now_ms());
        let write = move || {
            let id = snapshot::write(&*disk, &dir, &image, Some(&voters), index, now_ms)?;
            snapshot::delete_older(&*disk, &dir, id, &fetched)
        };
        let tasks = self.env.tasks.clone();
        self.send_after("metadata snapshot", async move {
            Event::SnapshotDone(index, tasks.blocking("write a metadata snapshot", write).await)
        });
    }

    /// Trims the log to the previous snapshot, so that the newest snapshot may be damaged without loss. If the snapshot
    /// failed, the log grows and the next start takes longer, but the broker need not stop.
    pub(super) fn on_snapshot_done(&mut self, index: u64, written: io::Result<()>) -> Result<(), Fatal> {
        self.snapshots.bytes_at_last = match (self.snapshots.running.take(), &written) {
            (Some(bytes), Ok(())) => bytes,
            _ => self.snapshots.bytes_at_last,
        };
        if let Err(error) = written.and_then(|()| self.trim(index)) {
            tracing::error!(%error, "the metadata snapshot failed and will be tried again later");
            self.snapshots.next_at = self.env.clock.monotonic() + RETRY;
        }
        // The log may have started a new segment.
        self.keep_reserve()
    }

    fn trim(&mut self, index: u64) -> io::Result<()> {
        if index <= self.snapshots.last_index {
            // A snapshot of the leader was installed meanwhile.
            return Ok(());
        }
        let previous = std::mem::replace(&mut self.snapshots.last_index, index);
        let store = self.node.mut_store();
        store.note_snapshot(index);
        store.compact(previous)
    }

    /// A message may name the snapshot that the voter must fetch.
    pub(super) fn note_named_snapshot(&mut self, to: BrokerId, message: &Message) {
        if let Some(id) = message.snapshot.as_ref().and_then(|snapshot| SnapshotId::from_bytes(&snapshot.data)) {
            let index = message.get_snapshot().get_metadata().index;
            let until = self.env.clock.monotonic() + PATIENCE;
            self.snapshots.outgoing.insert(to, Outgoing { id, index, until });
        }
    }

    /// Whether another voter may have a piece of a snapshot (Apache: `validateLeaderOnlyRequest`).
    pub(super) fn permit_piece(&mut self, request: PieceRequest) -> SnapshotPermission {
        let epoch = self.node.epoch();
        let permission = match request.leader_epoch.cmp(&epoch) {
            std::cmp::Ordering::Less => Err(PieceError::FencedLeaderEpoch),
            std::cmp::Ordering::Greater => Err(PieceError::UnknownLeaderEpoch),
            std::cmp::Ordering::Equal if !self.node.is_leader() => Err(PieceError::NotLeader),
            std::cmp::Ordering::Equal => Ok(()),
        };
        if permission.is_ok()
            && let Some(outgoing) =
                self.snapshots.outgoing.get_mut(&request.replica).filter(|outgoing| outgoing.id == request.id)
        {
            outgoing.until = self.env.clock.monotonic() + PATIENCE;
        }
        (self.node.leader(), epoch, permission)
    }

    /// Tells raft of transfers that have failed, so that it tries again: the message may be lost, or the voter has
    /// ended.
    pub(super) fn end_silent_transfers(&mut self, now: Duration) {
        let node = &mut self.node;
        self.snapshots.outgoing.retain(|voter, outgoing| {
            if outgoing.until <= now {
                node.snapshot_failed(*voter, outgoing.index);
            }
            node.is_sending_snapshot(*voter, outgoing.index)
        });
    }

    /// Begins to fetch the snapshot that the leader has named, with a message of raft or to an observer. raft gets the
    /// message when the snapshot is durable.
    pub(super) fn fetch_snapshot(
        &mut self,
        leader: BrokerId,
        epoch: LeaderEpoch,
        id: SnapshotId,
        message: Option<Message>,
    ) {
        if self.snapshots.incoming.as_ref().is_some_and(|incoming| (incoming.leader, incoming.epoch) == (leader, epoch))
        {
            // The leader has become impatient, or it has a newer snapshot. It keeps the one that is being fetched.
            return;
        }
        self.snapshots.attempts += 1;
        let (cancel, cancelled) = oneshot::channel();
        let fetch = SnapshotFetch {
            env: self.env.clone(),
            dir: self.options.dir.clone(),
            own: self.options.identity.node_id,
            own_directory: self.options.identity.directory_id,
            leader_epoch: epoch,
            id,
            attempt: self.snapshots.attempts,
        };
        tracing::info!(
            leader,
            snapshot = id.file_name(),
            "fetching a metadata snapshot: the leader has trimmed its log"
        );
        let (attempt, clock) = (self.snapshots.attempts, self.env.clock.clone());
        let source = self.options.transport.snapshots_of(leader);
        self.snapshots.incoming = Some(Incoming { attempt, leader, epoch, message, _cancel: cancel });
        self.send_after("fetch a snapshot", async move {
            let fetched = tokio::select! {
                biased;
                _ = cancelled => Err(anyhow::anyhow!("another leader has sent a newer one")),
                fetched = fetch.run(source) => fetched.map(Box::new),
            };
            if fetched.is_err() {
                clock.sleep_until(clock.monotonic() + snapshot_fetch::RETRY).await;
            }
            Event::SnapshotFetched(attempt, fetched)
        });
    }

    pub(super) fn on_snapshot_fetched(
        &mut self,
        attempt: u64,
        fetched: anyhow::Result<Box<Snapshot>>,
    ) -> Result<(), Fatal> {
        // Else another transfer has taken its place.
        let Some(incoming) = self.snapshots.incoming.take_if(|incoming| incoming.attempt == attempt) else {
            return Ok(());
        };
        if self.unwritten.is_some() {
            self.drive()?;
        }
        let checked = fetched.and_then(|snapshot| self.check_fetched(&incoming, &snapshot).map(|()| snapshot));
        match checked {
            Ok(snapshot) => {
                let message = self.install_message(incoming, &snapshot);
                self.snapshots.fetched = Some(snapshot);
                self.node.step(message)?;
                self.drive()?;
                // raft may not need it any more. It is on the disk, where it does no harm.
                self.snapshots.fetched = None;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "a metadata snapshot could not be fetched");
                let Some(message) = incoming.message else { return Ok(()) };
                let failed = Message {
                    msg_type: MessageType::MsgSnapStatus,
                    to: message.from,
                    from: raft_id(self.options.identity.node_id),
                    term: message.term,
                    index: message.get_snapshot().get_metadata().index,
                    reject: true,
                    ..Message::default()
                };
                self.send([failed]);
            }
        }
        Ok(())
    }

    /// The message that lets raft install a snapshot. The leader does not know whether this node is among the voters of
    /// the snapshot, so the voters are those that this node sees there.
    fn install_message(&self, incoming: Incoming, snapshot: &Snapshot) -> Message {
        let (own, base) = (self.options.identity, snapshot.base());
        let mut message = incoming.message.unwrap_or_else(|| Message {
            msg_type: MessageType::MsgSnapshot,
            from: raft_id(incoming.leader),
            to: raft_id(own.node_id),
            term: incoming.epoch as u64,
            ..Message::default()
        });
        let voters = snapshot.voters.as_ref().unwrap_or(self.node.store().voters());
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (base.index, base.epoch as u64);
        metadata.set_conf_state(conf_state(voters, own));
        message
    }

    /// Checks that a snapshot is the one that the leader has named, and that it can be installed now.
    fn check_fetched(&self, incoming: &Incoming, snapshot: &Snapshot) -> anyhow::Result<()> {
        let base = snapshot.base();
        if let Some(message) = &incoming.message {
            let named = message.get_snapshot().get_metadata();
            anyhow::ensure!(
                (named.index, named.term) == (base.index, base.epoch as u64),
                "it ends with entry {} of epoch {}, the leader has named {} of {}",
                base.index,
                base.epoch,
                named.index,
                named.term
            );
        }
        anyhow::ensure!(self.unwritten.is_none(), "the metadata log cannot be written for now");
        Ok(())
    }

    /// Replaces the log and the image by a snapshot. Its file is durable, so a crash does no harm: the next start
    /// begins with the snapshot and empties the log again. If this fails, it may be retried.
    pub(super) fn install(&mut self, snapshot: &Snapshot) -> Result<(), Fatal> {
        let base = snapshot.base();
        self.node.mut_store().install(base, snapshot.voters.clone())?;
        let image = MetadataImage { cluster_id: self.committed.cluster_id.clone(), ..snapshot.image.clone() };
        self.delta.merge(&MetadataDelta::between(&self.committed, &image));
        self.unapplied.clear();
        (self.committed, self.working) = (image.clone(), image);
        (self.snapshots.last_index, self.snapshots.bytes_at_last) = (base.index, self.node.store().bytes_written());
        tracing::info!(snapshot = snapshot.id.file_name(), "a metadata snapshot of the leader is installed");
        Ok(())
    }
}
