//! Shortages: the disk is full, or no file can be opened.
//!
//! Owns the space that is reserved for the metadata log, and which requests may use it. Leaves how much a request may
//! use to `controller/shortage.rs`, and what could not be written to the driver, which keeps it and tries again.

use super::*;

/// Disk space reserved for the metadata log. Deleting 20,000 topics takes less than 1 MiB. Registering a broker with
/// 20,000 partitions, which every start does, takes 2 MiB.
const RESERVE_BYTES: u64 = 4 << 20;
/// Changes other than deletions may use this much of it ([`Reserve::Part`]).
const RESERVE_PART_BYTES: u64 = 2 << 20;
/// While disk space or file descriptors are short, failed writes are retried this often, and with every request.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// See the head of the file.
#[derive(Default)]
pub(super) struct Shortage {
    /// A write failed because of a shortage. Nothing is decided, since nothing can be written before that write.
    pub(super) is_stalled: bool,
    /// [`RESERVE_BYTES`] cannot be reserved.
    lacks_reserve: bool,
    /// Bytes proposed since the reserve was last complete.
    reserve_used: u64,
    /// Bytes proposed and not written yet.
    proposed_bytes: u64,
    /// An `Event::Retry` is scheduled.
    pub(super) is_retry_armed: bool,
}

impl Shortage {
    /// A batch of this many bytes is proposed.
    pub(super) fn on_proposed(&mut self, bytes: usize) {
        self.proposed_bytes += bytes as u64;
        self.reserve_used += bytes as u64;
    }

    /// All that was proposed is written. Returns whether there was anything.
    pub(super) fn on_written(&mut self) -> bool {
        std::mem::take(&mut self.proposed_bytes) > 0
    }
}

impl Driver {
    /// Fills the reserve up.
    pub(super) fn keep_reserve(&mut self) -> Result<(), Fatal> {
        match self.node.mut_store().reserve_space(RESERVE_BYTES + self.shortage.proposed_bytes) {
            Ok(()) => {
                self.shortage.reserve_used = 0;
                if std::mem::take(&mut self.shortage.lacks_reserve) {
                    tracing::info!("there is room again for the metadata log");
                }
            }
            Err(error) if is_shortage(&error) => {
                if !std::mem::replace(&mut self.shortage.lacks_reserve, true) {
                    tracing::error!(
                        %error, "there is no room for the metadata log: until there is, topics can be deleted and retention can be \
                         lowered; all other changes of the cluster are refused"
                    );
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn lacks_room(&self) -> bool {
        self.shortage.is_stalled || self.shortage.lacks_reserve
    }

    pub(super) fn may_decide(&self, request: &Request) -> bool {
        !self.shortage.lacks_reserve
            || match request.reserve() {
                Reserve::None => false,
                Reserve::Part => self.shortage.reserve_used < RESERVE_PART_BYTES,
                Reserve::All => true,
            }
    }

    pub(super) fn on_shortage(&mut self, error: &Fatal) {
        if !std::mem::replace(&mut self.shortage.is_stalled, true) {
            tracing::error!(%error, "the metadata log cannot be written for now; the cluster's metadata cannot be changed until it can");
        }
    }

    pub(super) fn on_shortage_end(&mut self) {
        if std::mem::take(&mut self.shortage.is_stalled) {
            tracing::info!("the metadata log can be written again");
        }
    }

    /// Schedules a retry if there is no room.
    pub(super) fn arm_retry(&mut self) {
        if !self.lacks_room() || std::mem::replace(&mut self.shortage.is_retry_armed, true) {
            return;
        }
        let clock = self.env.clock.clone();
        let at = clock.monotonic() + RETRY;
        self.send_after("metadata retry", async move {
            clock.sleep_until(at).await;
            Event::Retry
        });
    }
}
