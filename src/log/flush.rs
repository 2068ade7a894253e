//! Making a log durable without holding its lock: what to sync is planned under the lock, synced outside
//! of it, and the recovery point moves under it again. One sync serves everybody who waits meanwhile.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::{Log, LogContext, LogError, context::lock, segment::Segment};
use crate::{env::Open, types::Offset};

/// Whoever keeps a log behind a lock.
pub trait LogOwner: Send + Sync {
    /// Runs `act` on the log, under the lock.
    fn with_log(&self, act: &mut dyn FnMut(&mut Log));

    /// What the checkpoint should hold as high watermark; `None` for a log without one.
    fn high_watermark(&self) -> Option<Offset> {
        None
    }
}

impl LogOwner for Mutex<Log> {
    fn with_log(&self, act: &mut dyn FnMut(&mut Log)) {
        act(&mut lock(self));
    }
}

/// [`LogOwner::with_log`] with a result.
pub fn with_log<T>(owner: &dyn LogOwner, act: impl FnOnce(&mut Log) -> T) -> T {
    let mut act = Some(act);
    let mut result = None;
    owner.with_log(&mut |log| {
        if let Some(act) = act.take() {
            result = Some(act(log));
        }
    });
    match result {
        Some(result) => result,
        None => unreachable!("with_log runs its argument"),
    }
}

/// What has to reach the disk for a log to be durable up to an offset.
pub struct FlushPlan {
    pub(crate) ctx: Arc<LogContext>,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) dir: PathBuf,
    /// The topic id's file and producer snapshots that were written since the last flush.
    pub(crate) files: Vec<PathBuf>,
    pub(crate) epochs: Option<String>,
    pub(crate) sync_dir: bool,
    pub(crate) sync_parent: bool,
    pub(crate) done: FlushDone,
}

/// A plan that was carried out; hand it to [`Log::flush_done`].
#[derive(Clone, Copy, Debug)]
pub struct FlushDone {
    pub(crate) up_to: Offset,
    pub(crate) truncations: u64,
    pub(crate) names: u64,
    pub(crate) epochs: u64,
}

impl FlushPlan {
    /// Leaves the epoch file to a later flush; the batches say the same.
    pub(crate) fn postpone_epochs(&mut self) {
        self.epochs = None;
        self.done.epochs = 0;
    }

    /// Waits for the disk; for the blocking pool.
    ///
    /// # Errors
    /// A failed sync is final: the log directory is offline from then on, and nothing tries again.
    pub fn run(mut self) -> Result<FlushDone, LogError> {
        self.ctx.check_online()?;
        match self.sync() {
            Ok(()) => Ok(self.done),
            // ENOSPC of a sync is as final as EIO: dirty pages are gone either way.
            Err(error @ LogError::Io { action: "sync", .. }) => {
                self.ctx.fail(&error);
                Err(error)
            }
            Err(error) => Err(self.ctx.judge(error)),
        }
    }

    fn sync(&mut self) -> Result<(), LogError> {
        for segment in &self.segments {
            segment.sync()?;
        }
        for path in &self.files {
            match self.ctx.disk.open(path, Open::ReadWrite) {
                Ok(file) => file.sync_data().map_err(LogError::io("sync", path))?,
                // Deleted with its segment meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(LogError::io("open", path)(error)),
            }
        }
        match self.epochs.as_deref().map_or(Ok(()), |text| self.write_epochs(text)) {
            // Not worth a flush that fails: what matters is durable already.
            Err(error @ LogError::Io { action: "write" | "rename", .. }) if error.is_disk_full() => {
                self.postpone_epochs()
            }
            other => other?,
        }
        if self.sync_dir || self.epochs.is_some() {
            self.ctx.disk.sync_dir(&self.dir).map_err(LogError::io("sync", &self.dir))?;
        }
        if self.sync_parent {
            self.ctx.sync_partitions()?;
        }
        Ok(())
    }

    /// As [`crate::env::Disk::replace`], but telling a write from a sync: only the former may fail for lack of room.
    fn write_epochs(&self, text: &str) -> Result<(), LogError> {
        let disk = &self.ctx.disk;
        let path = self.dir.join(super::log::LEADER_EPOCH_FILE);
        let temporary = self.dir.join(format!("{}.tmp", super::log::LEADER_EPOCH_FILE));
        let written = disk.open(&temporary, Open::Create).and_then(|file| {
            file.set_len(0)?;
            file.write_all_at(text.as_bytes(), 0)?;
            Ok(file)
        });
        let file = written.map_err(LogError::io("write", &temporary))?;
        file.sync_all().map_err(LogError::io("sync", &temporary))?;
        disk.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))
    }
}

/// Returns when all below `offset` is durable. Callers that come while another one syncs wait for it, and
/// the first of them then syncs for all.
///
/// # Errors
/// As [`FlushPlan::run`].
pub fn flush_through(owner: &dyn LogOwner, offset: Offset) -> Result<(), LogError> {
    flush(owner, offset, Log::log_end_offset)
}

/// Makes the segments durable that are no longer appended to; the active one is left alone.
///
/// # Errors
/// As [`FlushPlan::run`].
pub(crate) fn flush_rolled(owner: &dyn LogOwner) -> Result<(), LogError> {
    let up_to = with_log(owner, |log| log.active_base_offset());
    flush(owner, up_to, Log::active_base_offset)
}

/// Unless all below `wanted` is durable: makes it so up to what `extent` says when it is our turn.
fn flush(owner: &dyn LogOwner, wanted: Offset, extent: impl Fn(&Log) -> Offset) -> Result<(), LogError> {
    let Some(gate) = with_log(owner, |log| (log.recovery_point() < wanted).then(|| log.flush_gate())) else {
        return Ok(());
    };
    let _turn = lock(&gate);
    let plan = with_log(owner, |log| {
        // What was deleted while we waited needs no disk any more.
        (log.recovery_point() < wanted && !log.is_deleted()).then(|| log.flush_plan(extent(log)))
    });
    let Some(plan) = plan else { return Ok(()) };
    let done = plan.run()?;
    with_log(owner, |log| log.flush_done(done));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::topic::LogConfig,
        env::Disk,
        log::OpenLog,
        protocol::record_batch::{BatchBuilder, BatchOptions},
        sim::{SimClock, SimDisk},
        types::TopicPartition,
    };

    #[test]
    fn a_flush_without_room_for_the_epochs_leaves_them_for_later() {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/d")).unwrap();
        let ctx = LogContext::alone(Path::new("/d"), Arc::new(disk.clone()), Arc::new(SimClock::new(1000))).unwrap();
        let config = Arc::new(LogConfig::default());
        let mut log =
            Log::open(&ctx, Path::new("/d/t-0"), TopicPartition::new("t", 0), None, config, OpenLog::default())
                .unwrap();
        let mut batch = BatchBuilder::new(BatchOptions { leader_epoch: 3, ..Default::default() });
        batch.append(1000, None, Some(b"v"), &[]);
        log.append_as_follower(batch.build(), 1000).unwrap();
        disk.set_capacity(0);
        log.flush().unwrap();
        assert_eq!((log.recovery_point(), ctx.is_offline()), (1, false));
        let epochs = Path::new("/d/t-0/leader-epoch-checkpoint");
        assert!(!disk.exists(epochs));
        disk.set_capacity(u64::MAX);
        log.flush().unwrap();
        assert!(disk.exists(epochs));
    }
}
