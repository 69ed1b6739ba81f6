//! The one thread that writes: group commit of the batches of all rooms that wait.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, ErrorCode, TransactionBehavior, ffi};
use tokio::sync::oneshot;

use super::{reader, trim};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Epoch, Revision, RoomName},
    journal::{AppendError, ReadError},
};

/// How many batches one transaction takes at most.
const MAX_GROUP: usize = 1024;

/// How many batches a conflict gives back at most; more come with the next attempt.
const MAX_CONFLICT_ENTRIES: usize = 10_000;

/// How many rooms' ends are remembered before all are looked up again.
const MAX_HEADS: usize = 100_000;

/// What the writer is asked to do.
pub enum Command {
    Append(Append),
    Save {
        room: RoomName,
        snapshot: Snapshot,
        reply: oneshot::Sender<Result<(), ReadError>>,
    },
}

/// A batch that waits for its commit.
pub struct Append {
    pub room: RoomName,
    pub batch: Arc<Batch>,
    pub reply: oneshot::Sender<Result<Position, AppendError>>,
}

/// The writer's thread; dropping it finishes what was sent.
pub struct Writer {
    /// Each room sends at most one append and one snapshot at a time, so that the rooms bound it.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection, file: OpenFile, epoch: Epoch, keep: trim::Keep) -> Self {
        let (commands, waiting) = mpsc::channel();
        let mut state = State {
            connection,
            epoch,
            keep,
            heads: HashMap::new(),
            trims: Vec::new(),
            failed: None,
            full: false,
            file,
        };
        Self {
            commands: Some(commands),
            thread: Some(thread::spawn(move || state.run(&waiting))),
        }
    }

    /// False where the writer has ended.
    pub fn send(&self, command: Command) -> bool {
        let commands = self.commands.as_ref();
        commands.is_some_and(|commands| commands.send(command).is_ok())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has told whoever waited by dropping the replies.
            let _ = thread.join();
        }
    }
}

struct State {
    connection: Connection,
    epoch: Epoch,
    keep: trim::Keep,
    /// Where rooms end, as far as it is known.
    heads: HashMap<RoomName, Head>,
    trims: Vec<Trim>,
    /// Set for good once an fsync failed: what the kernel still holds is not known any more.
    failed: Option<String>,
    /// Set while there is no space, so that it is logged once.
    full: bool,
    file: OpenFile,
}

/// Which file was opened, so that one that was removed or replaced is not written to unseen.
pub struct OpenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl OpenFile {
    /// Takes note of the file that is at `path` now.
    pub fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    fn is_there(&self) -> bool {
        let now = fs::metadata(&self.path);
        now.is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

#[derive(Clone, Copy)]
struct Head {
    /// `None`: it has no row yet.
    room: Option<i64>,
    end: Position,
    part: i64,
}

/// Batches of a room up to a revision that are to be dropped.
struct Trim {
    room: i64,
    up_to: Revision,
}

type Outcomes = Vec<Result<Position, AppendError>>;

impl State {
    fn run(&mut self, waiting: &mpsc::Receiver<Command>) {
        loop {
            let first = match self.trims.is_empty() {
                true => waiting.recv().ok(),
                false => match waiting.try_recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::TryRecvError::Empty) => {
                        self.trim_piece();
                        continue;
                    }
                    Err(mpsc::TryRecvError::Disconnected) => None,
                },
            };
            let Some(first) = first else {
                return;
            };
            let mut appends = Vec::new();
            for command in std::iter::once(first).chain(waiting.try_iter()) {
                match command {
                    Command::Append(append) => appends.push(append),
                    Command::Save {
                        room,
                        snapshot,
                        reply,
                    } => {
                        // What the snapshot holds is committed before it.
                        self.commit(std::mem::take(&mut appends));
                        let saved = self.save(&room, &snapshot);
                        self.trim_piece();
                        let _ = reply.send(saved);
                    }
                }
                if appends.len() >= MAX_GROUP {
                    break;
                }
            }
            self.commit(appends);
        }
    }

    fn commit(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        if self.failed.is_none() && !self.file.is_there() {
            let path = self.file.path.display();
            let reason = format!("{path} was removed or replaced while it was open");
            self.fail(reason);
        }
        let outcomes = match &self.failed {
            Some(reason) => Err(AppendError::Failed(reason.clone())),
            None => self.append_all(&appends).map_err(|err| self.failure(&err)),
        };
        match outcomes {
            Ok(outcomes) => {
                if std::mem::take(&mut self.full) {
                    log::info!("the store has space again");
                }
                for (append, outcome) in appends.into_iter().zip(outcomes) {
                    // An owner that is gone hears nothing; its batch is in all the same.
                    let _ = append.reply.send(outcome);
                }
            }
            Err(err) => {
                for append in appends {
                    let _ = append.reply.send(Err(err.clone()));
                }
            }
        }
    }

    /// All of the batches in one transaction, but those that conflict.
    fn append_all(&mut self, appends: &[Append]) -> rusqlite::Result<Outcomes> {
        let mut changed: HashMap<RoomName, Head> = HashMap::new();
        let mut outcomes = Vec::with_capacity(appends.len());
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for Append { room, batch, .. } in appends {
            let known = changed.get(room).or_else(|| self.heads.get(room));
            let head = match known {
                Some(head) => *head,
                None => head(&transaction, room, self.epoch)?,
            };
            if head.end != batch.after {
                let since = since(&transaction, room, batch.after);
                changed.insert(room.clone(), head);
                outcomes.push(Err(AppendError::Conflict { since }));
                continue;
            }
            let head = insert(&transaction, room, head, batch)?;
            changed.insert(room.clone(), head);
            outcomes.push(Ok(head.end));
        }
        transaction.commit()?;
        if self.heads.len() > MAX_HEADS {
            self.heads.clear();
        }
        self.heads.extend(changed);
        Ok(outcomes)
    }

    /// What an error of the database means for the batches of its transaction.
    fn failure(&mut self, err: &rusqlite::Error) -> AppendError {
        let Some(code) = err.sqlite_error() else {
            return AppendError::Unavailable(err.to_string());
        };
        match code.extended_code {
            ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => {
                let reason = format!("the disk did not confirm what was written: {err}");
                self.fail(reason.clone());
                AppendError::Failed(reason)
            }
            _ if code.code == ErrorCode::DiskFull => {
                if !std::mem::replace(&mut self.full, true) {
                    log::error!("the store has no space left; actions are refused until it has");
                }
                AppendError::Full
            }
            _ => AppendError::Unavailable(err.to_string()),
        }
    }

    fn fail(&mut self, reason: String) {
        log::error!("{reason}; nothing more is committed until the server starts again");
        self.trims.clear();
        self.failed = Some(reason);
    }

    fn save(&mut self, room: &RoomName, snapshot: &Snapshot) -> Result<(), ReadError> {
        if let Some(reason) = &self.failed {
            return Err(ReadError::Unavailable(reason.clone()));
        }
        self.save_now(room, snapshot).map_err(|err| {
            // Its fsync counts as much as a batch's.
            self.failure(&err);
            ReadError::from(err)
        })
    }

    fn save_now(&mut self, room: &RoomName, snapshot: &Snapshot) -> rusqlite::Result<()> {
        let Some((room, epoch)) = reader::find(&self.connection, room)? else {
            return Ok(());
        };
        let end = reader::end(&self.connection, room, epoch)?;
        let newest: Option<u64> = self
            .connection
            .prepare_cached("SELECT max(rev) FROM snapshots WHERE room = ?1")?
            .query_row([room], |row| row.get(0))?;
        let position = snapshot.position;
        let fits = end.is_some_and(|(end, _)| position.rev <= end.rev);
        if epoch != position.epoch || !fits || newest >= Some(position.rev.0) {
            return Ok(());
        }
        let json = serde_json::to_string(snapshot)
            .map_err(|err| rusqlite::Error::ToSqlConversionFailure(Box::new(err)))?;
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let insert = "INSERT INTO snapshots (room, rev, part, snapshot) VALUES (?1, ?2, 0, ?3)
            ON CONFLICT DO NOTHING";
        transaction
            .prepare_cached(insert)?
            .execute((room, snapshot.position.rev.0, json))?;
        let trim = trim::thin_out(&transaction, room, snapshot, self.keep)?;
        transaction.commit()?;
        if let Some(up_to) = trim {
            self.trims.retain(|trim| trim.room != room);
            self.trims.push(Trim { room, up_to });
        }
        Ok(())
    }

    fn trim_piece(&mut self) {
        let Some(Trim { room, up_to }) = self.trims.last() else {
            return;
        };
        let dropped = trim::drop_oldest(&self.connection, *room, *up_to);
        match dropped {
            Ok(trim::PIECE..) => {}
            Ok(_) => drop(self.trims.pop()),
            Err(err) => {
                log::warn!("old entries were not dropped: {err}; they are next time");
                self.trims.pop();
                self.failure(&err);
            }
        }
    }
}

/// Where a room ends, as the database has it.
fn head(connection: &Connection, room: &RoomName, epoch: Epoch) -> rusqlite::Result<Head> {
    let Some((room, epoch)) = reader::find(connection, room)? else {
        return Ok(Head {
            room: None,
            end: Position::start(epoch),
            part: 0,
        });
    };
    let end = reader::end(connection, room, epoch)?;
    let (end, part) = end.unwrap_or((Position::start(epoch), 0));
    Ok(Head {
        room: Some(room),
        end,
        part,
    })
}

fn insert(
    connection: &Connection,
    room: &RoomName,
    head: Head,
    batch: &Batch,
) -> rusqlite::Result<Head> {
    let number = match head.room {
        Some(number) => number,
        None => {
            connection
                .prepare_cached("INSERT INTO rooms (name, epoch) VALUES (?1, ?2)")?
                .execute((room.as_str(), head.end.epoch.0.to_string()))?;
            connection.last_insert_rowid()
        }
    };
    let end = batch.end();
    let part = if end.rev == head.end.rev {
        head.part + 1
    } else {
        0
    };
    let entries = serde_json::to_string(&batch.entries)
        .map_err(|err| rusqlite::Error::ToSqlConversionFailure(Box::new(err)))?;
    let at = batch.entries.last().map_or(0, |last| last.at.0);
    let insert = "INSERT INTO batches (room, rev, part, id, after_rev, after_id, at, entries)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    connection.prepare_cached(insert)?.execute((
        number,
        end.rev.0,
        part,
        batch.id.0.to_string(),
        batch.after.rev.0,
        batch.after.batch.map(|before| before.0.to_string()),
        at,
        entries,
    ))?;
    Ok(Head {
        room: Some(number),
        end,
        part,
    })
}

fn since(connection: &Connection, room: &RoomName, after: Position) -> Vec<Arc<Batch>> {
    // An owner that is given nothing starts again from what the journal has.
    reader::replay(connection, room, after.rev, MAX_CONFLICT_ENTRIES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::{
        entry::Entry,
        ids::{BatchId, Millis},
        journal::disk::schema,
    };

    fn state(folder: &TempDir) -> State {
        let file = folder.path().join("test.db");
        let connection = schema::open(&file, "test").unwrap();
        State {
            epoch: schema::epoch(&connection).unwrap(),
            connection,
            keep: trim::Keep::default(),
            heads: HashMap::new(),
            trims: Vec::new(),
            failed: None,
            full: false,
            file: OpenFile::at(&file).unwrap(),
        }
    }

    /// Commits a batch whose one entry has so many bytes.
    fn append(state: &mut State, after: Position, bytes: usize) -> Result<Position, AppendError> {
        let entry = Entry {
            rev: after.rev.next(),
            at: Millis(1),
            client: None,
            action: to_raw_value(&"x".repeat(bytes)).unwrap(),
        };
        let batch = Batch {
            id: BatchId(Uuid::new_v4()),
            after,
            entries: vec![entry],
        };
        let (reply, mut outcome) = oneshot::channel();
        state.commit(vec![Append {
            room: RoomName::main(),
            batch: Arc::new(batch),
            reply,
        }]);
        outcome.try_recv().unwrap()
    }

    #[test]
    fn a_full_disk_takes_nothing_and_goes_on_when_there_is_space() {
        let folder = TempDir::new().unwrap();
        let mut state = state(&folder);
        let limit_pages = |state: &State, pages: i64| {
            let set = format!("PRAGMA max_page_count = {pages}");
            state.connection.query_row(&set, [], |_| Ok(())).unwrap();
        };
        let start = Position::start(state.epoch);
        let mut end = append(&mut state, start, 10).unwrap();
        limit_pages(&state, 20);
        let refused = loop {
            match append(&mut state, end, 10_000) {
                Ok(next) => end = next,
                Err(err) => break err,
            }
        };
        assert!(matches!(refused, AppendError::Full), "{refused}");
        let (kept, _) = reader::end(&state.connection, 1, state.epoch)
            .unwrap()
            .unwrap();
        assert_eq!(kept, end, "nothing of what was refused is in");
        limit_pages(&state, 1_000_000);
        assert_eq!(append(&mut state, end, 10_000).unwrap().rev, end.rev.next());
    }

    #[test]
    fn after_an_fsync_that_failed_nothing_more_is_taken() {
        let folder = TempDir::new().unwrap();
        let mut state = state(&folder);
        let start = Position::start(state.epoch);
        let end = append(&mut state, start, 10).unwrap();
        let fsync = ffi::Error::new(ffi::SQLITE_IOERR_FSYNC);
        let failed = state.failure(&rusqlite::Error::SqliteFailure(fsync, None));
        assert!(matches!(failed, AppendError::Failed(_)));
        let refused = append(&mut state, end, 10).unwrap_err();
        assert!(matches!(refused, AppendError::Failed(_)), "{refused}");
        let snapshot = Snapshot {
            position: end,
            at: Millis(1),
            model: "test".to_owned(),
            version: 1,
            state: to_raw_value(&1).unwrap(),
        };
        let refused = state.save(&RoomName::main(), &snapshot).unwrap_err();
        assert!(matches!(refused, ReadError::Unavailable(_)), "{refused}");
    }

    #[test]
    fn another_failure_of_the_disk_is_tried_again() {
        let folder = TempDir::new().unwrap();
        let mut state = state(&folder);
        let write = ffi::Error::new(ffi::SQLITE_IOERR_WRITE);
        let failed = state.failure(&rusqlite::Error::SqliteFailure(write, None));
        assert!(matches!(failed, AppendError::Unavailable(_)));
        let start = Position::start(state.epoch);
        append(&mut state, start, 10).unwrap();
    }
}
