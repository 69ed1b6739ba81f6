//! Which snapshots and entries of a room are kept, and which may go.

use rusqlite::{Connection, OptionalExtension};

use crate::{
    entry::Snapshot,
    ids::{Millis, Revision},
};

/// How many batches are dropped at a time, so that a large trim holds nobody up.
pub const PIECE: usize = 1000;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// What of a room's journal is kept, as far as a snapshot holds what is dropped; whichever is met
/// first.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Entries a room; `None`: all.
    pub entries: Option<u32>,
    /// By the time of the entries; `None`: for ever.
    pub days: Option<u32>,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            entries: Some(1_000_000),
            days: Some(90),
        }
    }
}

/// Drops snapshots that are too close to others, and says up to where batches may go.
///
/// What is kept begins with a snapshot, goes on with the entries after it, and ends with the newest
/// snapshot; those between lie a tenth of [`Keep::entries`] apart, so that trimming goes by tenths.
pub fn thin_out(
    connection: &Connection,
    room: i64,
    newest: &Snapshot,
    keep: Keep,
) -> rusqlite::Result<Option<(Revision, u64)>> {
    let newest_rev = newest.position.rev.0;
    let by_count = keep
        .entries
        .map(|entries| newest_rev.saturating_sub(entries.into()));
    let by_time = keep.days.map(|days| {
        let oldest = newest.at.0.saturating_sub(u64::from(days) * DAY_MS);
        last_before(connection, room, Millis(oldest))
    });
    let cutoff = by_count.max(by_time.transpose()?).unwrap_or(0);
    let apart = keep
        .entries
        .map_or(100_000, |entries| u64::from(entries / 10).max(1));
    let places: Vec<(u64, u64)> = connection
        .prepare_cached("SELECT rev, part FROM snapshots WHERE room = ?1 ORDER BY rev, part")?
        .query_map([room], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    // Where everything is refused the revision stands still, and batches of refusals are counted.
    let refusals_enough = |(rev, part): (u64, u64)| {
        let since = newest.position.part.saturating_sub(part);
        rev == newest_rev && keep.entries.is_some_and(|most| since >= most.into())
    };
    let old = |place: &(u64, u64)| place.0 <= cutoff || refusals_enough(*place);
    let first = places.iter().copied().filter(old).max();
    let last = places.last().copied();
    let mut delete = connection
        .prepare_cached("DELETE FROM snapshots WHERE room = ?1 AND rev = ?2 AND part = ?3")?;
    let mut kept: Option<(u64, u64)> = None;
    for (rev, part) in places {
        let before_first = first.is_some_and(|first| (rev, part) < first);
        let near = |(kept_rev, kept_part): (u64, u64)| {
            rev - kept_rev < apart && (rev > kept_rev || part - kept_part < apart)
        };
        if before_first || (kept.is_some_and(near) && Some((rev, part)) != last) {
            delete.execute((room, rev, part))?;
        } else {
            kept = Some((rev, part));
        }
    }
    Ok(first.map(|(rev, part)| (Revision(rev), part)))
}

/// The revision after which the first entry not older than a time begins. Looks at no more batches
/// than are too old.
fn last_before(connection: &Connection, room: i64, at: Millis) -> rusqlite::Result<u64> {
    let first_kept = "SELECT after_rev FROM batches WHERE room = ?1 AND at >= ?2
        ORDER BY rev, part LIMIT 1";
    let after = connection
        .prepare_cached(first_kept)?
        .query_row((room, at.0), |row| row.get(0))
        .optional()?;
    Ok(after.unwrap_or(u64::MAX))
}

/// Drops the oldest batches up to the place of a snapshot, [`PIECE`] of them at most, and says how
/// many.
pub fn drop_oldest(
    connection: &Connection,
    room: i64,
    up_to: (Revision, u64),
) -> rusqlite::Result<usize> {
    let delete = "DELETE FROM batches WHERE room = ?1 AND (rev, part) IN (
        SELECT rev, part FROM batches WHERE room = ?1 AND (rev, part) <= (?2, ?3)
        ORDER BY rev, part LIMIT ?4)";
    let (Revision(rev), part) = up_to;
    connection
        .prepare_cached(delete)?
        .execute((room, rev, part, PIECE))
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::{
        entry::{Batch, Entry, Position},
        ids::{BatchId, RoomName},
        journal::disk::{
            insert::{self, Head},
            schema,
        },
        model::ModelId,
    };

    const MODEL: ModelId = ModelId {
        name: "test",
        version: 1,
    };

    /// Which revisions of a room are kept that had an entry a day for ten days, and snapshots at
    /// revisions 3, 6 and 10.
    fn kept(entries: Option<u32>, days: Option<u32>) -> Vec<u64> {
        let folder = TempDir::new().unwrap();
        let connection = schema::open(&folder.path().join("test.db"), MODEL).unwrap();
        let name = RoomName::main();
        let mut head = Head::find(&connection, &name, schema::epoch(&connection).unwrap()).unwrap();
        let mut newest = None;
        for day in 1..=10 {
            let batch = batch(head.end, Millis(day * DAY_MS));
            head = insert::batch(&connection, &name, head, &batch).unwrap();
            if [3, 6, 10].contains(&day) {
                let snapshot = snapshot(head.end, batch.at);
                insert::snapshot(&connection, head.room.unwrap(), &snapshot).unwrap();
                newest = Some(snapshot);
            }
        }
        let (room, keep) = (head.room.unwrap(), Keep { entries, days });
        let up_to = thin_out(&connection, room, &newest.unwrap(), keep).unwrap();
        if let Some(up_to) = up_to {
            drop_oldest(&connection, room, up_to).unwrap();
        }
        let mut revs = connection
            .prepare("SELECT rev FROM batches ORDER BY rev")
            .unwrap();
        let revs = revs.query_map([], |row| row.get(0)).unwrap();
        revs.collect::<Result<_, _>>().unwrap()
    }

    fn batch(after: Position, at: Millis) -> Batch {
        let entry = Entry {
            rev: after.rev.next(),
            client: None,
            n: None,
            action: to_raw_value(&1).unwrap(),
            acting: None,
        };
        Batch {
            id: BatchId(Uuid::new_v4()),
            after,
            at,
            version: 1,
            entries: vec![entry],
            refusals: Vec::new(),
        }
    }

    fn snapshot(position: Position, at: Millis) -> Snapshot {
        Snapshot {
            position,
            at,
            model: "test".to_owned(),
            version: 1,
            state: to_raw_value(&1).unwrap(),
            settled: Vec::new(),
            ordinals: 0,
        }
    }

    fn from(first: u64) -> Vec<u64> {
        (first..=10).collect()
    }

    #[test]
    fn entries_of_the_last_days_are_kept_and_those_before_a_snapshot_of_older_ones_dropped() {
        for (days, first) in [(1, 7), (3, 7), (4, 4), (6, 4), (7, 1), (30, 1)] {
            assert_eq!(kept(None, Some(days)), from(first), "{days} days");
        }
    }

    #[test]
    fn of_entries_and_days_whichever_is_met_first_drops() {
        assert_eq!(kept(None, None), from(1));
        assert_eq!(kept(Some(100), Some(100)), from(1));
        assert_eq!(kept(Some(100), Some(1)), from(7), "by days");
        assert_eq!(kept(Some(2), Some(100)), from(7), "by entries");
        assert_eq!(kept(Some(5), Some(1)), from(7), "by days");
        assert_eq!(kept(Some(2), Some(5)), from(7), "by entries");
    }
}
