//! The journal of models that keep nothing: it gives an order, and what happened is gone.
//!
//! Of a room it holds where its journal ends and the last snapshot, so that a room that was put to rest
//! goes on as it was; an owner that ended in any other way leaves nothing behind, and the next one begins
//! a new epoch.

use std::{
    collections::BTreeMap,
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

/// A journal that keeps no entries.
pub struct PassingJournal {
    id: Uuid,
    rooms: Mutex<BTreeMap<RoomName, Passed>>,
}

/// What is known of a room.
struct Passed {
    end: Position,
    snapshot: Option<Snapshot>,
}

impl PassingJournal {
    pub fn new() -> Self {
        Self {
            id: Uuid::new_v4(),
            rooms: Mutex::default(),
        }
    }

    fn rooms(&self) -> MutexGuard<'_, BTreeMap<RoomName, Passed>> {
        // Nothing below can panic between two changes that belong together.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append_now(&self, room: &RoomName, batch: &Batch) -> Result<Position, AppendError> {
        let mut rooms = self.rooms();
        let ends = rooms.get(room).map(|passed| passed.end);
        if ends.is_some_and(|end| end != batch.after) {
            // What came since is gone, so that the owner cannot go on.
            return Err(AppendError::Conflict { since: Vec::new() });
        }
        let end = batch.end();
        let passed = rooms.entry(room.clone()).or_insert(Passed {
            end,
            snapshot: None,
        });
        passed.end = end;
        Ok(end)
    }

    fn open_now(&self, room: &RoomName) -> Opened {
        let mut rooms = self.rooms();
        let rested = rooms.get(room).and_then(|passed| {
            let whole = |snapshot: &&Snapshot| snapshot.position == passed.end;
            passed.snapshot.as_ref().filter(whole)
        });
        if let Some(snapshot) = rested {
            return Opened {
                end: snapshot.position,
                start: Position::start(snapshot.position.epoch),
                snapshot: Some(snapshot.clone()),
            };
        }
        rooms.remove(room);
        let start = Position::start(Epoch(Uuid::new_v4()));
        Opened {
            end: start,
            snapshot: None,
            start,
        }
    }

    fn save_now(&self, room: &RoomName, snapshot: Snapshot) {
        if let Some(passed) = self.rooms().get_mut(room)
            && snapshot.position == passed.end
        {
            passed.snapshot = Some(snapshot);
        }
    }

    fn restart_now(
        &self,
        room: &RoomName,
        after: Position,
        snapshot: Snapshot,
    ) -> Result<Position, AppendError> {
        let mut rooms = self.rooms();
        if rooms.get(room).is_some_and(|passed| passed.end != after) {
            return Err(AppendError::Conflict { since: Vec::new() });
        }
        let end = snapshot.position;
        let snapshot = Some(snapshot);
        rooms.insert(room.clone(), Passed { end, snapshot });
        Ok(end)
    }

    fn rooms_now(&self, after: Option<&RoomName>, max: usize) -> Vec<RoomName> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rooms = self.rooms();
        let names = rooms.range::<RoomName, _>((from, Bound::Unbounded));
        names.map(|(name, _)| name.clone()).take(max).collect()
    }
}

impl Default for PassingJournal {
    fn default() -> Self {
        Self::new()
    }
}

impl Journal for PassingJournal {
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
        Box::pin(ready(self.append_now(room, &batch)))
    }

    fn open<'a>(&'a self, room: &'a RoomName) -> StoreFuture<'a, Opened, ReadError> {
        Box::pin(ready(Ok(self.open_now(room))))
    }

    fn snapshot_at<'a>(
        &'a self,
        room: &'a RoomName,
        until: Revision,
    ) -> StoreFuture<'a, Option<Snapshot>, ReadError> {
        let rooms = self.rooms();
        let snapshot = rooms.get(room).and_then(|passed| passed.snapshot.clone());
        let snapshot = snapshot.filter(|snapshot| snapshot.position.rev <= until);
        Box::pin(ready(Ok(snapshot)))
    }

    fn replay<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        _max_entries: usize,
    ) -> StoreFuture<'a, Vec<Arc<Batch>>, ReadError> {
        let end = self.rooms().get(room).map_or(after, |passed| passed.end);
        let replayed = match end == after {
            true => Ok(Vec::new()),
            false => Err(ReadError::Gone {
                first: end.rev.next(),
            }),
        };
        Box::pin(ready(replayed))
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::{
        entry::Entry,
        ids::{BatchId, Millis},
    };

    fn now<T, E>(done: StoreFuture<'_, T, E>) -> Result<T, E> {
        done.now_or_never().expect("memory is there at once")
    }

    fn batch(after: Position) -> Arc<Batch> {
        let entry = Entry {
            rev: after.rev.next(),
            client: None,
            n: None,
            action: to_raw_value(&1).unwrap(),
            acting: None,
        };
        Arc::new(Batch {
            id: BatchId(Uuid::new_v4()),
            after,
            at: Millis(1),
            version: 1,
            entries: vec![entry],
            refusals: Vec::new(),
        })
    }

    fn snapshot(position: Position) -> Snapshot {
        Snapshot {
            position,
            at: Millis(1),
            model: "test".to_owned(),
            version: 1,
            state: to_raw_value(&1).unwrap(),
            settled: Vec::new(),
            ordinals: 3,
        }
    }

    #[test]
    fn a_room_at_rest_goes_on_and_one_that_ended_otherwise_begins_anew() {
        let journal = PassingJournal::new();
        let room = RoomName::main();
        let start = now(journal.open(&room)).unwrap().start;
        let end = now(journal.append(&room, batch(start))).unwrap();
        now(journal.save(&room, snapshot(end))).unwrap();
        let opened = now(journal.open(&room)).unwrap();
        assert_eq!((opened.end, opened.snapshot.unwrap().ordinals), (end, 3));
        assert!(now(journal.replay(&room, end, 10)).unwrap().is_empty());

        let end = now(journal.append(&room, batch(end))).unwrap();
        assert!(now(journal.append(&room, batch(start))).is_err());
        let opened = now(journal.open(&room)).unwrap();
        assert!(opened.snapshot.is_none() && opened.end.epoch != end.epoch);
        assert!(
            now(journal.replay(&room, opened.end, 10))
                .unwrap()
                .is_empty()
        );
    }
}
