//! A sorted map for mostly one entry or a few.
//!
//! A node of a `BTreeMap` has room for eleven entries, so for a group with one offset most of it would be unused.
//! This map keeps a few entries in a vector without spare capacity, and more entries in a `BTreeMap`.

use std::{borrow::Borrow, collections::BTreeMap, ops::Bound};

/// The most entries in the vector. More are kept in a `BTreeMap`, because a change of the vector moves its entries.
const FEW: usize = 8;

/// A sorted map; see the head of this file.
#[derive(Debug, Clone)]
pub(super) struct SmallMap<K, V>(Entries<K, V>);

#[derive(Debug, Clone)]
enum Entries<K, V> {
    /// Sorted.
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        SmallMap(Entries::Few(Vec::new()))
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            Entries::Few(few) => few.len(),
            Entries::Many(many) => many.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| (&few[at].0, &few[at].1)),
            Entries::Many(many) => many.get_key_value(key),
        }
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| &mut few[at].1),
            Entries::Many(many) => many.get_mut(key),
        }
    }

    /// Returns the previous value.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match &mut self.0 {
            Entries::Few(few) => match find(few, &key) {
                Ok(at) => return Some(std::mem::replace(&mut few[at].1, value)),
                Err(at) if few.len() < FEW => {
                    few.reserve_exact(1);
                    few.insert(at, (key, value));
                }
                Err(_) => {
                    let mut many: BTreeMap<K, V> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    self.0 = Entries::Many(many);
                }
            },
            Entries::Many(many) => return many.insert(key, value),
        }
        None
    }

    /// Returns the previous value.
    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            Entries::Few(few) => find(few, key).ok().map(|at| few.remove(at).1),
            Entries::Many(many) => many.remove(key),
        }
    }

    /// The entries in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.from(Bound::Unbounded::<&K>)
    }

    /// The entries from `start` on, in the order of their keys.
    pub(super) fn from<'a, Q: Ord + ?Sized>(&'a self, start: Bound<&Q>) -> impl Iterator<Item = (&'a K, &'a V)>
    where
        K: Borrow<Q> + 'a,
    {
        let (few, many) = match &self.0 {
            Entries::Few(few) => {
                let first = few.partition_point(|(key, _)| match start {
                    Bound::Included(start) => key.borrow() < start,
                    Bound::Excluded(start) => key.borrow() <= start,
                    Bound::Unbounded => false,
                });
                (&few[first..], None)
            }
            Entries::Many(many) => (&[][..], Some(many.range((start, Bound::Unbounded)))),
        };
        few.iter().map(|(key, value)| (key, value)).chain(many.into_iter().flatten())
    }
}

impl<K, V> SmallMap<K, V> {
    /// The entries in the order of their keys.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (K, V)> {
        let (few, many) = match self.0 {
            Entries::Few(few) => (few, None),
            Entries::Many(many) => (Vec::new(), Some(many)),
        };
        few.into_iter().chain(many.into_iter().flatten())
    }
}

impl<K: Ord, V: PartialEq> PartialEq for SmallMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: Ord, V: Eq> Eq for SmallMap<K, V> {}

fn find<K: Borrow<Q>, V, Q: Ord + ?Sized>(few: &[(K, V)], key: &Q) -> Result<usize, usize> {
    few.binary_search_by(|(at, _)| at.borrow().cmp(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_sorted_map(changes in prop::collection::vec((any::<bool>(), 0..20, any::<u8>()), 0..60)) {
            let (mut map, mut expected) = (SmallMap::default(), BTreeMap::new());
            for (is_insert, key, value) in changes {
                if is_insert {
                    prop_assert_eq!(map.insert(key, value), expected.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), expected.remove(&key));
                }
                prop_assert_eq!(map.len(), expected.len());
                prop_assert_eq!(map.get(&key), expected.get(&key));
                prop_assert_eq!(map.get_mut(&key), expected.get_mut(&key));
                prop_assert!(map.iter().eq(expected.iter()));
                prop_assert!(map.from(Bound::Included(&key)).eq(expected.range(key..)));
                prop_assert!(map.from(Bound::Excluded(&key)).eq(expected.range(key + 1..)));
            }
            prop_assert!(map.clone().into_entries().eq(expected.clone()));
            let mut again = SmallMap::default();
            for (key, value) in expected {
                again.insert(key, value);
            }
            prop_assert_eq!(map, again, "a map must equal one with the same entries");
        }
    }
}
