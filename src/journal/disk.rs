//! Journals on disk: one SQLite database in a folder, written by one thread.
//!
//! Write-ahead log with `synchronous=FULL`: one fsync a commit, no repair after a crash, and any
//! tool can open, query and back up the file. The writer commits the batches of all rooms that wait
//! in one transaction; readers have connections of their own and read in pieces, so that a long read
//! holds nobody up.

mod checkpoint;
mod insert;
mod inspect;
mod reader;
mod row;
mod schema;
mod trim;
mod writer;

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
};

use tokio::sync::oneshot;
use uuid::Uuid;

pub use self::{
    inspect::{Inspection, Kept},
    schema::{FILE, OpenError},
    trim::Keep,
};
use self::{
    reader::{ENDED, Readers},
    writer::{Append, Command, OpenFile, Restart, Writer},
};
use super::{AppendError, Durability, Journal, Opened, ReadError, StoreFuture};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Epoch, Revision, RoomName},
    model::ModelId,
};

/// The file by whose lock a folder belongs to one process.
const LOCK: &str = "lock";

/// A journal in a folder of its own.
///
/// Dropping it ends its threads and gives the folder free.
pub struct DiskJournal {
    id: Uuid,
    /// What the first entry of a room begins that has none; the same over restarts.
    epoch: Epoch,
    /// They end before the writer, whose connection is the last and leaves one file behind.
    readers: Readers,
    writer: Writer,
    _lock: File,
}

impl DiskJournal {
    /// Opens the folder of a model's rooms, which is made where there is none.
    ///
    /// After a crash this needs no repair, and no more time than to write the log into the database.
    ///
    /// # Errors
    ///
    /// [`OpenError`], which names the folder and what to do.
    pub fn open(folder: &Path, model: ModelId, keep: Keep) -> Result<Self, OpenError> {
        let lock = lock(folder)?;
        let file = folder.join(FILE);
        if !file.exists() {
            sync_names(folder).map_err(|err| OpenError::Folder {
                folder: folder.to_owned(),
                err,
            })?;
        }
        let connection = schema::open(&file, model)?;
        let database = |err| OpenError::database(&file, err);
        checkpoint::renew(&connection).map_err(database)?;
        let id = schema::id(&connection).map_err(database)?;
        let epoch = schema::epoch(&connection).map_err(database)?;
        let open_file = OpenFile::at(&file).map_err(|err| OpenError::Folder {
            folder: folder.to_owned(),
            err,
        })?;
        let readers = Readers::start(&file).map_err(database)?;
        Ok(Self {
            id,
            epoch,
            writer: Writer::start(connection, open_file, epoch, keep).map_err(database)?,
            readers,
            _lock: lock,
        })
    }
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let unusable = |err| OpenError::Folder {
        folder: folder.to_owned(),
        err,
    };
    fs::create_dir_all(folder).map_err(unusable)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(folder.join(LOCK))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            folder: folder.to_owned(),
        }),
        Err(TryLockError::Error(err)) => Err(unusable(err)),
    }
}

/// Makes a folder's way from the root durable, so that a new one does not vanish with its database
/// when the power fails. SQLite syncs the folder, but not what leads to it.
fn sync_names(folder: &Path) -> io::Result<()> {
    for parent in folder.canonicalize()?.ancestors().skip(1) {
        let synced = File::open(parent).and_then(|parent| parent.sync_all());
        match synced.map_err(|err| err.kind()) {
            // What may not be read was not made by us, and some file systems sync no folders.
            Ok(())
            | Err(ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported) =>
                {}
            Err(kind) => return Err(kind.into()),
        }
    }
    Ok(())
}

impl Journal for DiskJournal {
    fn durability(&self) -> Durability {
        Durability::Disk
    }

    fn id(&self) -> Uuid {
        self.id
    }

    fn append<'a>(
        &'a self,
        room: &'a RoomName,
        batch: Arc<Batch>,
    ) -> StoreFuture<'a, Position, AppendError> {
        let (reply, appended) = oneshot::channel();
        let append = Append {
            room: room.clone(),
            batch,
            reply,
        };
        // Sent now and not when the future is polled: dropping it does not stop the commit.
        let sent = self.writer.send(Command::Append(append));
        Box::pin(async move {
            if !sent {
                return Err(AppendError::Unavailable(ENDED.to_owned()));
            }
            let unknown = |_| AppendError::Unknown("the writer ended".to_owned());
            appended.await.map_err(unknown)?
        })
    }

    fn open<'a>(&'a self, room: &'a RoomName) -> StoreFuture<'a, Opened, ReadError> {
        let (room, start) = (room.clone(), Position::start(self.epoch));
        self.readers
            .read(move |connection| reader::open(connection, &room, start))
    }

    fn snapshot_at<'a>(
        &'a self,
        room: &'a RoomName,
        until: Revision,
    ) -> StoreFuture<'a, Option<Snapshot>, ReadError> {
        let room = room.clone();
        self.readers.read(move |connection| {
            let Some((room, _)) = reader::find(connection, &room)? else {
                return Ok(None);
            };
            Ok(reader::snapshot_at(connection, room, until)?)
        })
    }

    fn replay<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        max_entries: usize,
    ) -> StoreFuture<'a, Vec<Arc<Batch>>, ReadError> {
        let room = room.clone();
        self.readers
            .read(move |connection| reader::replay(connection, &room, after, max_entries))
    }

    fn save<'a>(
        &'a self,
        room: &'a RoomName,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, (), ReadError> {
        let (reply, saved) = oneshot::channel();
        let sent = self.writer.send(Command::Save {
            room: room.clone(),
            snapshot,
            reply,
        });
        Box::pin(async move {
            let ended = || ReadError::Unavailable(ENDED.to_owned());
            if !sent {
                return Err(ended());
            }
            saved.await.map_err(|_| ended())?
        })
    }

    fn restart<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, Position, AppendError> {
        let (reply, restarted) = oneshot::channel();
        let sent = self.writer.send(Command::Restart(Restart {
            room: room.clone(),
            after,
            snapshot,
            reply,
        }));
        Box::pin(async move {
            if !sent {
                return Err(AppendError::Unavailable(ENDED.to_owned()));
            }
            let unknown = |_| AppendError::Unknown("the writer ended".to_owned());
            restarted.await.map_err(unknown)?
        })
    }

    fn rooms<'a>(
        &'a self,
        after: Option<&'a RoomName>,
        max: usize,
    ) -> StoreFuture<'a, Vec<RoomName>, ReadError> {
        let after = after.cloned();
        self.readers
            .read(move |connection| reader::rooms(connection, after.as_ref(), max))
    }
}
