//! The laws of a journal, one suite for every store: a store is added by one line of [`laws!`].

use std::{
    sync::{Arc, LazyLock},
    thread,
};

use actix_web::rt::Runtime;
use serde_json::value::to_raw_value;
use tallyroom::{
    entry::{Acting, Batch, Entry, Made, Position, Refusal, Refused, Remembered, Snapshot},
    ids::{BatchId, ClientId, Epoch, Millis, Revision, RoomName},
    journal::{
        AppendError, Journal, Opened, ReadError,
        disk::{DiskJournal, Keep},
        memory::MemoryJournal,
    },
    model::ModelId,
};
use tempfile::TempDir;
use uuid::Uuid;

macro_rules! laws {
    ($store:ident: $new:expr => $($law:ident)*) => {
        mod $store {
            use super::*;
            $(#[test]
            fn $law() {
                super::$law(Store(Arc::new($new)));
            })*
        }
    };
}

macro_rules! every_law {
    ($($store:ident: $new:expr;)*) => {
        $(laws! { $store: $new =>
            an_empty_room_has_a_beginning_and_looking_at_it_writes_nothing
            an_append_moves_the_end
            an_append_elsewhere_conflicts_and_writes_nothing
            a_conflict_gives_what_came_since
            of_appends_at_one_place_exactly_one_wins
            a_replay_in_pieces_gives_all_in_order_and_none_twice
            a_snapshot_is_gone_on_from_by_what_came_after_it
            what_was_dropped_behind_a_snapshot_is_gone
            refusals_alone_are_dropped_behind_a_snapshot_too
            a_snapshot_can_be_had_of_an_earlier_revision
            a_new_epoch_begins_with_its_snapshot_and_ends_the_old_one
            rooms_with_a_journal_are_listed_in_order_and_in_pieces
            a_snapshot_that_is_older_or_foreign_is_passed_over
            rooms_have_journals_of_their_own
            a_batch_that_is_appended_again_finds_itself_in_the_conflict
        })*
    };
}

every_law! {
    memory: MemoryJournal::new();
    disk: on_disk();
}

const MODEL: ModelId = ModelId {
    name: "law",
    version: 1,
};

/// A journal in a folder that nobody else has, and that is gone when the last test has ended.
fn on_disk() -> DiskJournal {
    static FOLDERS: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());
    let folder = FOLDERS.path().join(Uuid::new_v4().to_string());
    let keep = Keep {
        entries: Some(10_000),
        ..Keep::default()
    };
    DiskJournal::open(&folder, MODEL, keep).unwrap()
}

/// A journal under test, without waiting.
#[derive(Clone)]
struct Store(Arc<dyn Journal>);

impl Store {
    fn append(&self, room: &str, batch: &Arc<Batch>) -> Result<Position, AppendError> {
        let room = name(room);
        Runtime::new()
            .unwrap()
            .block_on(self.0.append(&room, batch.clone()))
    }

    fn open(&self, room: &str) -> Opened {
        let room = name(room);
        Runtime::new()
            .unwrap()
            .block_on(self.0.open(&room))
            .unwrap()
    }

    fn replay(
        &self,
        room: &str,
        after: Position,
        max: usize,
    ) -> Result<Vec<Arc<Batch>>, ReadError> {
        let room = name(room);
        let replay = self.0.replay(&room, after, max);
        Runtime::new().unwrap().block_on(replay)
    }

    fn save(&self, room: &str, snapshot: Snapshot) {
        let room = name(room);
        Runtime::new()
            .unwrap()
            .block_on(self.0.save(&room, snapshot))
            .unwrap();
    }

    fn replay_all(&self, room: &str) -> Vec<Arc<Batch>> {
        let start = self.open(room).start;
        self.replay(room, start, usize::MAX).unwrap()
    }

    fn restart(
        &self,
        room: &str,
        after: Position,
        begun: Snapshot,
    ) -> Result<Position, AppendError> {
        let room = name(room);
        let restart = self.0.restart(&room, after, begun);
        Runtime::new().unwrap().block_on(restart)
    }

    fn snapshot_at(&self, room: &str, until: u64) -> Option<Snapshot> {
        let room = name(room);
        let snapshot = self.0.snapshot_at(&room, Revision(until));
        Runtime::new().unwrap().block_on(snapshot).unwrap()
    }

    fn rooms(&self, after: Option<&str>, max: usize) -> Vec<String> {
        let after = after.map(name);
        let rooms = self.0.rooms(after.as_ref(), max);
        let names = Runtime::new().unwrap().block_on(rooms).unwrap();
        names.iter().map(RoomName::to_string).collect()
    }

    /// Appends batches of these sizes at the end.
    fn fill(&self, room: &str, sizes: &[usize]) -> Vec<Arc<Batch>> {
        let mut end = self.open(room).end;
        let append = |&size: &usize| {
            let batch = batch(end, size);
            end = self.append(room, &batch).unwrap();
            batch
        };
        sizes.iter().map(append).collect()
    }
}

fn name(room: &str) -> RoomName {
    room.parse().unwrap()
}

fn batch(after: Position, entries: usize) -> Arc<Batch> {
    let entry = |nth: u64| {
        let rev = Revision(after.rev.0 + nth);
        Entry {
            rev,
            client: None,
            n: None,
            action: to_raw_value(&rev.0).unwrap(),
            acting: acting(rev),
        }
    };
    Arc::new(Batch {
        id: BatchId(Uuid::new_v4()),
        after,
        at: Millis(1000 + after.rev.0 + entries as u64),
        version: 1,
        entries: (1..=entries as u64).map(entry).collect(),
        refusals: match entries {
            0 => vec![refusal()],
            _ => Vec::new(),
        },
    })
}

/// As in a room whose sessions have names and numbers.
fn acting(rev: Revision) -> Option<Box<Acting>> {
    let acting = Acting {
        name: rev.0.is_multiple_of(3).then(|| "Ann".parse().unwrap()),
        ordinal: Some(rev.0),
    };
    rev.0.is_multiple_of(2).then(|| Box::new(acting))
}

fn refusal() -> Refusal {
    Refusal {
        client: ClientId(Uuid::from_u128(7)),
        refused: Refused {
            n: 1,
            code: "no".to_owned(),
            message: "not now".to_owned(),
        },
    }
}

fn snapshot(position: Position) -> Snapshot {
    Snapshot {
        position,
        at: Millis(1000 + position.rev.0),
        model: "law".to_owned(),
        version: 1,
        state: to_raw_value(&position.rev.0).unwrap(),
        settled: vec![Remembered {
            client: ClientId(Uuid::from_u128(7)),
            n: 3,
            at: Millis(1000),
            refused: vec![refusal().refused],
            made: Some(Made {
                rev: Revision(2),
                value: Some("[2]".into()),
            }),
        }],
        ordinals: position.rev.0,
    }
}

/// What makes a batch the one that was appended.
fn essence(batches: &[Arc<Batch>]) -> Vec<String> {
    let json = |batch: &Arc<Batch>| serde_json::to_string(&**batch).unwrap();
    batches.iter().map(json).collect()
}

fn since(appended: Result<Position, AppendError>) -> Vec<Arc<Batch>> {
    match appended {
        Err(AppendError::Conflict { since }) => since,
        other => panic!("a conflict was expected: {other:?}"),
    }
}

fn an_empty_room_has_a_beginning_and_looking_at_it_writes_nothing(store: Store) {
    let first = store.open("a");
    assert_eq!((first.end, first.end.batch), (first.start, None));
    assert_eq!(first.end.rev, Revision(0));
    assert!(first.snapshot.is_none());
    assert!(store.replay("a", first.start, 100).unwrap().is_empty());
    assert_eq!(store.open("a").end, first.end);
    let begun = batch(first.end, 1);
    assert_eq!(store.append("a", &begun).unwrap(), begun.end());
    assert_eq!(store.open("a").start, first.start);
}

fn an_append_moves_the_end(store: Store) {
    let mut end = store.open("a").end;
    for entries in [1, 3, 1000] {
        let batch = batch(end, entries);
        end = store.append("a", &batch).unwrap();
        assert_eq!(end, batch.end());
        assert_eq!(store.open("a").end, end);
    }
    assert_eq!(end.rev, Revision(1004));
}

fn an_append_elsewhere_conflicts_and_writes_nothing(store: Store) {
    let start = store.open("a").end;
    let written = store.fill("a", &[2, 2]);
    let end = written[1].end();
    let foreign_epoch = Position {
        epoch: Epoch(Uuid::new_v4()),
        ..end
    };
    let foreign_batch = Position {
        batch: Some(BatchId(Uuid::new_v4())),
        ..end
    };
    let no_batch = Position { batch: None, ..end };
    let ahead = Position {
        rev: Revision(5),
        ..end
    };
    for after in [
        start,
        written[0].end(),
        foreign_epoch,
        foreign_batch,
        no_batch,
        ahead,
    ] {
        since(store.append("a", &batch(after, 1)));
        assert_eq!(store.open("a").end, end, "{after:?}");
    }
    let elsewhere = Position {
        rev: Revision(1),
        batch: Some(BatchId(Uuid::new_v4())),
        ..start
    };
    since(store.append("never-written", &batch(elsewhere, 1)));
    assert_eq!(store.open("never-written").end.rev, Revision(0));
    assert_eq!(essence(&store.replay_all("a")), essence(&written));
}

fn a_conflict_gives_what_came_since(store: Store) {
    let start = store.open("a").end;
    let written = store.fill("a", &[1, 2, 3]);
    let places = [start, written[0].end(), written[1].end()];
    for (nth, after) in places.into_iter().enumerate() {
        let came = since(store.append("a", &batch(after, 1)));
        assert_eq!(essence(&came), essence(&written[nth..]), "after {after:?}");
    }
}

fn of_appends_at_one_place_exactly_one_wins(store: Store) {
    const OWNERS: usize = 4;
    const EACH: usize = 100;
    thread::scope(|scope| {
        for _ in 0..OWNERS {
            let store = store.clone();
            scope.spawn(move || {
                let mut end = store.open("a").end;
                for turn in 0..EACH {
                    let mut mine = batch(end, turn % 3 + 1);
                    loop {
                        match store.append("a", &mine) {
                            Ok(now) => break end = now,
                            Err(AppendError::Conflict { since }) => {
                                assert_eq!(since[0].after, mine.after);
                                assert!(since.iter().all(|other| other.id != mine.id));
                                end = since.last().unwrap().end();
                                mine = batch(end, turn % 3 + 1);
                            }
                            Err(err) => panic!("{err}"),
                        }
                    }
                }
            });
        }
    });
    let all = store.replay_all("a");
    assert_eq!(all.len(), OWNERS * EACH);
    let mut end = store.open("a").start;
    for batch in &all {
        assert_eq!(
            batch.after, end,
            "a batch does not follow the one before it"
        );
        let revs: Vec<u64> = batch.entries.iter().map(|entry| entry.rev.0).collect();
        let next = (1..=revs.len() as u64).map(|nth| end.rev.0 + nth);
        assert_eq!(revs, next.collect::<Vec<_>>());
        end = batch.end();
    }
    assert_eq!(store.open("a").end, end);
}

fn a_replay_in_pieces_gives_all_in_order_and_none_twice(store: Store) {
    // A batch without entries has a refusal alone.
    let written = store.fill("a", &[0, 0, 1, 5, 0, 0, 2, 1, 1, 0, 10, 3, 0]);
    let start = store.open("a").start;
    for max_entries in [0, 1, 2, 4, 7, 100] {
        let mut read = Vec::new();
        let mut after = start;
        loop {
            let piece = store.replay("a", after, max_entries).unwrap();
            let Some(last) = piece.last() else { break };
            after = last.end();
            read.extend(piece);
        }
        assert_eq!(essence(&read), essence(&written), "{max_entries} at a time");
    }
    for (nth, batch) in written.iter().enumerate() {
        let rest = store.replay("a", batch.end(), 100).unwrap();
        assert_eq!(essence(&rest), essence(&written[nth + 1..]));
    }
    let elsewhere = Position::start(Epoch(Uuid::new_v4()));
    let gone = store.replay("a", elsewhere, 100);
    assert!(matches!(gone, Err(ReadError::Gone { .. })), "another epoch");
}

fn a_snapshot_is_gone_on_from_by_what_came_after_it(store: Store) {
    let written = store.fill("a", &[3, 3, 3]);
    store.save("a", snapshot(written[1].end()));
    let opened = store.open("a");
    let kept = opened.snapshot.unwrap();
    assert_eq!(kept.position, written[1].end());
    assert_eq!((kept.at, kept.state.get()), (Millis(1006), "6"));
    assert_eq!((kept.model.as_str(), kept.version), ("law", 1));
    assert_eq!(opened.end, written[2].end());
    assert_eq!(kept.settled, snapshot(kept.position).settled);
    let rest = store.replay("a", kept.position, 100).unwrap();
    assert_eq!(essence(&rest), essence(&written[2..]));
    // The journal goes on behind a snapshot of its very end.
    store.save("a", snapshot(opened.end));
    store.fill("a", &[1]);
    assert_eq!(store.open("a").end.rev, Revision(10));
}

fn what_was_dropped_behind_a_snapshot_is_gone(store: Store) {
    const MOST: u64 = 2_000_000;
    let start = store.open("a").start;
    let first = loop {
        let end = store.fill("a", &[1000, 1000])[1].end();
        assert!(end.rev.0 < MOST, "nothing was ever dropped");
        store.save("a", snapshot(end));
        match store.replay("a", start, 10) {
            Err(ReadError::Gone { first }) => break first,
            Err(err) => panic!("{err}"),
            Ok(piece) => assert_eq!(piece[0].entries[0].rev, Revision(1)),
        }
    };
    assert!(first > Revision(1));
    let opened = store.open("a");
    let kept = store.snapshot_at("a", first.0 - 1).unwrap();
    assert_eq!(
        kept.position.rev.next(),
        first,
        "what is kept begins with a snapshot"
    );
    let rest = store.replay("a", kept.position, usize::MAX).unwrap();
    assert_eq!(rest[0].entries[0].rev, first);
    assert_eq!(rest.last().unwrap().end(), opened.end);
}

fn refusals_alone_are_dropped_behind_a_snapshot_too(store: Store) {
    const MOST: u64 = 100_000;
    store.fill("a", &[1]);
    let start = store.open("a").start;
    loop {
        let end = *store
            .fill("a", &[0; 1000])
            .last()
            .map(|batch| batch.end())
            .as_ref()
            .unwrap();
        assert!(end.part < MOST, "nothing was ever dropped");
        store.save("a", snapshot(end));
        if store.replay("a", start, 10).is_err() {
            return assert_eq!(store.open("a").end, end);
        }
    }
}

fn a_snapshot_can_be_had_of_an_earlier_revision(store: Store) {
    let written = store.fill("a", &[3, 3, 3]);
    store.save("a", snapshot(written[0].end()));
    assert!(store.snapshot_at("a", 2).is_none());
    assert!(store.snapshot_at("never-written", 2).is_none());
    for until in [3, 8, 9, u64::MAX] {
        let kept = store.snapshot_at("a", until).unwrap();
        assert_eq!(kept.position, written[0].end(), "{until}");
    }
}

fn a_new_epoch_begins_with_its_snapshot_and_ends_the_old_one(store: Store) {
    let begun = || snapshot(Position::start(Epoch(Uuid::new_v4())));
    let nowhere = store.open("a").end;
    let (first, second) = (begun(), begun());
    assert_eq!(
        store.restart("a", nowhere, first.clone()).unwrap(),
        first.position
    );
    let written = store.fill("a", &[2, 0, 1]);
    store.save("a", snapshot(written[2].end()));
    let end = store.open("a").end;
    since(store.restart("a", first.position, second.clone()));
    assert_eq!(store.open("a").end, end, "a conflict changes nothing");
    store.restart("a", end, second.clone()).unwrap();
    let opened = store.open("a");
    assert_eq!(
        (opened.start, opened.end),
        (second.position, second.position)
    );
    assert_eq!(opened.snapshot.unwrap().position, second.position);
    since(store.append("a", &batch(end, 1)));
    assert!(store.replay("a", end, 10).is_err(), "the old epoch is gone");
    let written = store.fill("a", &[1]);
    assert_eq!(essence(&store.replay_all("a")), essence(&written));
}

fn rooms_with_a_journal_are_listed_in_order_and_in_pieces(store: Store) {
    assert!(store.rooms(None, 10).is_empty());
    for room in ["b", "A", "main", "a"] {
        store.fill(room, &[1]);
    }
    store.open("looked-at");
    assert_eq!(store.rooms(None, 10), ["A", "a", "b", "main"]);
    assert_eq!(store.rooms(None, 2), ["A", "a"]);
    assert_eq!(store.rooms(Some("a"), 2), ["b", "main"]);
    assert!(store.rooms(Some("main"), 2).is_empty());
}

fn a_snapshot_that_is_older_or_foreign_is_passed_over(store: Store) {
    let written = store.fill("a", &[3, 3, 3]);
    store.save("a", snapshot(written[1].end()));
    let end = written[2].end();
    let foreign = Position {
        epoch: Epoch(Uuid::new_v4()),
        ..end
    };
    let ahead = Position {
        rev: Revision(100),
        ..end
    };
    for position in [written[0].end(), foreign, ahead] {
        store.save("a", snapshot(position));
        let kept = store.open("a").snapshot.unwrap();
        assert_eq!(kept.position, written[1].end(), "after {position:?}");
    }
    // One of a room without entries has nothing to stand for.
    store.save("b", snapshot(end));
    let opened = store.open("b");
    assert!(opened.snapshot.is_none() && opened.end.rev == Revision(0));
}

fn rooms_have_journals_of_their_own(store: Store) {
    let rooms = ["a", "A", "main", "a-", "a_"];
    for (nth, room) in rooms.iter().enumerate() {
        store.fill(room, &vec![1; nth + 1]);
    }
    store.save("A", snapshot(store.open("A").end));
    for (nth, room) in rooms.iter().enumerate() {
        let opened = store.open(room);
        assert_eq!(opened.end.rev.0, nth as u64 + 1, "{room}");
        assert_eq!(store.replay_all(room).len(), nth + 1, "{room}");
        assert_eq!(opened.snapshot.is_some(), *room == "A", "{room}");
    }
}

fn a_batch_that_is_appended_again_finds_itself_in_the_conflict(store: Store) {
    let batch = batch(store.open("a").end, 3);
    store.append("a", &batch).unwrap();
    let came = since(store.append("a", &batch));
    assert_eq!(
        came.iter().map(|other| other.id).collect::<Vec<_>>(),
        [batch.id]
    );
    let later = store.fill("a", &[1, 1]);
    let came = since(store.append("a", &batch));
    let ids: Vec<BatchId> = came.iter().map(|other| other.id).collect();
    assert_eq!(ids, [batch.id, later[0].id, later[1].id]);
    assert_eq!(store.open("a").end, later[1].end());
}
