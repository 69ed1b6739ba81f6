//! Reading journals: threads with connections of their own, so that no reader waits for a commit.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, types::Type};
use tokio::sync::oneshot;

use super::schema::prepare;
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{BatchId, Epoch, Revision, RoomName},
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
        end: end(connection, room, epoch)?.map_or(start, |(end, _)| end),
        snapshot: newest_snapshot(connection, room)?,
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

/// Where the room's last batch ends, and its part.
pub fn end(
    connection: &Connection,
    room: i64,
    epoch: Epoch,
) -> rusqlite::Result<Option<(Position, i64)>> {
    let last = "SELECT rev, part, id FROM batches WHERE room = ?1
        ORDER BY rev DESC, part DESC LIMIT 1";
    connection
        .prepare_cached(last)?
        .query_row([room], |row| {
            let position = Position {
                epoch,
                rev: Revision(row.get(0)?),
                batch: Some(BatchId(uuid(row, 2)?)),
            };
            Ok((position, row.get(1)?))
        })
        .optional()
}

fn newest_snapshot(connection: &Connection, room: i64) -> rusqlite::Result<Option<Snapshot>> {
    let newest = "SELECT snapshot FROM snapshots WHERE room = ?1
        ORDER BY rev DESC, part DESC LIMIT 1";
    connection
        .prepare_cached(newest)?
        .query_row([room], |row| json(row, 0))
        .optional()
}

/// The batches after a revision, oldest first, until `max_entries` are there.
pub fn replay(
    connection: &Connection,
    room: &RoomName,
    after: Revision,
    max_entries: usize,
) -> Result<Vec<Arc<Batch>>, ReadError> {
    let Some((room, epoch)) = find(connection, room)? else {
        return Ok(Vec::new());
    };
    let first = first_after(connection, room)?;
    if first.is_some_and(|first| after < first) {
        return Err(ReadError::Gone {
            first: first.map_or(Revision(1), Revision::next),
        });
    }
    let later = "SELECT id, after_rev, after_id, entries FROM batches
        WHERE room = ?1 AND rev > ?2 ORDER BY rev, part";
    let mut statement = connection.prepare_cached(later)?;
    let mut rows = statement.query((room, after.0))?;
    let mut batches = Vec::new();
    let mut entries = 0;
    while entries < max_entries.max(1)
        && let Some(row) = rows.next()?
    {
        let batch = batch(row, epoch)?;
        entries += batch.entries.len();
        batches.push(Arc::new(batch));
    }
    Ok(batches)
}

/// The revision after which the oldest batch kept begins.
fn first_after(connection: &Connection, room: i64) -> rusqlite::Result<Option<Revision>> {
    let first = "SELECT after_rev FROM batches WHERE room = ?1 ORDER BY rev, part LIMIT 1";
    connection
        .prepare_cached(first)?
        .query_row([room], |row| row.get(0).map(Revision))
        .optional()
}

fn batch(row: &Row<'_>, epoch: Epoch) -> rusqlite::Result<Batch> {
    let before = row.get_ref(2)?.as_str_or_null()?.map(parse_uuid);
    Ok(Batch {
        id: BatchId(uuid(row, 0)?),
        after: Position {
            epoch,
            rev: Revision(row.get(1)?),
            batch: before.transpose()?.map(BatchId),
        },
        entries: json(row, 3)?,
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
