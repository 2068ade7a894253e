//! A partition as a follower changes it: the position of the next fetch, appends of what the leader returns, and
//! truncation where the logs diverge (KIP-101, KIP-279, KIP-320).
//!
//! Invariants: INV-R1 (same offset and epoch, same bytes). Each change names the leader epoch in which its fetch was
//! sent; if the partition has another leader epoch, or its log another end, by now, nothing is changed: the next fetch
//! starts from the new state (KAFKA-18723). Leaves the requests to `fetcher.rs`.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    partition::{FetchFrom, Inner, Partition, PartitionError},
    state::Event,
};
use crate::{
    log::{LogContext, LogOwner, sync_truncations},
    protocol::record_batch::iter_batches,
    types::{LeaderEpoch, Offset, TimestampMs, TopicPartition},
};

/// Where a follower continues.
#[derive(Clone, Copy, Debug)]
pub struct FetchPosition {
    /// The log end offset, the leader epoch of the metadata, and the epoch of the last batch in the log. That is the
    /// log's own, whatever the last response held (KAFKA-15510).
    pub from: FetchFrom,
    /// The follower's log start offset.
    pub log_start_offset: Offset,
    /// The high watermark that the follower knows.
    pub high_watermark: Offset,
}

/// What a leader returned for one partition.
#[derive(Clone, Debug)]
pub struct LeaderData {
    /// The fetch that it answers.
    pub from: FetchFrom,
    /// Batches in order; the last one may be cut short.
    pub records: Bytes,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// What an append has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// The records below this offset must be flushed before the next fetch tells the leader that they are here
    /// (`flush.messages`).
    pub flush_before: Option<Offset>,
}

impl Partition {
    /// The position of the next fetch, or `None` if this broker does not follow a leader.
    pub fn fetch_position(&self) -> Option<FetchPosition> {
        let inner = self.lock();
        let leadership = inner.state.leadership();
        if inner.state.is_leader() || leadership.leader < 0 {
            return None;
        }
        Some(FetchPosition {
            from: FetchFrom {
                offset: inner.log.log_end_offset(),
                current_leader_epoch: leadership.leader_epoch,
                last_fetched_epoch: inner.log.latest_epoch().filter(|_| !planted!("A2")).unwrap_or(-1),
            },
            log_start_offset: inner.log.log_start_offset(),
            high_watermark: inner.state.high_watermark(),
        })
    }

    /// Whether the partition still is what it was when the fetch was sent.
    fn continues(&self, inner: &Inner, from: &FetchFrom) -> bool {
        let leadership = inner.state.leadership();
        !inner.state.is_leader()
            && leadership.leader >= 0
            && (leadership.leader_epoch == from.current_leader_epoch || planted!("A3"))
            && inner.log.log_end_offset() == from.offset
    }

    /// Appends what the leader has returned, and takes over its high watermark and log start offset.
    ///
    /// # Errors
    /// The records are damaged, do not continue this log, or the disk has failed.
    pub fn append_as_follower(&self, data: LeaderData, now_ms: TimestampMs) -> Result<Followed, PartitionError> {
        let mut inner = self.lock();
        if !self.continues(&inner, &data.from) {
            return Ok(Followed::default());
        }
        // Its sync is under way or has failed, for lack of space. After it the next fetch brings the same.
        if inner.log.has_unsynced_truncation() {
            return Ok(Followed { flush_before: Some(inner.log.log_end_offset()) });
        }
        self.set_leader_high_watermark(data.high_watermark);
        let records = up_to_epoch(data.records, data.from.current_leader_epoch);
        let info = inner.log.append_as_follower(records, now_ms)?;
        let effects = self.step(&mut inner, Event::Replicated { leader_high_watermark: data.high_watermark });
        let start = data.log_start_offset.min(inner.log.log_end_offset());
        if inner.log.maybe_increment_log_start_offset(start)? {
            self.publish(&mut inner);
        }
        let flush_before = info.flush_due.then(|| inner.log.log_end_offset());
        drop(inner);
        self.wake(&effects, false);
        Ok(Followed { flush_before })
    }

    /// Where a log must be truncated because the leader has answered `from` with the end of the last epoch that it
    /// shares with this log. If it does not know the epoch, the next fetch asks with an older one. `None` if the answer
    /// is not of use any more.
    fn plan_truncation(&self, divergence: &Divergence) -> Result<Option<Truncation>, PartitionError> {
        let Divergence { partition, from, leader_epoch, leader_end_offset } = divergence;
        let inner = self.lock();
        if !self.continues(&inner, from) {
            return Ok(None);
        }
        // Apache: `AbstractFetcherThread.getOffsetTruncationState`.
        let end_offset = inner.log.log_end_offset();
        let truncate_to = match inner.log.end_offset_for_epoch(*leader_epoch) {
            Some((epoch, own_end_offset)) if epoch == *leader_epoch => own_end_offset.min(*leader_end_offset),
            // This log has no records of that epoch: everything after the older epoch goes.
            Some((_, own_end_offset)) => own_end_offset,
            None => *leader_end_offset,
        };
        let offset = truncate_to.min(end_offset);
        Ok(Some(Truncation::new(partition, &inner, from, offset, *leader_epoch)?))
    }

    /// Cuts the log, unless it has changed since the truncation was planned. Returns whether it has done so.
    fn carry_out(&self, truncation: &Truncation) -> Result<bool, PartitionError> {
        let Truncation { from, offset, leader_epoch, .. } = truncation;
        let mut inner = self.lock();
        if !self.continues(&inner, from) {
            return Ok(false);
        }
        // Before the cut, which lowers the high watermark to the new end of the log.
        let (high_watermark, end_offset) = (inner.state.high_watermark(), inner.log.log_end_offset());
        let high_watermark = if planted!("A18") { high_watermark.min(*offset) } else { high_watermark };
        if *offset < high_watermark {
            // Only an unclean election, or the loss of a leader's disk, can cause this.
            tracing::warn!(
                partition = %self.topic_partition(), offset, high_watermark, end_offset, leader_epoch,
                "truncates records that were committed: the leader does not have them"
            );
            self.note_lost_records();
        } else {
            tracing::info!(partition = %self.topic_partition(), offset, end_offset, leader_epoch, "truncates to the leader's log");
        }
        inner.log.cut_to(*offset)?;
        self.publish(&mut inner);
        Ok(true)
    }

    /// Continues where the leader's log begins or ends, because it does not have the offset of `from`. May wait for the
    /// disk.
    ///
    /// # Errors
    /// The disk has failed.
    pub fn continue_at(
        self: &Arc<Self>,
        from: &FetchFrom,
        leader_start_offset: Offset,
        leader_end_offset: Offset,
    ) -> Result<(), PartitionError> {
        let mut inner = self.lock();
        if !self.continues(&inner, from) {
            return Ok(());
        }
        // Apache: `AbstractFetcherThread.fetchOffsetAndTruncate`.
        let end_offset = inner.log.log_end_offset();
        if leader_end_offset < inner.log.log_start_offset() {
            // Only an unclean election, or the loss of a leader's disk, can cause this.
            tracing::warn!(
                partition = %self.topic_partition(), start_offset = inner.log.log_start_offset(), leader_end_offset,
                "begins anew where the leader's log starts: that ends before this one starts"
            );
            if inner.state.high_watermark() > leader_end_offset {
                self.note_lost_records();
            }
            inner.log.truncate_fully_and_start_at(leader_start_offset)?;
            self.publish(&mut inner);
            return Ok(());
        }
        if leader_end_offset < end_offset && !planted!("A16") {
            let truncation = Truncation::new(self, &inner, from, leader_end_offset, from.current_leader_epoch)?;
            drop(inner);
            return truncate(&[truncation]).into_iter().collect();
        }
        if leader_start_offset > end_offset {
            tracing::warn!(
                partition = %self.topic_partition(), end_offset, leader_start_offset,
                "begins anew where the leader's log starts: it has deleted what comes next here"
            );
            inner.log.truncate_fully_and_start_at(leader_start_offset)?;
            self.publish(&mut inner);
        }
        Ok(())
    }
}

/// The answer of a leader whose log is another one from some offset on.
pub(super) struct Divergence {
    pub partition: Arc<Partition>,
    /// The fetch that it answers.
    pub from: FetchFrom,
    /// The last epoch that the leader shares with this log, and its end in the leader's log.
    pub leader_epoch: LeaderEpoch,
    pub leader_end_offset: Offset,
}

/// Truncates logs to those of their leaders. Returns one result for each. Waits for the disk, but holds no lock of a
/// partition then; a checkpoint is written once for all partitions of a log directory.
pub(super) fn truncate_to_leaders(divergences: &[Divergence]) -> Vec<Result<(), PartitionError>> {
    let (mut results, mut truncations, mut planned_for) = (Vec::new(), Vec::new(), Vec::new());
    for divergence in divergences {
        let planned = divergence.partition.plan_truncation(divergence);
        results.push(planned.map(|planned| {
            if let Some(truncation) = planned {
                truncations.push(truncation);
                planned_for.push(results.len());
            }
        }));
    }
    for (at, result) in planned_for.into_iter().zip(truncate(&truncations)) {
        results[at] = result;
    }
    results
}

/// A truncation that is planned.
struct Truncation {
    partition: Arc<Partition>,
    from: FetchFrom,
    offset: Offset,
    leader_epoch: LeaderEpoch,
    ctx: Arc<LogContext>,
    /// Where the log ends then, if it is cut at all.
    end: Option<Offset>,
}

impl Truncation {
    fn new(
        partition: &Arc<Partition>,
        inner: &Inner,
        from: &FetchFrom,
        offset: Offset,
        leader_epoch: LeaderEpoch,
    ) -> Result<Truncation, PartitionError> {
        let (ctx, end) = (inner.log.context().clone(), inner.log.end_of_cut(offset)?);
        Ok(Truncation { partition: partition.clone(), from: *from, offset, leader_epoch, ctx, end })
    }
}

fn truncate(truncations: &[Truncation]) -> Vec<Result<(), PartitionError>> {
    let mut ends = Vec::<(&Arc<LogContext>, Vec<(TopicPartition, Offset)>)>::new();
    for Truncation { partition, ctx, end, .. } in truncations {
        let Some(end) = end else { continue };
        let lowered = (partition.topic_partition().clone(), *end);
        // linear: a broker has a few log directories
        match ends.iter_mut().find(|(known, _)| Arc::ptr_eq(known, ctx)) {
            Some((_, of)) => of.push(lowered),
            None => ends.push((ctx, vec![lowered])),
        }
    }
    for (ctx, lowered) in ends {
        // After a failure each cut tries it again, and reports it.
        let _ = ctx.recovery_points.lower(lowered);
    }
    let mut cut: Vec<Arc<dyn LogOwner>> = Vec::new();
    let carry_out = |truncation: &Truncation| {
        if truncation.partition.carry_out(truncation)? {
            cut.push(truncation.partition.clone());
        }
        Ok(())
    };
    let results = truncations.iter().map(carry_out).collect();
    sync_truncations(&cut);
    results
}

/// The batches before the first one of a newer epoch than that in which they were fetched: the leader has appended it
/// after it was elected again.
fn up_to_epoch(records: Bytes, leader_epoch: LeaderEpoch) -> Bytes {
    let mut bytes = 0;
    for batch in iter_batches(&records) {
        if batch.partition_leader_epoch() > leader_epoch {
            return records.slice(..bytes);
        }
        bytes += batch.size_bytes();
    }
    records
}
