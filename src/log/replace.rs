//! Puts a cleaned segment in the place of those from which it was made (Apache: `LocalLog.replaceSegments`).
//!
//! A crash at any step leaves either all of the old segments, or a `.swap` file with which `recovery.rs` completes the
//! step: the old ones are only renamed when the names of the `.swap` files are durable, and these get their final names
//! when the old names are durably gone. The waits for the disk are outside of the log's lock. Whatever removes or cuts
//! segments meanwhile ends the swap.

use std::{path::PathBuf, sync::Arc};

use super::{Log, LogContext, LogError, LogOwner, Segment, cleaner::LogView, file_names::Stage, flush::with_log};
use crate::types::Offset;

impl Log {
    /// What a cleaner needs to know; `None` if the log is not compacted, or does not change any more.
    pub(crate) fn cleaner_view(&self, high_watermark: Option<Offset>) -> Option<LogView> {
        if self.deleted || self.closed || !self.config.cleanup_policy.compact || self.ctx.is_offline() {
            return None;
        }
        let committed = high_watermark.unwrap_or(self.log_end_offset);
        Some(LogView {
            segments: self.segments.clone(),
            config: self.config.clone(),
            log_start_offset: self.log_start_offset,
            log_end_offset: self.log_end_offset,
            settled_offset: self.last_stable_offset(committed),
            committed_offset: committed,
        })
    }

    /// Where `sources` begin among the segments; `None` if they are not all there any more, or may still change.
    fn place_of(&self, sources: &[Arc<Segment>]) -> Option<usize> {
        let first = sources.first()?;
        if self.deleted || self.closed {
            return None;
        }
        let at = self.segments.partition_point(|segment| segment.base_offset() < first.base_offset());
        let here = self.segments.get(at..at + sources.len())?;
        let are_there = here.iter().zip(sources).all(|(here, source)| Arc::ptr_eq(here, source));
        (are_there && at + sources.len() < self.segments.len()).then_some(at)
    }

    fn begin_swap(&mut self, sources: &[Arc<Segment>], cleaned: &Arc<Segment>) -> bool {
        let may_begin = self.swapping.is_none() && self.place_of(sources).is_some();
        if may_begin {
            self.swapping = Some(cleaned.clone());
        }
        may_begin
    }

    /// Takes the place of `sources`. Returns false if the swap was ended meanwhile.
    fn swap(&mut self, sources: &[Arc<Segment>], cleaned: &Arc<Segment>) -> Result<bool, LogError> {
        let is_mine = self.swapping.as_ref().is_some_and(|swapping| Arc::ptr_eq(swapping, cleaned));
        let Some(at) = self.place_of(sources).filter(|_| is_mine) else { return Ok(false) };
        self.swapping = None;
        // It may hold batches as they were before.
        self.tail.clear();
        let segments = Arc::make_mut(&mut self.segments);
        let gone: Vec<_> = segments.splice(at..at + sources.len(), [cleaned.clone()]).collect();
        let delay_ms = self.config.file_delete_delay_ms;
        for segment in &gone {
            self.retire(segment, delay_ms)?;
        }
        // The cleaned segment begins with the snapshot of the first one.
        let inner: Vec<Offset> = gone.iter().skip(1).map(|segment| segment.base_offset()).collect();
        self.remove_snapshots(|offset| inner.binary_search(&offset).is_ok())?;
        self.dirty.names += 1;
        Ok(true)
    }

    /// Ends a swap that is in preparation, because the segments change.
    pub(super) fn end_swap(&mut self) -> Result<(), LogError> {
        self.swapping.take().map_or(Ok(()), |swapping| self.retire(&swapping, 0))
    }
}

/// Replaces `sources` by `cleaned`, whose files are durable. Returns false, and removes the files, if they are no
/// longer neighbours in the log, since it was truncated, deleted or closed.
///
/// # Errors
/// A fault of the disk.
pub(super) fn replace_segments(
    ctx: &LogContext,
    owner: &dyn LogOwner,
    sources: &[Arc<Segment>],
    cleaned: &Arc<Segment>,
) -> Result<bool, LogError> {
    let replaced = try_replace(ctx, owner, sources, cleaned);
    replaced.map_err(|error| ctx.handle_io_error(error))
}

fn try_replace(
    ctx: &LogContext,
    owner: &dyn LogOwner,
    sources: &[Arc<Segment>],
    cleaned: &Arc<Segment>,
) -> Result<bool, LogError> {
    let sync_names = || {
        let dir: PathBuf = with_log(owner, |log| log.dir());
        ctx.disk.sync_dir(&dir).map_err(LogError::io("sync", &dir))
    };
    if !with_log(owner, |log| log.begin_swap(sources, cleaned)) {
        remove(cleaned)?;
        return Ok(false);
    }
    let is_prepared = cleaned.advance_to(Stage::Swap).and_then(|advanced| if advanced { sync_names() } else { Ok(()) });
    if let Err(error) = is_prepared {
        with_log(owner, Log::end_swap)?;
        return Err(error);
    }
    if !with_log(owner, |log| log.swap(sources, cleaned))? {
        with_log(owner, Log::end_swap)?;
        remove(cleaned)?;
        return Ok(false);
    }
    sync_names()?;
    if cleaned.advance_to(Stage::InUse)? {
        // A start takes a `.swap` file above a `.cleaned` one for one that was never complete.
        sync_names()?;
    }
    Ok(true)
}

/// Removes the files of a segment that is not part of a log, or not any more, at once.
pub(super) fn remove(cleaned: &Segment) -> Result<(), LogError> {
    if cleaned.is_deleted() {
        return Ok(());
    }
    for path in cleaned.mark_deleted()? {
        super::log::remove_if_exists(cleaned.context(), &path)?;
    }
    Ok(())
}
