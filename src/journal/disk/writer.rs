//! The one thread that writes: group commit of the batches of all rooms that wait.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rusqlite::{Connection, TransactionBehavior, config::DbConfig, ffi};
use tokio::sync::oneshot;

use super::{
    checkpoint::Checkpoints,
    insert::{self, Head},
    reader,
    schema::is_full,
    trim,
};
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
    Restart(Restart),
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

/// A new epoch of a room, which begins with a snapshot.
pub struct Restart {
    pub room: RoomName,
    pub after: Position,
    pub snapshot: Snapshot,
    pub reply: oneshot::Sender<Result<Position, AppendError>>,
}

/// The writer's thread; dropping it finishes what was sent.
pub struct Writer {
    /// Each room sends at most one append and one snapshot at a time, so that the rooms bound it.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(
        mut connection: Connection,
        file: OpenFile,
        epoch: Epoch,
        keep: trim::Keep,
    ) -> rusqlite::Result<Self> {
        let checkpoints = Checkpoints::watch(&mut connection)?;
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
            checkpoints,
        };
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread::spawn(move || state.run(&waiting))),
        })
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
    checkpoints: Checkpoints,
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

/// Batches of a room up to the place of a snapshot that are to be dropped.
struct Trim {
    room: i64,
    up_to: (Revision, u64),
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
                        self.checkpoint_if_due();
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
                    Command::Restart(restart) => {
                        self.commit(std::mem::take(&mut appends));
                        self.restart(restart);
                    }
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
            self.checkpoint_if_due();
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match self.checkpoints.run_if_due(&self.connection) {
            Ok(()) => {}
            Err(err) if is_unconfirmed(&err) => self.fail(unconfirmed(&err)),
            Err(err) => {
                log::error!("the database was not brought up to its log: {err}; the log is kept");
            }
        }
    }

    fn commit(&mut self, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        match self.attempt(|state| state.append_all(&appends)) {
            Ok(outcomes) => {
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

    /// Changes the database, unless it failed before.
    fn attempt<T>(
        &mut self,
        change: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> Result<T, AppendError> {
        if self.failed.is_none() && !self.file.is_there() {
            let path = self.file.path.display();
            let reason = format!("{path} was removed or replaced while it was open");
            self.fail(reason);
        }
        if let Some(reason) = &self.failed {
            return Err(AppendError::Failed(reason.clone()));
        }
        let changed = change(self).map_err(|err| self.failure(&err))?;
        if std::mem::take(&mut self.full) {
            log::info!("the store has space again");
        }
        Ok(changed)
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
                None => Head::find(&transaction, room, self.epoch)?,
            };
            if head.end != batch.after {
                let since = since(&transaction, room, batch.after);
                changed.insert(room.clone(), head);
                outcomes.push(Err(AppendError::Conflict { since }));
                continue;
            }
            let head = insert::batch(&transaction, room, head, batch)?;
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

    fn restart(&mut self, restart: Restart) {
        let Restart {
            room,
            after,
            snapshot,
            reply,
        } = restart;
        let outcome = self.attempt(|state| state.restart_now(&room, after, &snapshot));
        // An owner that is gone hears nothing; its epoch has begun all the same.
        let _ = reply.send(outcome.and_then(|restarted| restarted));
    }

    fn restart_now(
        &mut self,
        room: &RoomName,
        after: Position,
        snapshot: &Snapshot,
    ) -> rusqlite::Result<Result<Position, AppendError>> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let head = Head::find(&transaction, room, self.epoch)?;
        if head.end != after {
            let since = since(&transaction, room, after);
            return Ok(Err(AppendError::Conflict { since }));
        }
        let start = snapshot.position;
        if let Some(number) = head.room {
            for table in ["batches", "snapshots"] {
                let delete = format!("DELETE FROM {table} WHERE room = ?1");
                transaction.execute(&delete, [number])?;
            }
            transaction.execute("DELETE FROM rooms WHERE room = ?1", [number])?;
        }
        let number = insert::room(&transaction, room, start.epoch)?;
        insert::snapshot(&transaction, number, snapshot)?;
        transaction.commit()?;
        self.heads.remove(room);
        if let Some(number) = head.room {
            self.trims.retain(|trim| trim.room != number);
        }
        Ok(Ok(start))
    }

    /// What an error of the database means for the batches of its transaction.
    fn failure(&mut self, err: &rusqlite::Error) -> AppendError {
        if is_unconfirmed(err) {
            let reason = unconfirmed(err);
            self.fail(reason.clone());
            return AppendError::Failed(reason);
        }
        if is_full(err) {
            if !std::mem::replace(&mut self.full, true) {
                log::error!("the store has no space left; actions are refused until it has");
            }
            return AppendError::Full;
        }
        AppendError::Unavailable(err.to_string())
    }

    fn fail(&mut self, reason: String) {
        log::error!("{reason}; nothing more is committed until the server starts again");
        self.trims.clear();
        self.failed = Some(reason);
        // The next process begins with the whole log, which has all that was committed.
        let keep_log = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
        if let Err(err) = self.connection.set_db_config(keep_log, true) {
            log::error!("the log may be gone when the server stops: {err}");
        }
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
        let newest = reader::snapshot_order(&self.connection, room)?;
        let position = snapshot.position;
        let fits = end.is_some_and(|end| position.order() <= end.order());
        if epoch != position.epoch || !fits || newest >= Some(position.order()) {
            return Ok(());
        }
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        insert::snapshot(&transaction, room, snapshot)?;
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

/// Whether an fsync failed.
fn is_unconfirmed(err: &rusqlite::Error) -> bool {
    let code = err.sqlite_error().map(|err| err.extended_code);
    matches!(
        code,
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
    )
}

fn unconfirmed(err: &rusqlite::Error) -> String {
    format!("the disk did not confirm what was written: {err}")
}

fn since(connection: &Connection, room: &RoomName, after: Position) -> Vec<Arc<Batch>> {
    // An owner that is given nothing starts again from what the journal has.
    reader::replay(connection, room, after, MAX_CONFLICT_ENTRIES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::value::to_raw_value;
    use tempfile::TempDir;
    use uuid::Uuid;

    use super::*;
    use crate::{
        entry::Entry,
        ids::{BatchId, Millis},
        journal::disk::schema,
        model::ModelId,
    };

    const MODEL: ModelId = ModelId {
        name: "test",
        version: 1,
    };

    fn state(folder: &TempDir) -> State {
        let file = folder.path().join("test.db");
        let mut connection = schema::open(&file, MODEL).unwrap();
        State {
            checkpoints: Checkpoints::watch(&mut connection).unwrap(),
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

    /// A batch whose one entry has so many bytes.
    fn batch(after: Position, bytes: usize) -> Batch {
        let entry = Entry {
            rev: after.rev.next(),
            client: None,
            n: None,
            action: to_raw_value(&"x".repeat(bytes)).unwrap(),
            acting: None,
        };
        Batch {
            id: BatchId(Uuid::new_v4()),
            after,
            at: Millis(1),
            version: 1,
            entries: vec![entry],
            refusals: Vec::new(),
        }
    }

    /// Commits a batch whose one entry has so many bytes.
    fn append(state: &mut State, after: Position, bytes: usize) -> Result<Position, AppendError> {
        let (reply, mut outcome) = oneshot::channel();
        state.commit(vec![Append {
            room: RoomName::main(),
            batch: Arc::new(batch(after, bytes)),
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
        let kept = reader::end(&state.connection, 1, state.epoch)
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
            settled: Vec::new(),
            ordinals: 0,
        };
        let refused = state.save(&RoomName::main(), &snapshot).unwrap_err();
        assert!(matches!(refused, ReadError::Unavailable(_)), "{refused}");
        drop(state);
        let log = fs::metadata(folder.path().join("test.db-wal")).unwrap();
        assert!(log.len() > 0, "the next process begins with the log");
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

    /// One fsync serves all that wait.
    #[test]
    fn batches_of_all_rooms_that_wait_are_one_transaction() {
        const ROOMS: usize = 50;
        let folder = TempDir::new().unwrap();
        let mut state = state(&folder);
        let commits = Arc::new(AtomicUsize::new(0));
        let counted = commits.clone();
        let hook = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        state.connection.commit_hook(Some(hook)).unwrap();
        let (commands, waiting) = mpsc::channel();
        let start = Position::start(state.epoch);
        let outcomes: Vec<_> = (0..ROOMS)
            .map(|room| {
                let (reply, outcome) = oneshot::channel();
                let append = Append {
                    room: format!("room-{room}").parse().unwrap(),
                    batch: Arc::new(batch(start, 10)),
                    reply,
                };
                commands.send(Command::Append(append)).ok().unwrap();
                outcome
            })
            .collect();
        drop(commands);
        state.run(&waiting);
        for mut outcome in outcomes {
            let end = outcome.try_recv().unwrap().unwrap();
            assert_eq!(end.rev, start.rev.next());
        }
        assert_eq!(commits.load(Ordering::Relaxed), 1);
        let rows = "SELECT count(DISTINCT room) FROM batches";
        let rows: usize = state
            .connection
            .query_row(rows, [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, ROOMS);
    }
}
