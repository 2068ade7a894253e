//! The newest offset of each key in the dirty part of a log, in bounded memory.
//!
//! As Kafka's `SkimpyOffsetMap` it holds a hash of 128 bits for each key, not the key: two keys of one partition would
//! have to collide by chance, since the hash is seeded anew for each cleaning and a client cannot choose keys that do.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::types::Offset;

/// Bytes of memory for a key.
pub(super) const SLOT_BYTES: usize = size_of::<Slot>();
const LEAST_SLOTS: usize = 1024;
/// Part of the slots that is used before the map grows.
const GROWTH_LOAD: f64 = 0.7;

/// The hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHash(u64, u64);

/// Computes the hash of a key whose bytes come in pieces.
#[derive(Clone)]
pub(super) struct KeyHasher(SipHasher13);

impl KeyHasher {
    pub(super) fn write(&mut self, piece: &[u8]) {
        self.0.write(piece);
    }

    pub(super) fn finish(&self) -> KeyHash {
        let hash = self.0.finish128();
        KeyHash(hash.h1, hash.h2)
    }
}

#[derive(Clone, Copy)]
struct Slot {
    key: KeyHash,
    /// -1 if the slot is free.
    offset: Offset,
}

const FREE: Slot = Slot { key: KeyHash(0, 0), offset: -1 };

/// See the module.
pub(super) struct OffsetMap {
    seed: (u64, u64),
    slots: Vec<Slot>,
    used: usize,
    most_slots: usize,
    most_used: usize,
}

impl OffsetMap {
    /// A map that takes at most `most_bytes` (`log.cleaner.dedupe.buffer.size`), of which it fills the part `load`
    /// (`log.cleaner.io.buffer.load.factor`). It begins small and grows.
    pub(super) fn new(seed: (u64, u64), most_bytes: usize, load: f64) -> Self {
        let most_slots = (most_bytes / SLOT_BYTES).max(2);
        // One slot stays free, so that a search ends.
        let most_used = ((most_slots as f64 * load) as usize).clamp(1, most_slots - 1);
        OffsetMap { seed, slots: vec![FREE; LEAST_SLOTS.min(most_slots)], used: 0, most_slots, most_used }
    }

    /// A hasher for one key.
    pub(super) fn hasher(&self) -> KeyHasher {
        KeyHasher(SipHasher13::new_with_keys(self.seed.0, self.seed.1))
    }

    /// Whether no other key may be added.
    pub(super) fn is_full(&self) -> bool {
        self.used >= self.most_used
    }

    /// The part of the memory that is used, from 0 to 1.
    pub(super) fn utilization(&self) -> f64 {
        self.used as f64 / self.most_slots as f64
    }

    /// Notes that `key` is at `offset`, which is larger than all offsets before. Returns false if the map is full and
    /// does not know the key.
    pub(super) fn put(&mut self, key: KeyHash, offset: Offset) -> bool {
        let at = self.position(key);
        if self.slots[at].offset >= 0 {
            self.slots[at].offset = offset;
            return true;
        }
        if self.is_full() {
            return false;
        }
        self.slots[at] = Slot { key, offset };
        self.used += 1;
        if self.slots.len() < self.most_slots && self.used as f64 > self.slots.len() as f64 * GROWTH_LOAD {
            self.grow();
        }
        true
    }

    /// The newest offset of `key`, if the map knows it.
    pub(super) fn get(&self, key: KeyHash) -> Option<Offset> {
        Some(self.slots[self.position(key)].offset).filter(|offset| *offset >= 0)
    }

    /// The slot of `key`, or the free one where it would be.
    fn position(&self, key: KeyHash) -> usize {
        let mut at = (key.0 % self.slots.len() as u64) as usize;
        while self.slots[at].offset >= 0 && self.slots[at].key != key {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).min(self.most_slots);
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots]);
        for slot in old.into_iter().filter(|slot| slot.offset >= 0) {
            let at = self.position(slot.key);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(map: &OffsetMap, key: &[u8]) -> KeyHash {
        let mut hasher = map.hasher();
        key.chunks(3).for_each(|piece| hasher.write(piece));
        hasher.finish()
    }

    #[test]
    fn the_newest_offset_of_each_key_is_known_until_the_memory_is_full() {
        let slots = 5_000;
        let mut map = OffsetMap::new((1, 2), slots * SLOT_BYTES, 0.9);
        let key = |n: usize| format!("key-{n}").into_bytes();
        for offset in 0..4_500 {
            assert!(map.put(hash(&map, &key(offset)), offset as i64));
        }
        assert!(map.is_full());
        assert_eq!((map.used, map.utilization()), (4_500, 0.9));
        assert!(!map.put(hash(&map, b"another"), 4_500), "there is no room");
        assert!(map.put(hash(&map, &key(7)), 4_500), "it is known");
        assert_eq!(map.get(hash(&map, &key(7))), Some(4_500));
        for offset in 8..4_500 {
            assert_eq!(map.get(hash(&map, &key(offset))), Some(offset as i64));
        }
        assert_eq!(map.get(hash(&map, b"another")), None);
    }

    #[test]
    fn keys_in_pieces_and_the_empty_key_have_one_hash() {
        let map = OffsetMap::new((1, 2), 1 << 20, 0.9);
        let mut whole = map.hasher();
        whole.write(b"0123456789");
        assert_eq!(hash(&map, b"0123456789"), whole.finish());
        assert_ne!(hash(&map, b""), hash(&map, b"0"));
        let other = OffsetMap::new((1, 3), 1 << 20, 0.9);
        assert_ne!(hash(&map, b"a"), hash(&other, b"a"), "a client cannot find keys that collide");
    }
}
