//! Hash table whose entries are also in the order of their last use.
//!
//! The crate `lru` has no serde support, and a stored table must keep its order. Entries are in slots that form a doubly
//! linked list. The hash is hashbrown's default, which is seeded: the keys come from attackers.

use std::hash::Hash;

use hashbrown::HashMap;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// End of the list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    older: u32,
    newer: u32,
}

#[derive(Clone, Debug)]
pub(super) struct LruTable<K, V> {
    index: HashMap<K, u32>,
    slots: Vec<Option<Slot<K, V>>>,
    free: Vec<u32>,
    oldest: u32,
    newest: u32,
}

impl<K, V> Default for LruTable<K, V> {
    fn default() -> Self {
        LruTable { index: HashMap::new(), slots: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE }
    }
}

impl<K: Copy + Eq + Hash, V> LruTable<K, V> {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, key: &K) -> bool {
        !self.index.is_empty() && self.index.contains_key(key)
    }

    /// Returns the value without a change of the order.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let slot = *self.index.get(key)?;
        self.slot_mut(slot).map(|slot| &mut slot.value)
    }

    /// Returns the value and makes its entry the newest.
    pub(super) fn touch(&mut self, key: &K) -> Option<&mut V> {
        let slot = *self.index.get(key)?;
        if slot != self.newest {
            self.unlink(slot);
            self.link_newest(slot);
        }
        self.slot_mut(slot).map(|slot| &mut slot.value)
    }

    /// Adds an entry as the newest. Replaces the value of an existing one.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if let Some(existing) = self.touch(&key) {
            *existing = value;
            return;
        }
        let entry = Some(Slot { key, value, older: NONE, newer: NONE });
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.slots.get_mut(slot as usize) {
                    *place = entry;
                }
                slot
            }
            None => {
                self.slots.push(entry);
                // The bounds of the callers are far below 2^32 entries.
                (self.slots.len() - 1) as u32
            }
        };
        self.index.insert(key, slot);
        self.link_newest(slot);
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        if self.index.is_empty() {
            return None;
        }
        let slot = self.index.remove(key)?;
        self.unlink(slot);
        self.free.push(slot);
        self.slots.get_mut(slot as usize)?.take().map(|slot| slot.value)
    }

    pub(super) fn oldest(&self) -> Option<(&K, &V)> {
        self.slot(self.oldest).map(|slot| (&slot.key, &slot.value))
    }

    pub(super) fn remove_oldest(&mut self) -> Option<(K, V)> {
        let key = *self.oldest()?.0;
        self.remove(&key).map(|value| (key, value))
    }

    /// Returns the entries, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let slot = self.slot(next)?;
            next = slot.newer;
            Some((&slot.key, &slot.value))
        })
    }

    fn slot(&self, slot: u32) -> Option<&Slot<K, V>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<K, V>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn unlink(&mut self, slot: u32) {
        let Some(&Slot { older, newer, .. }) = self.slot(slot) else { return };
        match self.slot_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.oldest = newer,
        }
        match self.slot_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let older = self.newest;
        if let Some(entry) = self.slot_mut(slot) {
            (entry.older, entry.newer) = (older, NONE);
        }
        match self.slot_mut(older) {
            Some(entry) => entry.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }
}

impl<K: Copy + Eq + Hash + Serialize, V: Serialize> Serialize for LruTable<K, V> {
    /// Writes the entries as a sequence of pairs, the oldest first.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries: Vec<(&K, &V)> = self.iter().collect();
        entries.serialize(serializer)
    }
}

impl<'de, K: Copy + Eq + Hash + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for LruTable<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = LruTable::default();
        for (key, value) in Vec::<(K, V)>::deserialize(deserializer)? {
            table.insert(key, value);
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(table: &LruTable<u32, u32>) -> Vec<u32> {
        table.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn a_use_makes_an_entry_the_newest() {
        let mut table = LruTable::default();
        for key in 0..4 {
            table.insert(key, key * 10);
        }
        assert_eq!(table.touch(&1), Some(&mut 10));
        assert_eq!(table.get_mut(&0), Some(&mut 0));
        assert_eq!(keys(&table), [0, 2, 3, 1]);
        assert_eq!(table.remove_oldest(), Some((0, 0)));
        assert_eq!(table.remove(&3), Some(30));
        table.insert(9, 90);
        table.insert(2, 21);
        assert_eq!(keys(&table), [1, 9, 2]);
        assert_eq!(table.len(), 3);
        assert!(table.contains(&9) && !table.contains(&3));
    }

    #[test]
    fn a_stored_table_keeps_its_order() {
        let mut table = LruTable::<u32, u32>::default();
        for key in [5, 1, 7] {
            table.insert(key, key);
        }
        table.touch(&5);
        let bytes = postcard::to_allocvec(&table).unwrap();
        let restored: LruTable<u32, u32> = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(keys(&restored), [1, 7, 5]);
    }

    #[test]
    fn random_use_agrees_with_a_vector() {
        let mut random = super::super::samples::Random::new(3);
        let mut table = LruTable::default();
        let mut model: Vec<(u32, u32)> = Vec::new();
        for step in 0..20_000 {
            let key = random.below(40);
            let position = model.iter().position(|(k, _)| *k == key);
            match random.below(4) {
                0 => {
                    table.insert(key, step);
                    position.map(|at| model.remove(at));
                    model.push((key, step));
                }
                1 => {
                    let entry = position.map(|at| model.remove(at));
                    assert_eq!(table.touch(&key).copied(), entry.map(|(_, value)| value));
                    model.extend(entry);
                }
                2 => {
                    assert_eq!(table.remove(&key), position.map(|at| model.remove(at).1));
                }
                _ if step % 7 == 0 => {
                    let oldest = (!model.is_empty()).then(|| model.remove(0));
                    assert_eq!(table.remove_oldest(), oldest);
                }
                _ => {}
            }
            assert!(table.iter().map(|(k, v)| (*k, *v)).eq(model.iter().copied()));
        }
    }
}
