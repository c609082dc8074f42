//! CORE: a table of fixed capacity whose keys go stale. A key is an index and a generation; once its entry is removed
//! the key never matches again, so whatever arrives late for one client cannot reach the next one in its place.

/// Names one entry of [`Slots`], for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Position in the table, below its capacity.
    pub index: u32,
    /// How often the position was given out, never 0. After 2^32 - 1 rounds it starts again at 1.
    pub generation: u32,
}

/// At most `capacity` values, each found by its [`Slot`] until it is removed.
#[derive(Debug)]
pub struct Slots<T> {
    entries: Vec<Entry<T>>,
    /// Indexes of the vacant entries. The last one freed is the first one used: its memory is still warm.
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    /// An empty table that will never hold more than `capacity` values.
    pub fn new(capacity: u32) -> Slots<T> {
        Slots {
            entries: (0..capacity).map(|_| Entry { generation: 1, value: None }).collect(),
            vacant: (0..capacity).rev().collect(),
        }
    }

    /// How many values it holds.
    pub fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the next [`Slots::insert`] would be refused.
    pub fn is_full(&self) -> bool {
        self.vacant.is_empty()
    }

    /// Stores a value.
    ///
    /// # Errors
    /// The value itself, when the table is full.
    pub fn insert(&mut self, value: T) -> Result<Slot, T> {
        let Some(index) = self.vacant.pop() else { return Err(value) };
        let entry = &mut self.entries[index as usize];
        entry.value = Some(value);
        Ok(Slot { index, generation: entry.generation })
    }

    /// The value of this slot, unless it was removed.
    pub fn get(&self, slot: Slot) -> Option<&T> {
        let entry = self.entries.get(slot.index as usize)?;
        if entry.generation == slot.generation { entry.value.as_ref() } else { None }
    }

    /// The value of this slot, unless it was removed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation == slot.generation { entry.value.as_mut() } else { None }
    }

    /// Takes the value out and makes the slot stale. `None` if it was stale already.
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.entries.get_mut(slot.index as usize)?;
        if entry.generation != slot.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = entry.generation.checked_add(1).unwrap_or(1);
        self.vacant.push(slot.index);
        Some(value)
    }

    /// Every value with its slot, in the order of the table.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Slot, &mut T)> {
        (0u32..).zip(&mut self.entries).filter_map(|(index, entry)| {
            let slot = Slot { index, generation: entry.generation };
            entry.value.as_mut().map(|value| (slot, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_slot_never_matches_again() {
        let mut slots = Slots::new(1);
        let first = slots.insert('a').unwrap();
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b').unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&'b'));
    }

    #[test]
    fn a_full_table_gives_the_value_back() {
        let mut slots = Slots::new(2);
        let a = slots.insert('a').unwrap();
        slots.insert('b').unwrap();
        assert!(slots.is_full());
        assert_eq!(slots.insert('c'), Err('c'));
        assert_eq!(slots.len(), 2);
        slots.remove(a);
        assert!(slots.insert('c').is_ok());
    }

    #[test]
    fn a_generation_is_never_zero() {
        let mut slots = Slots::new(1);
        slots.entries[0].generation = u32::MAX;
        let last = slots.insert('a').unwrap();
        assert_eq!(last.generation, u32::MAX);
        slots.remove(last);
        assert_eq!(slots.insert('b').unwrap().generation, 1);
    }

    #[test]
    fn a_slot_of_another_table_is_refused() {
        let mut slots: Slots<char> = Slots::new(1);
        let foreign = Slot { index: 7, generation: 1 };
        assert_eq!(slots.get(foreign), None);
        assert_eq!(slots.remove(foreign), None);
    }

    #[test]
    fn iteration_visits_exactly_what_is_there() {
        let mut slots = Slots::new(3);
        let a = slots.insert('a').unwrap();
        let b = slots.insert('b').unwrap();
        slots.remove(a);
        assert_eq!(slots.iter_mut().map(|(slot, value)| (slot, *value)).collect::<Vec<_>>(), [(b, 'b')]);
    }
}
