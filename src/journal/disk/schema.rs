//! The tables, and how a database is recognised, made and brought up to date.
//!
//! A room has a row in `rooms` from its first commit. A batch is one row of `batches`; where a
//! journal ends is its last row, which is never dropped, so that a commit writes one row and no
//! head. `part` tells batches apart that end at the same revision, since all but the first of them
//! hold refusals alone.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OptionalExtension, ffi};
use uuid::Uuid;

use crate::{ids::Epoch, model::ModelId};

/// The database's file in its folder.
pub const FILE: &str = "tallyroom.db";

/// "Tlly": by this a database is known as ours (PRAGMA application_id).
const APPLICATION: i64 = 0x546c_6c79;

/// The version of the tables (PRAGMA user_version).
const FORMAT: i64 = 2;

/// Large pages are few writes for a large batch; a small one costs hardly more, since the fsync is
/// most of it.
pub const PAGE_BYTES: usize = 16 * 1024;

const TABLES: &str = "
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE rooms (
  room INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  epoch TEXT NOT NULL
) STRICT;
CREATE TABLE batches (
  room INTEGER NOT NULL REFERENCES rooms,
  rev INTEGER NOT NULL,
  part INTEGER NOT NULL,
  id TEXT NOT NULL,
  after_rev INTEGER NOT NULL,
  after_id TEXT,
  at INTEGER NOT NULL,
  entries TEXT NOT NULL,
  after_part INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 1,
  clients TEXT,
  refusals TEXT,
  PRIMARY KEY (room, rev, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  room INTEGER NOT NULL REFERENCES rooms,
  rev INTEGER NOT NULL,
  part INTEGER NOT NULL,
  snapshot TEXT NOT NULL,
  PRIMARY KEY (room, rev, part)
) STRICT, WITHOUT ROWID;
";

/// What brings a database of format 1, which knew no numbers of clients, up to format 2. Its entries
/// were objects, with a revision, a time and a client that was always null.
const FROM_1: &str = "
ALTER TABLE batches ADD COLUMN after_part INTEGER NOT NULL DEFAULT 0;
ALTER TABLE batches ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE batches ADD COLUMN clients TEXT;
ALTER TABLE batches ADD COLUMN refusals TEXT;
UPDATE batches SET entries = (
  SELECT json_group_array(json_array(NULL, NULL, json(action)))
  FROM (SELECT json_extract(value, '$.action') AS action FROM json_each(entries) ORDER BY key)
);
";

/// Opens the database for writing, and makes it where there is none.
pub fn open(file: &Path, model: ModelId) -> Result<Connection, OpenError> {
    let database = |err| unusable(file, err);
    let mut connection = Connection::open(file).map_err(database)?;
    check_writable(&connection).map_err(database)?;
    prepare(&connection).map_err(database)?;
    let found = recognise(&connection, file).map_err(|err| match err {
        OpenError::Database { err, .. } => database(err),
        err => err,
    })?;
    if let Found::Format(_) = found {
        check_model(&connection, file, model)?;
    }
    durable(&connection).map_err(database)?;
    let ready = match found {
        Found::Nothing => create(&mut connection, model),
        Found::Format(format) => bring_up(&mut connection, format, model),
    };
    ready.map_err(database)?;
    // The log beside it may be one that is only read.
    connection
        .execute_batch("BEGIN IMMEDIATE; ROLLBACK")
        .map_err(database)?;
    Ok(connection)
}

/// SQLite opens what may not be written for reading alone, and says so with the first write.
fn check_writable(connection: &Connection) -> rusqlite::Result<()> {
    match connection.is_readonly(MAIN_DB)? {
        false => Ok(()),
        true => {
            let err = ffi::Error::new(ffi::SQLITE_READONLY);
            Err(rusqlite::Error::SqliteFailure(err, None))
        }
    }
}

/// Why a database cannot be used that is to be written.
fn unusable(file: &Path, err: rusqlite::Error) -> OpenError {
    match err.sqlite_error_code() {
        // Where the log beside the database cannot be made, it cannot be opened.
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => OpenError::NotWritable {
            file: file.to_owned(),
            err,
        },
        _ => OpenError::database(file, err),
    }
}

/// Whether a database that is only to be read holds a model's rooms as this program reads them.
pub fn check(connection: &Connection, file: &Path, model: ModelId) -> Result<(), OpenError> {
    match recognise(connection, file)? {
        Found::Nothing => Err(OpenError::NotOurs {
            file: file.to_owned(),
        }),
        Found::Format(found) if found < FORMAT => Err(OpenError::Older {
            file: file.to_owned(),
            found,
            expected: FORMAT,
        }),
        Found::Format(_) => check_model(connection, file, model),
    }
}

/// What is in a file.
enum Found {
    /// No tables: it is new.
    Nothing,
    /// A database of ours, of this format.
    Format(i64),
}

fn recognise(connection: &Connection, file: &Path) -> Result<Found, OpenError> {
    let database = |err| OpenError::database(file, err);
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let application = pragma("application_id").map_err(database)?;
    let format = pragma("user_version").map_err(database)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(database)?;
    if tables > 0 && application != APPLICATION {
        return Err(OpenError::NotOurs {
            file: file.to_owned(),
        });
    }
    if format > FORMAT {
        return Err(OpenError::Newer {
            file: file.to_owned(),
            found: format,
            expected: FORMAT,
        });
    }
    Ok(match tables {
        0 => Found::Nothing,
        _ => Found::Format(format),
    })
}

/// Refuses another model's data, and that of a newer version.
fn check_model(connection: &Connection, file: &Path, model: ModelId) -> Result<(), OpenError> {
    let meta = |key| meta(connection, key).map_err(|err| OpenError::database(file, err));
    let found = meta("model")?.unwrap_or_default();
    if found != model.name {
        return Err(OpenError::OtherModel {
            file: file.to_owned(),
            found,
            expected: model.name.to_owned(),
        });
    }
    let version = meta("version")?.and_then(|version| version.parse().ok());
    match version.unwrap_or(1) {
        found if found > model.version => Err(OpenError::NewerModel {
            file: file.to_owned(),
            model: model.name.to_owned(),
            found,
            expected: model.version,
        }),
        _ => Ok(()),
    }
}

/// Brings the tables up to this format, and says which version of the model writes from now on.
fn bring_up(connection: &mut Connection, format: i64, model: ModelId) -> rusqlite::Result<()> {
    let version = model.version.to_string();
    if format == FORMAT && meta(connection, "version")? == Some(version.clone()) {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    if format < 2 {
        transaction.execute_batch(FROM_1)?;
    }
    let set = "INSERT INTO meta (key, value) VALUES ('version', ?1)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    transaction.execute(set, [version])?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

/// An acknowledged commit survives the loss of power.
fn durable(connection: &Connection) -> rusqlite::Result<()> {
    // Only a database that has no tables yet takes it.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer does it itself, when whoever waited has been answered: a commit says nothing of a
    // checkpoint of its own that failed.
    connection.pragma_update(None, "wal_autocheckpoint", 0)
}

fn create(connection: &mut Connection, model: ModelId) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(TABLES)?;
    let insert = "INSERT INTO meta (key, value) VALUES (?1, ?2)";
    for (key, value) in [
        ("store", Uuid::new_v4().to_string()),
        ("epoch", Uuid::new_v4().to_string()),
        ("model", model.name.to_owned()),
        ("version", model.version.to_string()),
    ] {
        transaction.execute(insert, (key, value))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let select = "SELECT value FROM meta WHERE key = ?1";
    connection
        .query_row(select, [key], |row| row.get(0))
        .optional()
}

/// The store's id.
pub fn id(connection: &Connection) -> rusqlite::Result<Uuid> {
    meta_id(connection, "store")
}

/// The epoch of rooms that nobody has changed yet.
pub fn epoch(connection: &Connection) -> rusqlite::Result<Epoch> {
    meta_id(connection, "epoch").map(Epoch)
}

fn meta_id(connection: &Connection, key: &str) -> rusqlite::Result<Uuid> {
    let text = meta(connection, key)?.unwrap_or_default();
    text.parse().map_err(|err: uuid::Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(err))
    })
}

/// Sets a connection up as all of this journal's are.
pub fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    // Statements are few and used all the time.
    connection.set_prepared_statement_cache_capacity(32);
    connection.busy_timeout(Duration::from_secs(10))
}

/// A data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("the data folder {} cannot be used: {err}", folder.display())]
    Folder { folder: PathBuf, err: io::Error },
    #[error("the data folder {} is open in another process; stop that, or name another folder", folder.display())]
    InUse { folder: PathBuf },
    #[error("{} is not a database of tallyroom", file.display())]
    NotOurs { file: PathBuf },
    #[error("{} is of format {found}, newer than this program reads ({expected})", file.display())]
    Newer {
        file: PathBuf,
        found: i64,
        expected: i64,
    },
    #[error("{} is of format {found}, older than {expected}; a server brings it up when it starts", file.display())]
    Older {
        file: PathBuf,
        found: i64,
        expected: i64,
    },
    #[error("{} holds rooms of the model {found:?}; this program has {expected:?}", file.display())]
    OtherModel {
        file: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{} was written by version {found} of the model {model:?}; this program has version {expected}", file.display())]
    NewerModel {
        file: PathBuf,
        model: String,
        found: u32,
        expected: u32,
    },
    #[error("{} cannot be written: {err}; let this process write it, the files beside it, and its folder", file.display())]
    NotWritable { file: PathBuf, err: rusqlite::Error },
    #[error("{} cannot be opened: its disk has no space left; make some, and try again", file.display())]
    Full { file: PathBuf },
    #[error("{} cannot be opened: {err}", file.display())]
    Database { file: PathBuf, err: rusqlite::Error },
}

impl OpenError {
    /// What an error of the database means for who opens it.
    pub(super) fn database(file: &Path, err: rusqlite::Error) -> Self {
        let file = file.to_owned();
        match is_full(&err) {
            true => Self::Full { file },
            false => Self::Database { file, err },
        }
    }
}

/// Whether there is no space for what the database has to write.
pub fn is_full(err: &rusqlite::Error) -> bool {
    // The index of the log grows in a file of its own, for which SQLite has another code.
    err.sqlite_error().is_some_and(|err| {
        err.code == ErrorCode::DiskFull || err.extended_code == ffi::SQLITE_IOERR_SHMSIZE
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn version(version: u32) -> ModelId {
        ModelId {
            name: "test",
            version,
        }
    }

    /// An older program would misread what a newer one has written by then.
    #[test]
    fn a_newer_versions_rooms_are_refused_and_left_alone_from_the_first_start_on() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("test.db");
        drop(open(&file, version(1)).unwrap());
        let first = open(&file, version(2)).unwrap();
        assert_eq!(meta(&first, "version").unwrap().as_deref(), Some("2"));
        drop(first);
        let before = fs::read(&file).unwrap();
        let refused = open(&file, version(1)).unwrap_err();
        assert!(
            matches!(
                refused,
                OpenError::NewerModel {
                    found: 2,
                    expected: 1,
                    ..
                }
            ),
            "{refused}"
        );
        assert_eq!(fs::read(&file).unwrap(), before);
        let reopened = open(&file, version(2)).unwrap();
        assert_eq!(meta(&reopened, "version").unwrap().as_deref(), Some("2"));
    }
}
