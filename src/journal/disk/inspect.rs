//! Looking into a data folder without changing it, also while a server has it open.

use std::{path::Path, sync::Arc};

use rusqlite::{Connection, OpenFlags};

use super::{
    reader::{self, snapshots},
    schema::{self, FILE, OpenError},
};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::RoomName,
    journal::ReadError,
    model::ModelId,
};

/// A data folder as it was when it was opened.
pub struct Inspection {
    connection: Connection,
}

/// What is kept of a room.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The epoch's beginning.
    pub start: Position,
    /// Where the batches that are kept begin.
    pub begins: Position,
    pub end: Position,
    /// Where snapshots are kept, oldest first.
    pub snapshots: Vec<Position>,
}

impl Inspection {
    /// Opens a folder that holds a model's rooms, for reading alone; makes nothing.
    ///
    /// # Errors
    ///
    /// [`OpenError`], also where the folder or its database is missing.
    pub fn open(folder: &Path, model: ModelId) -> Result<Self, OpenError> {
        let file = folder.join(FILE);
        if let Err(err) = file.metadata() {
            let folder = folder.to_owned();
            return Err(OpenError::Folder { folder, err });
        }
        let database = |err| OpenError::database(&file, err);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(&file, flags).map_err(database)?;
        schema::prepare(&connection).map_err(database)?;
        schema::check(&connection, &file, model)?;
        // All that is read is of one moment, whatever a server commits meanwhile.
        connection.execute_batch("BEGIN").map_err(database)?;
        Ok(Self { connection })
    }

    /// What SQLite itself finds wrong; empty where all is well.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn integrity(&self) -> Result<Vec<String>, ReadError> {
        let mut check = self.connection.prepare("PRAGMA integrity_check(20)")?;
        let said = check.query_map([], |row| row.get(0))?;
        let mut said: Vec<String> = said.collect::<rusqlite::Result<_>>()?;
        said.retain(|line| line != "ok");
        let mut orphans = self.connection.prepare("PRAGMA foreign_key_check")?;
        if orphans.exists([])? {
            said.push("batches or snapshots of no room".to_owned());
        }
        Ok(said)
    }

    /// The names of rooms from behind `after` on, in their order.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn rooms(&self, after: Option<&RoomName>, max: usize) -> Result<Vec<RoomName>, ReadError> {
        reader::rooms(&self.connection, after, max)
    }

    /// What is kept of a room.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn kept(&self, room: &RoomName) -> Result<Option<Kept>, ReadError> {
        let Some((number, epoch)) = reader::find(&self.connection, room)? else {
            return Ok(None);
        };
        let start = Position::start(epoch);
        let end = reader::end(&self.connection, number, epoch)?;
        let snapshots = snapshots(&self.connection, number)?;
        Ok(Some(Kept {
            start,
            begins: reader::begins(&self.connection, number, epoch)?,
            end: end.unwrap_or(start),
            snapshots,
        }))
    }

    /// The snapshot that is kept at a position.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn snapshot(&self, room: &RoomName, at: Position) -> Result<Option<Snapshot>, ReadError> {
        let Some((number, _)) = reader::find(&self.connection, room)? else {
            return Ok(None);
        };
        let snapshot = reader::snapshot(&self.connection, number, at)?;
        Ok(snapshot)
    }

    /// The batches after a position, oldest first, until `max_entries` are there.
    ///
    /// # Errors
    ///
    /// [`ReadError`]
    pub fn replay(
        &self,
        room: &RoomName,
        after: Position,
        max_entries: usize,
    ) -> Result<Vec<Arc<Batch>>, ReadError> {
        reader::replay(&self.connection, room, after, max_entries)
    }
}
