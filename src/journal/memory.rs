//! Journals in memory: for tests and demonstrations; gone when the process ends.

use std::{
    collections::{BTreeMap, VecDeque},
    future::ready,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

use super::{AppendError, Durability, Journal, Opened, ReadError, StoreFuture};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Epoch, Revision, RoomName},
};

/// How many entries of a room are kept behind its snapshot.
pub const KEEP_ENTRIES: u64 = 10_000;

/// A journal that keeps the last [`KEEP_ENTRIES`] entries a room.
pub struct MemoryJournal {
    id: Uuid,
    /// One for all rooms: together they begin and end with this process.
    epoch: Epoch,
    rooms: Mutex<BTreeMap<RoomName, Kept>>,
}

struct Kept {
    epoch: Epoch,
    batches: VecDeque<Arc<Batch>>,
    end: Position,
    /// Oldest first. What is kept of the journal begins at the first of them.
    snapshots: VecDeque<Snapshot>,
}

impl MemoryJournal {
    pub fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            epoch: Epoch(Uuid::new_v4()),
            rooms: Mutex::default(),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomName, Kept>> {
        // Nothing below can panic between two changes that belong together.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the room, which must end there, and makes it where it has no entries yet.
    fn ending<'a>(
        &self,
        rooms: &'a mut BTreeMap<RoomName, Kept>,
        room: &RoomName,
        after: Position,
    ) -> Result<&'a mut Kept, AppendError> {
        let known = rooms.get(room);
        if known.map_or(Position::start(self.epoch), |kept| kept.end) != after {
            let since = known.map_or_else(Vec::new, |kept| kept.since(after));
            return Err(AppendError::Conflict { since });
        }
        Ok(rooms
            .entry(room.clone())
            .or_insert_with(|| Kept::new(after)))
    }

    fn append_now(&self, room: &RoomName, batch: Arc<Batch>) -> Result<Position, AppendError> {
        let mut rooms = self.rooms();
        let kept = self.ending(&mut rooms, room, batch.after)?;
        kept.end = batch.end();
        kept.batches.push_back(batch);
        kept.drop_oldest();
        Ok(kept.end)
    }

    fn open_now(&self, room: &RoomName) -> Opened {
        match self.rooms().get(room) {
            Some(kept) => Opened {
                end: kept.end,
                snapshot: kept.snapshots.back().cloned(),
                start: Position::start(kept.epoch),
            },
            None => Opened {
                end: Position::start(self.epoch),
                snapshot: None,
                start: Position::start(self.epoch),
            },
        }
    }

    fn snapshot_at_now(&self, room: &RoomName, until: Revision) -> Option<Snapshot> {
        let rooms = self.rooms();
        let mut newest_first = rooms.get(room)?.snapshots.iter().rev();
        newest_first
            .find(|snapshot| snapshot.position.rev <= until)
            .cloned()
    }

    fn replay_now(
        &self,
        room: &RoomName,
        after: Position,
        max_entries: usize,
    ) -> Result<Vec<Arc<Batch>>, ReadError> {
        let rooms = self.rooms();
        let Some(kept) = rooms.get(room) else {
            return Ok(Vec::new());
        };
        let begins = kept.batches.front().map_or(kept.end, |first| first.after);
        if after.epoch != kept.epoch || after.order() < begins.order() {
            return Err(ReadError::Gone {
                first: begins.rev.next(),
            });
        }
        let mut entries = 0;
        let piece = kept.since(after).into_iter().take_while(|batch| {
            let more = entries < max_entries.max(1);
            entries += batch.entries.len().max(1);
            more
        });
        Ok(piece.collect())
    }

    fn save_now(&self, room: &RoomName, snapshot: Snapshot) {
        if let Some(kept) = self.rooms().get_mut(room) {
            let newest = kept.snapshots.back().map(|kept| kept.position.order());
            let position = snapshot.position;
            let fits = position.epoch == kept.epoch && position.order() <= kept.end.order();
            if fits && newest < Some(position.order()) {
                kept.snapshots.push_back(snapshot);
                kept.thin_out();
                kept.drop_oldest();
            }
        }
    }

    fn restart_now(
        &self,
        room: &RoomName,
        after: Position,
        snapshot: Snapshot,
    ) -> Result<Position, AppendError> {
        let mut rooms = self.rooms();
        let kept = self.ending(&mut rooms, room, after)?;
        *kept = Kept::new(snapshot.position);
        kept.snapshots.push_back(snapshot);
        Ok(kept.end)
    }

    fn rooms_now(&self, after: Option<&RoomName>, max: usize) -> Vec<RoomName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.rooms();
        let names = rooms.range::<RoomName, _>((from, Bound::Unbounded));
        names.map(|(name, _)| name.clone()).take(max).collect()
    }
}

impl Kept {
    fn new(start: Position) -> Self {
        Self {
            epoch: start.epoch,
            batches: VecDeque::new(),
            end: start,
            snapshots: VecDeque::new(),
        }
    }

    fn since(&self, after: Position) -> Vec<Arc<Batch>> {
        let first = self
            .batches
            .partition_point(|batch| batch.end().order() <= after.order());
        self.batches.range(first..).cloned().collect()
    }

    /// Lets all begin at a later snapshot, if enough entries are kept behind it.
    fn drop_oldest(&mut self) {
        let enough = |kept: &Snapshot| self.end.beyond(&kept.position) >= KEEP_ENTRIES;
        let Some(first) = self.snapshots.iter().rposition(enough) else {
            return;
        };
        self.snapshots.drain(..first);
        let held = self.snapshots[0].position.order();
        while let Some(oldest) = self.batches.front()
            && oldest.end().order() <= held
        {
            self.batches.pop_front();
        }
    }

    /// Of snapshots that lie close together only the first and the last are of use.
    fn thin_out(&mut self) {
        if let [.., before, middle, last] = self.snapshots.make_contiguous()
            && last.position.beyond(&before.position) < KEEP_ENTRIES
        {
            let middle = middle.position;
            self.snapshots.retain(|kept| kept.position != middle);
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

    fn id(&self) -> Uuid {
        self.id
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

    fn snapshot_at<'a>(
        &'a self,
        room: &'a RoomName,
        until: Revision,
    ) -> StoreFuture<'a, Option<Snapshot>, ReadError> {
        Box::pin(ready(Ok(self.snapshot_at_now(room, until))))
    }

    fn replay<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
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

    fn restart<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, Position, AppendError> {
        Box::pin(ready(self.restart_now(room, after, snapshot)))
    }

    fn rooms<'a>(
        &'a self,
        after: Option<&'a RoomName>,
        max: usize,
    ) -> StoreFuture<'a, Vec<RoomName>, ReadError> {
        Box::pin(ready(Ok(self.rooms_now(after, max))))
    }
}
