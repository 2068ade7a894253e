//! Fetch sessions (KIP-227, F6): the broker remembers the partitions that a consumer fetches, so that requests and
//! responses contain only the partitions that have changed.
//!
//! Sessions outlive connections. Their number and their memory are limited: a full cache evicts the sessions that have
//! been idle longest, but only after two minutes; otherwise new clients get no session. A follower need not wait:
//! without a session each of its requests would cost as much as there are partitions, so it evicts a consumer's.
//! Clients with more partitions than a session may have (existing or not) get no session either.
//!
//! A follower's session answers from the partitions that have changed, whatever number it has
//! (`changed_partitions.rs`). A partition stays on its list until the follower has all of it: a response that is lost
//! costs nothing, and neither does a request that the follower gives up. Followers fetch all the time, so a session of
//! theirs that is idle for two minutes belongs to nobody: the next follower that opens one ends it.
//!
//! Deviations: Kafka limits only the number of sessions.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use indexmap::IndexMap;

use super::{changed_partitions::ChangedPartitions, partition::FetchFrom};
use crate::{
    env::{Random, byte_account::ByteAccount, lock::lock},
    metrics::Counter,
    types::{Offset, TopicId},
};

/// The session id that means "no session" in requests and responses.
pub const NO_SESSION: i32 = 0;
/// The epoch of a full fetch request that asks for a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a full fetch request that ends its session.
pub const FINAL_EPOCH: i32 = -1;
/// A session that was idle for less than this is not evicted (`min.incremental.fetch.session.eviction.ms`).
const EVICTION: Duration = Duration::from_secs(120);
/// The most partitions in one session.
const MOST_PARTITIONS: usize = 10_000;
/// The most partitions in a session of a follower.
const MOST_FOLLOWED: usize = 200_000;
/// The approximate memory of a session without its partitions, and of a partition without its entry.
const SESSION_OVERHEAD_BYTES: usize = 256;
const PARTITION_OVERHEAD_BYTES: usize = 48;
const PARTITION_BYTES: usize = size_of::<(FetchKey, SessionPartition)>() + PARTITION_OVERHEAD_BYTES;

/// The partition that a client requests, by topic name up to version 12 and by topic id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchKey {
    /// Empty if the client used an id. All keys of a topic in one request share the name.
    pub topic: Arc<str>,
    /// Zero if the client used a name.
    pub topic_id: TopicId,
    /// The partition index.
    pub partition: i32,
}

/// The client's request for a partition.
#[derive(Clone, Copy, Debug)]
pub struct PartitionRequest {
    /// The fetch offset and the leader epochs.
    pub from: FetchFrom,
    /// `partition_max_bytes`.
    pub max_bytes: i32,
    /// The high watermark that a follower knows; `i64::MAX` from consumers (KIP-1166).
    pub known_high_watermark: Offset,
}

/// The values that were last sent to the client. A response omits partitions whose values are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LastSent {
    high_watermark: Offset,
    log_start_offset: Offset,
}

const NOTHING_SENT: LastSent = LastSent { high_watermark: -1, log_start_offset: -1 };

#[derive(Debug)]
struct SessionPartition {
    wanted: PartitionRequest,
    last_sent: LastSent,
    /// It is in [`Followed::listed`].
    is_listed: bool,
}

/// The part of a follower's session that makes a request cost what has changed, and not what there is.
#[derive(Debug)]
struct Followed {
    changed: Arc<ChangedPartitions>,
    /// The partitions to read, in turn.
    listed: Vec<FetchKey>,
}

/// One session.
#[derive(Debug)]
pub struct FetchSession {
    /// The epoch that the next request must have.
    next_epoch: i32,
    uses_topic_ids: bool,
    partitions: IndexMap<FetchKey, SessionPartition>,
    /// `None` for a consumer.
    followed: Option<Followed>,
    /// The index of the partition with which the next response starts, so that every partition gets its turn.
    first: usize,
    account: ByteAccount,
}

/// The approximate memory of a session with these partitions.
fn session_bytes<'a>(keys: impl Iterator<Item = &'a FetchKey>) -> usize {
    let (mut bytes, mut last) = (SESSION_OVERHEAD_BYTES, None);
    for key in keys {
        bytes += PARTITION_BYTES;
        // Partitions of one topic follow each other and share its name.
        if !last.is_some_and(|last| Arc::ptr_eq(last, &key.topic)) {
            bytes += key.topic.len();
        }
        last = Some(&key.topic);
    }
    bytes
}

/// The reason why a request does not match its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// FETCH_SESSION_ID_NOT_FOUND.
    NotFound,
    /// INVALID_FETCH_SESSION_EPOCH.
    InvalidEpoch,
    /// FETCH_SESSION_TOPIC_ID_ERROR: a session cannot have both topic names and topic ids.
    TopicIdMix,
}

/// The partitions to fetch: those of the request and those of its session.
pub struct FetchContext {
    /// The partitions in the order in which they are read.
    pub partitions: Vec<(FetchKey, PartitionRequest)>,
    kind: Kind,
}

enum Kind {
    /// The response contains all partitions; there is no session.
    Sessionless,
    /// The response contains all partitions; a session is created if there is room.
    Full { uses_topic_ids: bool, is_follower: bool },
    /// The response contains only changed partitions. `next_epoch` is that of the session while no later request has
    /// come.
    Incremental { id: i32, session: Arc<Mutex<FetchSession>>, next_epoch: i32, changed: Option<Arc<ChangedPartitions>> },
}

/// The part of a partition's result that the session needs.
#[derive(Clone, Copy, Debug)]
pub struct PartitionUpdate {
    /// There are records, an error, a diverging epoch or a preferred read replica, so the response must contain the
    /// partition.
    pub must_include: bool,
    /// Whether there are records.
    pub has_records: bool,
    /// Whether there is an error.
    pub is_error: bool,
    /// -1 with an error.
    pub high_watermark: Offset,
    /// -1 with an error.
    pub log_start_offset: Offset,
    /// For a follower: it has all of the partition. See [`super::partition::PartitionRead::is_settled`].
    pub is_settled: bool,
}

/// All sessions of this broker.
pub struct FetchSessionCache {
    slots: usize,
    max_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
    random: Arc<dyn Random>,
    sessions: Mutex<HashMap<i32, Slot>>,
    evicted: Counter,
    refused: Counter,
}

/// The counters of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchSessionCounts {
    /// The number of sessions.
    pub sessions: usize,
    /// The number of partitions in all sessions.
    pub partitions: usize,
    /// The number of evicted sessions.
    pub evicted: u64,
    /// The number of sessions that were refused for lack of room.
    pub refused: u64,
}

struct Slot {
    session: Arc<Mutex<FetchSession>>,
    last_used: Duration,
    is_follower: bool,
}

impl FetchSessionCache {
    /// A cache of at most `slots` sessions (`max.incremental.fetch.session.cache.slots`), which take at most
    /// `max_bytes` together (`ottla.fetch.sessions.max.bytes`).
    pub fn new(slots: usize, max_bytes: usize, random: Arc<dyn Random>) -> Self {
        FetchSessionCache {
            slots,
            max_bytes,
            used_bytes: Arc::default(),
            random,
            sessions: Mutex::default(),
            evicted: Counter::default(),
            refused: Counter::default(),
        }
    }

    /// The current counters.
    pub fn counts(&self) -> FetchSessionCounts {
        // order: they are only counted.
        let sessions: Vec<_> = lock(&self.sessions).values().map(|slot| slot.session.clone()).collect();
        FetchSessionCounts {
            sessions: sessions.len(),
            partitions: sessions.iter().map(|session| lock(session).partitions.len()).sum(),
            evicted: self.evicted.get(),
            refused: self.refused.get(),
        }
    }

    /// Returns the partitions to fetch for a request with this session id and epoch. For a follower's incremental
    /// request these are only the partitions that may have something new.
    ///
    /// # Errors
    /// The error of the response; the session is unchanged.
    pub fn begin(
        &self,
        session_id: i32,
        epoch: i32,
        named: Vec<(FetchKey, PartitionRequest)>,
        forgotten: &[FetchKey],
        (uses_topic_ids, is_follower): (bool, bool),
        now: Duration,
    ) -> Result<FetchContext, SessionError> {
        if matches!(epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            if session_id != NO_SESSION {
                lock(&self.sessions).remove(&session_id);
            }
            let kind = match epoch {
                FINAL_EPOCH => Kind::Sessionless,
                _ => Kind::Full { uses_topic_ids, is_follower },
            };
            return Ok(FetchContext { partitions: unique(named), kind });
        }
        let session = {
            let mut sessions = lock(&self.sessions);
            let slot = sessions.get_mut(&session_id).ok_or(SessionError::NotFound)?;
            slot.last_used = now;
            slot.session.clone()
        };
        let (count, partitions, has_grown, changed) = {
            let session = &mut *lock(&session);
            if session.next_epoch != epoch {
                return Err(SessionError::InvalidEpoch);
            }
            if session.uses_topic_ids != uses_topic_ids {
                return Err(SessionError::TopicIdMix);
            }
            session.next_epoch = next_epoch(epoch);
            let has_grown = session.update(named, forgotten);
            let changed = session.followed.as_ref().map(|followed| followed.changed.clone());
            (session.partitions.len(), session.in_turn(), has_grown, changed)
        };
        // If an earlier request still waits, it ends: the follower has given it up.
        if let Some(changed) = &changed {
            changed.wake();
        }
        let most = if changed.is_some() { MOST_FOLLOWED } else { MOST_PARTITIONS };
        let too_large = has_grown && self.used_bytes.load(Ordering::Relaxed) > self.max_bytes;
        if count == 0 || count > most || too_large {
            // The session is empty or too large: the response contains all partitions and included the client that the
            // session has ended.
            lock(&self.sessions).remove(&session_id);
            let partitions = lock(&session).all_in_turn();
            return Ok(FetchContext { partitions, kind: Kind::Sessionless });
        }
        let kind = Kind::Incremental { id: session_id, session, next_epoch: next_epoch(epoch), changed };
        Ok(FetchContext { partitions, kind })
    }

    /// Updates or creates the session after the read. `updates` has one entry for each partition of the context, in the
    /// same order. Returns the session id for the client, and for each partition whether the response must contain it.
    pub fn finish(&self, context: &FetchContext, updates: &[PartitionUpdate], now: Duration) -> (i32, Vec<bool>) {
        debug_assert_eq!(context.partitions.len(), updates.len());
        match &context.kind {
            Kind::Sessionless => (NO_SESSION, vec![true; updates.len()]),
            Kind::Full { uses_topic_ids, is_follower } => {
                let id = self.create(context, updates, (*uses_topic_ids, *is_follower), now);
                (id, vec![true; updates.len()])
            }
            Kind::Incremental { id, session, .. } => {
                if context.changed().is_some() && !context.settle_current(updates) {
                    return (*id, vec![false; updates.len()]);
                }
                (*id, lock(session).select_changed(&context.partitions, updates))
            }
        }
    }

    /// Evicts as many sessions as it takes for one more of this size; none if all that may be evicted are too few.
    fn make_room(&self, sessions: &mut HashMap<i32, Slot>, bytes: usize, for_follower: bool, now: Duration) -> bool {
        let mut lacks_slots = (sessions.len() + 1).saturating_sub(self.slots);
        let mut lacks_bytes = (self.used_bytes.load(Ordering::Relaxed) + bytes).saturating_sub(self.max_bytes);
        if lacks_slots == 0 && lacks_bytes == 0 {
            return true;
        }
        let is_evictable = |slot: &Slot| now >= slot.last_used + EVICTION || for_follower && !slot.is_follower;
        let evictable = sessions.iter().filter(|(_, slot)| is_evictable(slot));
        let mut evictable: Vec<_> =
            evictable.map(|(id, slot)| (slot.last_used, *id, lock(&slot.session).account.own_bytes())).collect();
        // order: this makes it certain.
        evictable.sort_unstable();
        let mut chosen = Vec::new();
        for (_, id, bytes) in evictable {
            if lacks_slots == 0 && lacks_bytes == 0 {
                break;
            }
            (lacks_slots, lacks_bytes) = (lacks_slots.saturating_sub(1), lacks_bytes.saturating_sub(bytes));
            chosen.push(id);
        }
        if lacks_slots > 0 || lacks_bytes > 0 {
            return false;
        }
        for id in &chosen {
            if let Some(slot) = sessions.remove(id) {
                // A request that waits may hold the session for longer.
                lock(&slot.session).account.set(0);
            }
        }
        self.evicted.add(chosen.len() as u64);
        true
    }

    fn create(
        &self,
        context: &FetchContext,
        updates: &[PartitionUpdate],
        (uses_topic_ids, is_follower): (bool, bool),
        now: Duration,
    ) -> i32 {
        // Partitions report their changes by topic id.
        let is_follower = is_follower && uses_topic_ids;
        if context.partitions.len() > if is_follower { MOST_FOLLOWED } else { MOST_PARTITIONS } {
            return NO_SESSION;
        }
        let bytes = session_bytes(context.partitions.iter().map(|(key, _)| key));
        let mut sessions = lock(&self.sessions);
        if is_follower {
            let before = sessions.len();
            // order: each is looked at for itself.
            sessions.retain(|_, slot| !slot.is_follower || now < slot.last_used + EVICTION);
            self.evicted.add((before - sessions.len()) as u64);
        }
        if !self.make_room(&mut sessions, bytes, is_follower, now) {
            self.refused.add(1);
            return NO_SESSION;
        }
        let id = loop {
            let id = (self.random.next_u64() & 0x7fff_ffff) as i32;
            if id != NO_SESSION && !sessions.contains_key(&id) {
                break id;
            }
        };
        let partitions = context
            .partitions
            .iter()
            .zip(updates)
            .map(|((key, wanted), update)| {
                let last_sent = update.last_sent();
                (key.clone(), SessionPartition { wanted: *wanted, last_sent, is_listed: is_follower })
            })
            .collect();
        // Changes are observed from the next request on, which therefore reads all partitions once.
        let listed = || context.partitions.iter().map(|(key, _)| key.clone()).collect();
        let followed = is_follower.then(|| Followed { changed: Arc::default(), listed: listed() });
        let mut account = ByteAccount::new(self.used_bytes.clone());
        account.set(bytes);
        let session = FetchSession {
            next_epoch: next_epoch(INITIAL_EPOCH),
            uses_topic_ids,
            partitions,
            followed,
            first: 0,
            account,
        };
        sessions.insert(id, Slot { session: Arc::new(Mutex::new(session)), last_used: now, is_follower });
        id
    }
}

impl FetchContext {
    /// Whether the response contains only changed partitions.
    pub fn is_incremental(&self) -> bool {
        matches!(self.kind, Kind::Incremental { .. })
    }

    /// Where a follower's partitions mark their changes. `None` for consumers, and without a session.
    pub fn changed(&self) -> Option<&Arc<ChangedPartitions>> {
        match &self.kind {
            Kind::Incremental { changed, .. } => changed.as_ref(),
            Kind::Sessionless | Kind::Full { .. } => None,
        }
    }

    /// For a follower: waits until [`FetchContext::take_changed`] has something to take or would return false.
    pub async fn has_changed(&self) {
        if let Some(changed) = self.changed() {
            changed.marked(|| self.current().is_none()).await;
        }
    }

    /// For a follower: takes over the partitions that have changed since. Returns false if a later request has come for
    /// the session; then nothing is left to read for this one.
    pub fn take_changed(&mut self) -> bool {
        let current = self.current().map(|mut session| session.in_turn());
        let is_current = current.is_some();
        self.partitions = current.unwrap_or_default();
        is_current
    }

    /// For a follower: removes from the list the partitions of which the follower has everything, and moves those with
    /// records to its end. `updates` has one entry for each partition of the context. Returns false if a later request
    /// has come for the session; then nothing is left to read for this one.
    pub fn settle(&mut self, updates: &[PartitionUpdate]) -> bool {
        let is_current = self.settle_current(updates);
        if !is_current {
            self.partitions.clear();
        }
        is_current
    }

    fn settle_current(&self, updates: &[PartitionUpdate]) -> bool {
        let Some(mut session) = self.current() else { return false };
        session.settle(updates);
        true
    }

    /// The session, while no later request has come for it.
    fn current(&self) -> Option<MutexGuard<'_, FetchSession>> {
        let Kind::Incremental { session, next_epoch, .. } = &self.kind else { return None };
        Some(lock(session)).filter(|session| session.next_epoch == *next_epoch)
    }
}

/// If a partition is named twice, the last entry wins.
fn unique(named: Vec<(FetchKey, PartitionRequest)>) -> Vec<(FetchKey, PartitionRequest)> {
    if named.len() < 2 {
        return named;
    }
    named.into_iter().collect::<IndexMap<_, _>>().into_iter().collect()
}

/// Epochs wrap around to 1.
pub fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl PartitionUpdate {
    fn last_sent(&self) -> LastSent {
        if self.is_error {
            return NOTHING_SENT;
        }
        LastSent { high_watermark: self.high_watermark, log_start_offset: self.log_start_offset }
    }
}

impl FetchSession {
    /// Adds, changes and removes partitions. Returns whether the session takes more memory than before.
    fn update(&mut self, named: Vec<(FetchKey, PartitionRequest)>, forgotten: &[FetchKey]) -> bool {
        if named.is_empty() && forgotten.is_empty() {
            return false;
        }
        let mut changes_keys = false;
        for (key, wanted) in named {
            let new = SessionPartition { wanted, last_sent: NOTHING_SENT, is_listed: false };
            match self.partitions.entry(key.clone()) {
                indexmap::map::Entry::Occupied(mut entry) => entry.get_mut().wanted = wanted,
                indexmap::map::Entry::Vacant(entry) => {
                    entry.insert(new);
                    changes_keys = true;
                }
            }
            self.list(key);
        }
        if !forgotten.is_empty() {
            changes_keys = true;
            let forgotten: HashSet<&FetchKey> = forgotten.iter().collect();
            self.partitions.retain(|key, _| !forgotten.contains(key));
            if let Some(followed) = &mut self.followed {
                followed.listed.retain(|key| !forgotten.contains(key));
            }
        }
        if !changes_keys {
            return false;
        }
        let (before, now) = (self.account.own_bytes(), session_bytes(self.partitions.keys()));
        self.account.set(now);
        now > before
    }

    /// For a follower: puts a partition on the list.
    fn list(&mut self, key: FetchKey) {
        let (Some(followed), Some(partition)) = (&mut self.followed, self.partitions.get_mut(&key)) else { return };
        if !std::mem::replace(&mut partition.is_listed, true) {
            followed.listed.push(key);
        }
    }

    /// The partitions to read. For a follower, those that have changed join the list first.
    fn in_turn(&mut self) -> Vec<(FetchKey, PartitionRequest)> {
        let Some(changed) = self.followed.as_ref().map(|followed| followed.changed.take()) else {
            return self.all_in_turn();
        };
        let topic: Arc<str> = "".into();
        for (topic_id, partition) in changed {
            self.list(FetchKey { topic: topic.clone(), topic_id, partition });
        }
        let listed = self.followed.iter().flat_map(|followed| &followed.listed);
        listed.filter_map(|key| Some((key.clone(), self.partitions.get(key)?.wanted))).collect()
    }

    fn all_in_turn(&self) -> Vec<(FetchKey, PartitionRequest)> {
        let first = if self.partitions.is_empty() { 0 } else { self.first % self.partitions.len() };
        let (before, after) = self.partitions.as_slice().split_at(first);
        after.iter().chain(before.iter()).map(|(key, partition)| (key.clone(), partition.wanted)).collect()
    }

    fn select_changed(&mut self, asked: &[(FetchKey, PartitionRequest)], updates: &[PartitionUpdate]) -> Vec<bool> {
        let mut last_with_records = None;
        let mut included = Vec::with_capacity(updates.len());
        for ((key, _), update) in asked.iter().zip(updates) {
            let Some((at, _, SessionPartition { last_sent, .. })) = self.partitions.get_full_mut(key) else {
                included.push(true);
                continue;
            };
            included.push(update.must_include || *last_sent != update.last_sent());
            *last_sent = update.last_sent();
            if update.has_records {
                last_with_records = Some(at);
            }
        }
        if let Some(at) = last_with_records {
            // Partitions that are added later come after all others.
            self.first = (at + 1) % self.partitions.len();
        }
        included
    }

    fn settle(&mut self, updates: &[PartitionUpdate]) {
        let Some(followed) = &mut self.followed else { return };
        debug_assert_eq!(followed.listed.len(), updates.len(), "only the request that holds the session changes it");
        let (mut listed, mut with_records) = (Vec::new(), Vec::new());
        for (key, update) in std::mem::take(&mut followed.listed).into_iter().zip(updates) {
            let Some(partition) = self.partitions.get_mut(&key) else { continue };
            if update.has_records {
                with_records.push(key);
            } else if update.must_include || !update.is_settled || partition.last_sent != update.last_sent() {
                listed.push(key);
            } else {
                partition.is_listed = false;
            }
        }
        listed.append(&mut with_records);
        followed.listed = listed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::SystemRandom, replica::changed_partitions::Observers};

    fn cache(slots: usize) -> FetchSessionCache {
        FetchSessionCache::new(slots, 1 << 30, Arc::new(SystemRandom::seeded(1)))
    }

    fn key(partition: i32) -> FetchKey {
        FetchKey { topic: "t".into(), topic_id: TopicId::ZERO, partition }
    }

    fn wanted(offset: Offset) -> PartitionRequest {
        PartitionRequest {
            from: FetchFrom { offset, current_leader_epoch: -1, last_fetched_epoch: -1 },
            max_bytes: 100,
            known_high_watermark: i64::MAX,
        }
    }

    fn update(high_watermark: Offset, has_records: bool) -> PartitionUpdate {
        PartitionUpdate {
            must_include: has_records,
            has_records,
            is_error: false,
            high_watermark,
            log_start_offset: 0,
            is_settled: !has_records,
        }
    }

    /// It names topics by name.
    const CONSUMER: (bool, bool) = (false, false);

    const ERROR: PartitionUpdate = PartitionUpdate {
        must_include: true,
        has_records: false,
        is_error: true,
        high_watermark: -1,
        log_start_offset: -1,
        is_settled: false,
    };

    /// A session with partitions 0 to `count` - 1, for which only high watermark 5 was sent.
    /// Opens a session of one partition. Returns its id.
    fn open_at(cache: &FetchSessionCache, kind: (bool, bool), seconds: u64) -> i32 {
        let now = Duration::from_secs(seconds);
        let context = cache.begin(0, 0, vec![(key(0), wanted(0))], &[], kind, now).unwrap();
        cache.finish(&context, &[update(5, false)], now).0
    }

    fn opened(cache: &FetchSessionCache, count: i32) -> i32 {
        let named = (0..count).map(|p| (key(p), wanted(0))).collect();
        let context = cache.begin(0, 0, named, &[], CONSUMER, Duration::ZERO).unwrap();
        let (id, included) = cache.finish(&context, &vec![update(5, false); count as usize], Duration::ZERO);
        assert_eq!(included, vec![true; count as usize], "a full response must contain all partitions");
        assert_ne!(id, NO_SESSION);
        id
    }

    #[test]
    fn f6_incremental_answers_tell_only_what_is_new() {
        let cache = cache(10);
        let id = opened(&cache, 3);
        let context = cache.begin(id, 1, vec![], &[], CONSUMER, Duration::ZERO).unwrap();
        assert_eq!(context.partitions.len(), 3);
        let (same, included) =
            cache.finish(&context, &[update(5, false), update(6, false), update(5, true)], Duration::ZERO);
        assert_eq!((same, included), (id, vec![false, true, true]));
        let context = cache.begin(id, 2, vec![(key(0), wanted(9))], &[key(1)], CONSUMER, Duration::ZERO).unwrap();
        let offsets: Vec<_> = context.partitions.iter().map(|(k, w)| (k.partition, w.from.offset)).collect();
        assert_eq!(offsets, [(0, 9), (2, 0)]);
    }

    const FOLLOWER: (bool, bool) = (true, true);

    fn followed(partition: i32) -> FetchKey {
        FetchKey { topic: "".into(), topic_id: TopicId::ZERO, partition }
    }

    /// A request of a follower, and the partitions that it reads.
    fn next(cache: &FetchSessionCache, id: i32, epoch: i32, named: &[i32]) -> (FetchContext, Vec<i32>) {
        let named = named.iter().map(|partition| (followed(*partition), wanted(0))).collect();
        let context = cache.begin(id, epoch, named, &[], FOLLOWER, Duration::ZERO).unwrap();
        let read = listed(&context);
        (context, read)
    }

    fn listed(context: &FetchContext) -> Vec<i32> {
        context.partitions.iter().map(|(key, _)| key.partition).collect()
    }

    #[test]
    fn f6_a_follower_s_request_reads_what_has_changed_until_the_follower_has_it() {
        let cache = cache(10);
        let (context, read) = next(&cache, 0, 0, &[0, 1, 2]);
        assert_eq!(read, [0, 1, 2]);
        let (id, _) = cache.finish(&context, &[update(5, false); 3], Duration::ZERO);
        let (context, read) = next(&cache, id, 1, &[]);
        assert_eq!(read, [0, 1, 2], "once more, since nobody has observed the partitions until now");
        let observers = Observers::default();
        observers.add(context.changed().unwrap());
        assert_eq!(cache.finish(&context, &[update(5, false); 3], Duration::ZERO).1, [false; 3]);
        assert!(next(&cache, id, 2, &[]).1.is_empty());
        // A partition with records stays on the list until it is read without any.
        observers.mark((TopicId::ZERO, 1));
        let (context, read) = next(&cache, id, 3, &[2]);
        assert_eq!(read, [2, 1]);
        assert_eq!(cache.finish(&context, &[update(5, false), update(6, true)], Duration::ZERO).1, [false, true]);
        let (mut context, read) = next(&cache, id, 4, &[]);
        assert_eq!(read, [1]);
        assert!(context.settle(&[update(6, false)]));
        observers.mark((TopicId::ZERO, 0));
        assert!(context.take_changed());
        assert_eq!(listed(&context), [0], "it changed while the request waited");
        // A request that the follower has given up ends, and takes nothing from the next one.
        observers.mark((TopicId::ZERO, 2));
        let (later, read) = next(&cache, id, 5, &[]);
        assert_eq!(read, [0, 2]);
        assert!(!context.take_changed() && !context.settle(&[update(6, false)]));
        assert_eq!(cache.finish(&context, &[], Duration::ZERO), (id, vec![]));
        let included = cache.finish(&later, &[ERROR, update(9, false)], Duration::ZERO).1;
        assert_eq!(included, [true, true], "nothing is sent to nobody");
        assert_eq!(next(&cache, id, 6, &[]).1, [0, 2], "an error is read again, and so is what was sent just now");
    }

    /// The later request comes while the earlier one reads, not while it waits.
    #[test]
    fn f6_a_request_that_was_given_up_during_its_read_is_answered_without_partitions() {
        let cache = cache(10);
        let (context, _) = next(&cache, 0, 0, &[0, 1]);
        let (id, _) = cache.finish(&context, &[update(5, false); 2], Duration::ZERO);
        let (mut context, read) = next(&cache, id, 1, &[]);
        assert_eq!(read, [0, 1]);
        let (_, read) = next(&cache, id, 2, &[]);
        assert_eq!(read, [0, 1]);
        assert!(!context.settle(&[update(5, false); 2]));
        assert_eq!(cache.finish(&context, &[], Duration::ZERO), (id, vec![]));
    }

    #[test]
    fn f6_what_a_follower_forgets_is_read_no_more() {
        let cache = cache(10);
        let (context, _) = next(&cache, 0, 0, &[0, 1]);
        let (id, _) = cache.finish(&context, &[update(5, false); 2], Duration::ZERO);
        let context = cache.begin(id, 1, vec![], &[followed(0)], FOLLOWER, Duration::ZERO).unwrap();
        assert_eq!(listed(&context), [1]);
        let observers = Observers::default();
        observers.add(context.changed().unwrap());
        cache.finish(&context, &[update(5, false)], Duration::ZERO);
        observers.mark((TopicId::ZERO, 0));
        assert!(next(&cache, id, 2, &[]).1.is_empty());
    }

    #[test]
    fn f6_an_error_is_sent_again_and_what_follows_it_too() {
        let cache = cache(10);
        let id = opened(&cache, 1);
        for (epoch, (update, is_included)) in
            [(update(5, false), false), (ERROR, true), (ERROR, true), (update(5, false), true)].into_iter().enumerate()
        {
            let context = cache.begin(id, 1 + epoch as i32, vec![], &[], CONSUMER, Duration::ZERO).unwrap();
            assert_eq!(cache.finish(&context, &[update], Duration::ZERO).1, [is_included]);
        }
    }

    #[test]
    fn f6_wrong_ids_epochs_and_kinds_are_refused() {
        let cache = cache(10);
        let id = opened(&cache, 1);
        let begin = |id, epoch, ids| cache.begin(id, epoch, vec![], &[], (ids, false), Duration::ZERO).err();
        assert_eq!(begin(id ^ 1, 1, false), Some(SessionError::NotFound));
        assert_eq!(begin(id, 2, false), Some(SessionError::InvalidEpoch));
        assert_eq!(begin(id, 1, true), Some(SessionError::TopicIdMix));
        assert_eq!(begin(id, 1, false), None);
        assert_eq!(begin(id, FINAL_EPOCH, false), None);
        assert_eq!(begin(id, 2, false), Some(SessionError::NotFound), "the session must be closed");
    }

    #[test]
    fn f6_partitions_with_records_go_to_the_end_of_the_turn() {
        let cache = cache(10);
        let id = opened(&cache, 3);
        let context = cache.begin(id, 1, vec![], &[], CONSUMER, Duration::ZERO).unwrap();
        cache.finish(&context, &[update(5, true), update(5, false), update(5, false)], Duration::ZERO);
        let context = cache.begin(id, 2, vec![], &[], CONSUMER, Duration::ZERO).unwrap();
        let order: Vec<_> = context.partitions.iter().map(|(key, _)| key.partition).collect();
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn f6_who_names_more_than_a_session_remembers_goes_without_one() {
        let cache = cache(10);
        let most = MOST_PARTITIONS as i32;
        let named = |partitions: std::ops::Range<i32>| partitions.map(|p| (key(p), wanted(0))).collect::<Vec<_>>();
        let open = |count: i32| {
            let context = cache.begin(0, 0, named(0..count), &[], CONSUMER, Duration::ZERO).unwrap();
            cache.finish(&context, &vec![update(5, false); count as usize], Duration::ZERO).0
        };
        assert_eq!(open(most + 1), NO_SESSION);
        let id = open(most - 1);
        assert_ne!(id, NO_SESSION);
        let context = cache.begin(id, 1, named(most..most + 1), &[], CONSUMER, Duration::ZERO).unwrap();
        assert!(context.is_incremental());
        let context = cache.begin(id, 2, named(most + 1..most + 2), &[], CONSUMER, Duration::ZERO).unwrap();
        let finished = cache.finish(&context, &vec![update(5, false); most as usize + 1], Duration::ZERO);
        assert_eq!(finished, (NO_SESSION, vec![true; most as usize + 1]), "all partitions, and the session must end");
        let gone = cache.begin(id, 3, vec![], &[], CONSUMER, Duration::ZERO).err();
        assert_eq!(gone, Some(SessionError::NotFound));
    }

    #[test]
    fn f6_sessions_of_invented_partitions_take_bounded_memory_and_give_it_back() {
        const MAX_BYTES: usize = 1 << 20;
        let cache = FetchSessionCache::new(1_000, MAX_BYTES, Arc::new(SystemRandom::seeded(1)));
        let open_at = |name: &str, seconds| {
            let topic: Arc<str> = name.into();
            let key = |partition| FetchKey { topic: topic.clone(), topic_id: TopicId::ZERO, partition };
            let named: Vec<_> = (0..1_000).map(|partition| (key(partition), wanted(0))).collect();
            let now = Duration::from_secs(seconds);
            let context = cache.begin(0, 0, named, &[], CONSUMER, now).unwrap();
            cache.finish(&context, &[ERROR; 1_000], now).0
        };
        let used = || cache.used_bytes.load(Ordering::Relaxed);
        let ids: Vec<i32> = (0..200).map(|number| open_at(&format!("{number}{}", "x".repeat(200)), 0)).collect();
        let opened = ids.iter().filter(|id| **id != NO_SESSION).count();
        assert!((3..20).contains(&opened), "{opened}");
        assert!(used() <= MAX_BYTES);
        // A session that becomes too large gets a full response and ends; other sessions stay.
        let more = (1_000..9_000).map(|partition| (key(partition), wanted(0))).collect();
        let context = cache.begin(ids[0], 1, more, &[], CONSUMER, Duration::ZERO).unwrap();
        assert!(!context.is_incremental() && context.partitions.len() == 9_000);
        assert!(cache.begin(ids[1], 1, vec![], &[], CONSUMER, Duration::ZERO).unwrap().is_incremental());
        // After two minutes idle sessions are evicted.
        assert_ne!(open_at("late", 130), NO_SESSION);
        assert!(cache.counts().evicted > 0 || cache.counts().sessions == opened);
        for id in ids {
            let _ = cache.begin(id, FINAL_EPOCH, vec![], &[], CONSUMER, Duration::from_secs(130));
        }
        drop(context);
        assert_eq!(cache.counts().sessions, 1);
        assert!(used() < MAX_BYTES / 3, "{}", used());
    }

    #[test]
    fn a_session_that_its_follower_has_lost_ends_when_another_is_opened() {
        let cache = cache(10);
        let open_at = |kind, seconds| open_at(&cache, kind, seconds);
        let lost = open_at(FOLLOWER, 0);
        let consumer = open_at(CONSUMER, 0);
        open_at(FOLLOWER, 119);
        assert_eq!(cache.counts().sessions, 3);
        open_at(CONSUMER, 120);
        assert_eq!(cache.counts().sessions, 4);
        open_at(FOLLOWER, 120);
        assert_eq!((cache.counts().sessions, cache.counts().evicted), (4, 1));
        assert!(!lock(&cache.sessions).contains_key(&lost) && lock(&cache.sessions).contains_key(&consumer));
    }

    #[test]
    fn f6_a_full_cache_gives_up_only_sessions_idle_for_two_minutes() {
        let cache = cache(1);
        let first = opened(&cache, 1);
        let open_at = |seconds| open_at(&cache, CONSUMER, seconds);
        assert_eq!(open_at(119), NO_SESSION);
        assert_ne!(open_at(120), NO_SESSION);
        let gone = cache.begin(first, 1, vec![], &[], CONSUMER, Duration::ZERO).err();
        assert_eq!(gone, Some(SessionError::NotFound));
    }

    #[test]
    fn f6_a_follower_evicts_the_consumer_that_was_idle_longest() {
        let cache = cache(2);
        let open_at = |kind, seconds| open_at(&cache, kind, seconds);
        let (first, second) = (open_at(CONSUMER, 0), open_at(CONSUMER, 1));
        let follower = open_at(FOLLOWER, 2);
        assert_ne!(follower, NO_SESSION);
        let has = |id| lock(&cache.sessions).contains_key(&id);
        assert_eq!((has(first), has(second)), (false, true));
        assert_eq!(open_at(CONSUMER, 3), NO_SESSION);
        assert_ne!(open_at(FOLLOWER, 4), NO_SESSION);
        assert_eq!(open_at(FOLLOWER, 5), NO_SESSION, "a follower evicts no follower");
        assert!(has(follower) && !has(second));
    }

    /// Consumers at the end of their partitions nearly always wait in a request, which holds their session.
    #[test]
    fn f6_a_follower_evicts_no_more_consumers_than_it_needs_room_for() {
        let one = session_bytes([key(0)].iter());
        let cache = FetchSessionCache::new(1000, 10 * one, Arc::new(SystemRandom::seeded(1)));
        let ids: Vec<i32> = (0..10).map(|_| opened(&cache, 1)).collect();
        let waiting: Vec<_> =
            ids.iter().map(|id| cache.begin(*id, 1, vec![], &[], CONSUMER, Duration::ZERO).unwrap()).collect();
        let (context, _) = next(&cache, 0, 0, &[0]);
        let id = cache.finish(&context, &[update(5, false)], Duration::from_secs(1)).0;
        let left = ids.iter().filter(|id| lock(&cache.sessions).contains_key(id)).count();
        drop(waiting);
        assert_eq!((id == NO_SESSION, left), (false, 9));
    }

    #[test]
    fn f6_a_follower_that_finds_no_room_anyway_evicts_nobody() {
        let one = session_bytes([key(0)].iter());
        let cache = FetchSessionCache::new(1000, 10 * one, Arc::new(SystemRandom::seeded(1)));
        let ids: Vec<i32> = (0..5).map(|_| opened(&cache, 1)).collect();
        let all: Vec<i32> = (0..100).collect();
        let (context, _) = next(&cache, 0, 0, &all);
        let id = cache.finish(&context, &[update(5, false); 100], Duration::from_secs(1)).0;
        let left = ids.iter().filter(|id| lock(&cache.sessions).contains_key(id)).count();
        assert_eq!((id, left), (NO_SESSION, 5));
    }
}
