//! Reading journals: threads with connections of their own, so that no reader waits for a commit.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, types::Type};
use tokio::sync::oneshot;

use super::{row, schema::prepare};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{BatchId, Epoch, Millis, Revision, RoomName},
    journal::{Opened, ReadError, StoreFuture},
};

/// How many reads may go on at the same time.
const THREADS: usize = 2;

/// What is told to whoever asks once the journal's threads have ended.
pub const ENDED: &str = "the journal has been closed";

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// The threads that read.
pub struct Readers {
    jobs: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    pub fn start(file: &Path) -> rusqlite::Result<Self> {
        let (jobs, waiting) = mpsc::channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let mut threads = Vec::new();
        for _ in 0..THREADS {
            let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            prepare(&connection)?;
            let waiting = waiting.clone();
            threads.push(thread::spawn(move || {
                // The lock is held while one thread waits, not while it reads.
                let next = || {
                    waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .recv()
                };
                while let Ok(job) = next() {
                    job(&connection);
                }
            }));
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    /// Reads on another thread; begins now, whether or not the future is polled.
    pub fn read<'a, T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    ) -> StoreFuture<'a, T, ReadError> {
        let (reply, done) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Whoever asked may have gone.
            let _ = reply.send(read(connection));
        });
        if let Some(jobs) = &self.jobs {
            // A job that finds no thread is dropped, and its reply with it.
            let _ = jobs.send(job);
        }
        let ended = |_| ReadError::Unavailable(ENDED.to_owned());
        Box::pin(async move { done.await.map_err(ended)? })
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A reader that panicked has told whoever asked by dropping the reply.
            let _ = thread.join();
        }
    }
}

/// Where a room's journal ends, and its newest snapshot.
pub fn open(
    connection: &Connection,
    room: &RoomName,
    start: Position,
) -> Result<Opened, ReadError> {
    let Some((room, epoch)) = find(connection, room)? else {
        return Ok(Opened {
            end: start,
            snapshot: None,
            start,
        });
    };
    let start = Position::start(epoch);
    Ok(Opened {
        end: end(connection, room, epoch)?.unwrap_or(start),
        snapshot: snapshot_at(connection, room, Revision(i64::MAX as u64))?,
        start,
    })
}

/// A room's number and epoch.
pub fn find(connection: &Connection, room: &RoomName) -> rusqlite::Result<Option<(i64, Epoch)>> {
    connection
        .prepare_cached("SELECT room, epoch FROM rooms WHERE name = ?1")?
        .query_row([room.as_str()], |row| {
            Ok((row.get(0)?, Epoch(uuid(row, 1)?)))
        })
        .optional()
}

/// Where the room's last batch ends.
pub fn end(connection: &Connection, room: i64, epoch: Epoch) -> rusqlite::Result<Option<Position>> {
    let last = "SELECT rev, part, id FROM batches WHERE room = ?1
        ORDER BY rev DESC, part DESC LIMIT 1";
    connection
        .prepare_cached(last)?
        .query_row([room], |row| {
            Ok(Position {
                epoch,
                rev: Revision(row.get(0)?),
                part: row.get(1)?,
                batch: Some(BatchId(uuid(row, 2)?)),
            })
        })
        .optional()
}

/// The newest snapshot at or before a revision.
pub fn snapshot_at(
    connection: &Connection,
    room: i64,
    until: Revision,
) -> rusqlite::Result<Option<Snapshot>> {
    let newest = "SELECT snapshot FROM snapshots WHERE room = ?1 AND rev <= ?2
        ORDER BY rev DESC, part DESC LIMIT 1";
    let until = i64::try_from(until.0).unwrap_or(i64::MAX);
    connection
        .prepare_cached(newest)?
        .query_row((room, until), |row| json(row, 0))
        .optional()
}

/// Where a room's snapshots stand, oldest first.
pub fn snapshots(connection: &Connection, room: i64) -> rusqlite::Result<Vec<Position>> {
    let all = "SELECT json_extract(snapshot, '$.position') FROM snapshots WHERE room = ?1
        ORDER BY rev, part";
    connection
        .prepare_cached(all)?
        .query_map([room], |row| json(row, 0))?
        .collect()
}

/// The snapshot that stands at a position.
pub fn snapshot(
    connection: &Connection,
    room: i64,
    at: Position,
) -> rusqlite::Result<Option<Snapshot>> {
    let that = "SELECT snapshot FROM snapshots WHERE room = ?1 AND rev = ?2 AND part = ?3";
    connection
        .prepare_cached(that)?
        .query_row((room, at.rev.0, at.part), |row| json(row, 0))
        .optional()
}

/// Where the newest snapshot of a room stands.
pub fn snapshot_order(
    connection: &Connection,
    room: i64,
) -> rusqlite::Result<Option<(Revision, u64)>> {
    let newest = "SELECT rev, part FROM snapshots WHERE room = ?1
        ORDER BY rev DESC, part DESC LIMIT 1";
    connection
        .prepare_cached(newest)?
        .query_row([room], |row| Ok((Revision(row.get(0)?), row.get(1)?)))
        .optional()
}

/// The batches after a position, oldest first, until `max_entries` are there.
pub fn replay(
    connection: &Connection,
    room: &RoomName,
    after: Position,
    max_entries: usize,
) -> Result<Vec<Arc<Batch>>, ReadError> {
    let Some((room, epoch)) = find(connection, room)? else {
        return Ok(Vec::new());
    };
    let begins = begins(connection, room, epoch)?;
    if after.epoch != epoch || after.order() < begins.order() {
        return Err(ReadError::Gone {
            first: begins.rev.next(),
        });
    }
    let later =
        "SELECT id, after_rev, after_part, after_id, at, version, clients, entries, refusals
        FROM batches WHERE room = ?1 AND (rev, part) > (?2, ?3) ORDER BY rev, part";
    let mut statement = connection.prepare_cached(later)?;
    let mut rows = statement.query((room, after.rev.0, after.part))?;
    let mut batches = Vec::new();
    let mut entries = 0;
    while entries < max_entries.max(1)
        && let Some(row) = rows.next()?
    {
        let batch = batch(row, epoch)?;
        // A batch of refusals alone counts, too, so that a piece is never without bound.
        entries += batch.entries.len().max(1);
        batches.push(Arc::new(batch));
    }
    Ok(batches)
}

/// Where what is kept of a room's batches begins.
pub fn begins(connection: &Connection, room: i64, epoch: Epoch) -> rusqlite::Result<Position> {
    let first = "SELECT after_rev, after_part, after_id FROM batches WHERE room = ?1
        ORDER BY rev, part LIMIT 1";
    let first = connection
        .prepare_cached(first)?
        .query_row([room], |row| after(row, 0, epoch))
        .optional()?;
    Ok(first.unwrap_or(Position::start(epoch)))
}

/// The names of rooms from behind `after` on, in their order.
pub fn rooms(
    connection: &Connection,
    after: Option<&RoomName>,
    max: usize,
) -> Result<Vec<RoomName>, ReadError> {
    let names = "SELECT name FROM rooms WHERE name > ?1 ORDER BY name LIMIT ?2";
    let mut statement = connection.prepare_cached(names)?;
    let name = |row: &Row<'_>| {
        let name: Result<RoomName, _> = row.get_ref(0)?.as_str()?.parse();
        name.map_err(|err| unreadable(Box::new(err)))
    };
    let names = statement.query_map((after.map_or("", RoomName::as_str), max), name)?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

fn batch(row: &Row<'_>, epoch: Epoch) -> rusqlite::Result<Batch> {
    let after = after(row, 1, epoch)?;
    let clients = row.get_ref(6)?.as_str_or_null()?;
    let entries = row.get_ref(7)?.as_str()?;
    let entries = row::decode(after.rev, clients, entries);
    Ok(Batch {
        id: BatchId(uuid(row, 0)?),
        after,
        at: Millis(row.get(4)?),
        version: row.get(5)?,
        entries: entries.map_err(|err| unreadable(Box::new(err)))?,
        refusals: match row.get_ref(8)?.as_str_or_null()? {
            Some(_) => json(row, 8)?,
            None => Vec::new(),
        },
    })
}

/// A position whose revision, part and batch are in three columns.
fn after(row: &Row<'_>, first: usize, epoch: Epoch) -> rusqlite::Result<Position> {
    let batch = row.get_ref(first + 2)?.as_str_or_null()?.map(parse_uuid);
    Ok(Position {
        epoch,
        rev: Revision(row.get(first)?),
        part: row.get(first + 1)?,
        batch: batch.transpose()?.map(BatchId),
    })
}

fn uuid(row: &Row<'_>, column: usize) -> rusqlite::Result<uuid::Uuid> {
    parse_uuid(row.get_ref(column)?.as_str()?)
}

fn parse_uuid(text: &str) -> rusqlite::Result<uuid::Uuid> {
    text.parse().map_err(|err| unreadable(Box::new(err)))
}

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|err| unreadable(Box::new(err)))
}

fn unreadable(err: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, err)
}

impl From<rusqlite::Error> for ReadError {
    fn from(err: rusqlite::Error) -> Self {
        match err {
            rusqlite::Error::FromSqlConversionFailure(..) => Self::Damaged(err.to_string()),
            _ => Self::Unavailable(err.to_string()),
        }
    }
}
