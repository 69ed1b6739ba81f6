//! What the writer adds to the tables: rooms, batches, snapshots.

use rusqlite::Connection;

use super::{reader, row::Columns};
use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Epoch, RoomName},
};

/// Where a room ends.
#[derive(Clone, Copy)]
pub struct Head {
    /// `None`: it has no row yet.
    pub room: Option<i64>,
    pub end: Position,
}

impl Head {
    /// As the database has it; one that it does not know begins in `epoch`.
    pub fn find(connection: &Connection, room: &RoomName, epoch: Epoch) -> rusqlite::Result<Self> {
        let Some((room, epoch)) = reader::find(connection, room)? else {
            return Ok(Self {
                room: None,
                end: Position::start(epoch),
            });
        };
        let end = reader::end(connection, room, epoch)?;
        Ok(Self {
            room: Some(room),
            end: end.unwrap_or(Position::start(epoch)),
        })
    }
}

/// Adds a batch at a room's end, and says where that is now.
pub fn batch(
    connection: &Connection,
    name: &RoomName,
    head: Head,
    batch: &Batch,
) -> rusqlite::Result<Head> {
    let number = match head.room {
        Some(number) => number,
        None => room(connection, name, head.end.epoch)?,
    };
    let end = batch.end();
    let columns = Columns::of(&batch.entries, &batch.refusals).map_err(unwritable)?;
    let insert = "INSERT INTO batches (room, rev, part, id, after_rev, after_part, after_id, at,
        version, clients, entries, refusals)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    connection.prepare_cached(insert)?.execute((
        number,
        end.rev.0,
        end.part,
        batch.id.0.to_string(),
        batch.after.rev.0,
        batch.after.part,
        batch.after.batch.map(|before| before.0.to_string()),
        batch.at.0,
        batch.version,
        columns.clients,
        columns.entries,
        columns.refusals,
    ))?;
    Ok(Head {
        room: Some(number),
        end,
    })
}

/// Adds a room, and gives its number.
pub fn room(connection: &Connection, room: &RoomName, epoch: Epoch) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("INSERT INTO rooms (name, epoch) VALUES (?1, ?2)")?
        .execute((room.as_str(), epoch.0.to_string()))?;
    Ok(connection.last_insert_rowid())
}

/// Adds a snapshot of a room.
pub fn snapshot(connection: &Connection, room: i64, snapshot: &Snapshot) -> rusqlite::Result<()> {
    let insert = "INSERT INTO snapshots (room, rev, part, snapshot) VALUES (?1, ?2, ?3, ?4)";
    let position = snapshot.position;
    let json = serde_json::to_string(snapshot).map_err(unwritable)?;
    let row = (room, position.rev.0, position.part, json);
    connection.prepare_cached(insert)?.execute(row)?;
    Ok(())
}

fn unwritable(err: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(err))
}
