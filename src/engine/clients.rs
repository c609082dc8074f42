//! CORE: the HTTP clients by slot, and which of them are due: something happened to them since the last poll.

use crate::bank::{Outcome, Reject};
use crate::engine::client::{Client, Context};
use crate::slots::{Slot, Slots};

/// All clients of one engine.
pub struct Clients {
    slots: Slots<Entry>,
    /// In the order in which they became due; no slot twice.
    due: Vec<Slot>,
}

struct Entry {
    client: Client,
    is_due: bool,
}

impl Clients {
    /// Room for this many, and none yet.
    pub fn new(clients_max: u32) -> Clients {
        Clients { slots: Slots::new(clients_max), due: Vec::new() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether there is no room for another one.
    pub fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Adds a client, which is due at once. `None` if there is no room.
    pub fn insert(&mut self, client: Client) -> Option<Slot> {
        let slot = self.slots.insert(Entry { client, is_due: false }).ok()?;
        self.mark_due(slot);
        Some(slot)
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: Slot) {
        self.slots.remove(slot);
    }

    /// The client of a slot; `None` once it was removed.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Client> {
        self.slots.get_mut(slot).map(|entry| &mut entry.client)
    }

    /// Whether the client of a slot is there and awaits the answer of its call.
    pub fn is_awaiting(&self, slot: Slot) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.client.is_awaiting())
    }

    /// Each client.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.slots.iter_mut().map(|(_, entry)| &mut entry.client)
    }

    /// The clients that are due, in the order in which they became so.
    pub fn due(&self) -> &[Slot] {
        &self.due
    }

    /// Makes a client due, unless it is already or has left.
    pub fn mark_due(&mut self, slot: Slot) {
        if let Some(entry) = self.slots.get_mut(slot)
            && !entry.is_due
        {
            entry.is_due = true;
            self.due.push(slot);
        }
    }

    /// Moves the due clients into `into`, which is overwritten; none is due afterwards.
    pub fn take_due(&mut self, into: &mut Vec<Slot>) {
        into.clear();
        std::mem::swap(into, &mut self.due);
        for &slot in &*into {
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.is_due = false;
            }
        }
    }

    /// Ends a client's call, and makes the client due. If the client has left, the outcome is counted and dropped: the slot
    /// is stale.
    pub fn deliver(&mut self, slot: Slot, outcome: Outcome<'_>, context: &mut Context) {
        if let Outcome::Rejected(Reject::Unavailable(reason)) = outcome {
            context.metrics.count_unavailable(reason);
        }
        match self.get_mut(slot) {
            Some(client) if client.is_awaiting() => {
                client.answer(outcome, context);
                self.mark_due(slot);
            }
            Some(_) | None => context.metrics.answers_late += 1,
        }
    }

    /// Acts on the deadlines that have passed, and makes those clients due.
    pub fn expire(&mut self, context: &mut Context) {
        for (slot, entry) in self.slots.iter_mut() {
            // A due client may have its request in the inbox, so its deadline is judged later. But a lingering client is
            // always due while its peer sends, so it is judged now.
            let is_judged = !entry.is_due || entry.client.is_lingering();
            if is_judged && context.now.is_past(entry.client.deadline_us()) {
                entry.client.expire(context);
                if !entry.is_due {
                    entry.is_due = true;
                    self.due.push(slot);
                }
            }
        }
    }
}
