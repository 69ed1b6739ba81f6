//! Journals in memory: for tests and demonstrations; gone when the process ends.

use std::{
    collections::{HashMap, VecDeque},
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{AppendError, Durability, Journal, Opened, ReadError, StoreFuture};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Epoch, Revision, RoomName},
};

/// How many entries of a room are kept behind its snapshot.
pub const KEEP_ENTRIES: usize = 10_000;

/// A journal that keeps the last [`KEEP_ENTRIES`] entries a room.
pub struct MemoryJournal {
    /// One for all rooms: together they begin and end with this process.
    epoch: Epoch,
    rooms: Mutex<HashMap<RoomName, Kept>>,
}

struct Kept {
    batches: VecDeque<Arc<Batch>>,
    entries: usize,
    end: Position,
    snapshot: Option<Snapshot>,
}

impl MemoryJournal {
    pub fn new() -> Self {
        Self {
            epoch: Epoch(Uuid::new_v4()),
            rooms: Mutex::default(),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomName, Kept>> {
        // Nothing below can panic between two changes that belong together.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, room: &RoomName, batch: Arc<Batch>) -> Result<Position, AppendError> {
        let mut rooms = self.rooms();
        let end = rooms
            .get(room)
            .map_or(Position::start(self.epoch), |kept| kept.end);
        if end != batch.after {
            let kept = rooms.get(room).into_iter().flat_map(|kept| &kept.batches);
            let since = kept
                .filter(|other| other.end().rev > batch.after.rev)
                .cloned()
                .collect();
            return Err(AppendError::Conflict { since });
        }
        let kept = rooms.entry(room.clone()).or_insert_with(|| Kept {
            batches: VecDeque::new(),
            entries: 0,
            end,
            snapshot: None,
        });
        kept.end = batch.end();
        kept.entries += batch.entries.len();
        kept.batches.push_back(batch);
        kept.drop_oldest();
        Ok(kept.end)
    }

    fn open_now(&self, room: &RoomName) -> Opened {
        let start = Position::start(self.epoch);
        match self.rooms().get(room) {
            Some(kept) => Opened {
                end: kept.end,
                snapshot: kept.snapshot.clone(),
                start,
            },
            None => Opened {
                end: start,
                snapshot: None,
                start,
            },
        }
    }

    fn replay_now(
        &self,
        room: &RoomName,
        after: Revision,
        max_entries: usize,
    ) -> Result<Vec<Arc<Batch>>, ReadError> {
        let rooms = self.rooms();
        let Some(kept) = rooms.get(room) else {
            return Ok(Vec::new());
        };
        if let Some(first) = kept.batches.front()
            && after < first.after.rev
        {
            return Err(ReadError::Gone {
                first: first.after.rev.next(),
            });
        }
        let mut entries = 0;
        let later = kept.batches.iter().filter(|batch| batch.end().rev > after);
        let piece = later.take_while(|batch| {
            let more = entries < max_entries.max(1);
            entries += batch.entries.len();
            more
        });
        Ok(piece.cloned().collect())
    }

    fn save_now(&self, room: &RoomName, snapshot: Snapshot) {
        if let Some(kept) = self.rooms().get_mut(room) {
            let newest = kept.snapshot.as_ref().map(|kept| kept.position.rev);
            let fits =
                snapshot.position.epoch == kept.end.epoch && snapshot.position.rev <= kept.end.rev;
            if fits && newest < Some(snapshot.position.rev) {
                kept.snapshot = Some(snapshot);
                kept.drop_oldest();
            }
        }
    }
}

impl Kept {
    /// Drops what is too many, but nothing that the snapshot does not hold.
    fn drop_oldest(&mut self) {
        let Some(snapshot) = &self.snapshot else {
            return;
        };
        while let Some(oldest) = self.batches.front() {
            let held = oldest.end().rev <= snapshot.position.rev;
            let rest = self.entries - oldest.entries.len();
            if !held || rest < KEEP_ENTRIES {
                break;
            }
            self.entries = rest;
            self.batches.pop_front();
        }
    }
}

impl Default for MemoryJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal for MemoryJournal {
    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn append<'a>(
        &'a self,
        room: &'a RoomName,
        batch: Arc<Batch>,
    ) -> StoreFuture<'a, Position, AppendError> {
        Box::pin(ready(self.append_now(room, batch)))
    }

    fn open<'a>(&'a self, room: &'a RoomName) -> StoreFuture<'a, Opened, ReadError> {
        Box::pin(ready(Ok(self.open_now(room))))
    }

    fn replay<'a>(
        &'a self,
        room: &'a RoomName,
        after: Revision,
        max_entries: usize,
    ) -> StoreFuture<'a, Vec<Arc<Batch>>, ReadError> {
        Box::pin(ready(self.replay_now(room, after, max_entries)))
    }

    fn save<'a>(
        &'a self,
        room: &'a RoomName,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, (), ReadError> {
        self.save_now(room, snapshot);
        Box::pin(ready(Ok(())))
    }
}
