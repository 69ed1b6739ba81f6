//! When the write-ahead log is brought into the database.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use rusqlite::{Connection, DEFAULT_NAME, ErrorCode, wal::CheckpointMode};

/// By how many pages the write-ahead log grows from one checkpoint to the next.
const PAGES: u32 = 1000;

/// Brings the write-ahead log into the database from time to time, so that it stays short and the
/// next start reads little, however often the process was killed.
pub struct Checkpoints {
    /// How many pages the log has, as SQLite tells it with each commit: those of processes before
    /// this one are among them.
    log: Arc<AtomicU32>,
    /// How many it had at the last checkpoint since it began anew.
    brought: u32,
}

impl Checkpoints {
    /// Watches what a connection commits.
    pub fn watch(connection: &mut Connection) -> rusqlite::Result<Self> {
        let log = Arc::new(AtomicU32::new(0));
        let told = log.clone();
        connection.wal_hook(Some(move |_: &mut _, pages| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { log, brought: 0 })
    }

    /// Brings what is in the log into the database where that is due, as far as no reader needs it
    /// there.
    ///
    /// # Errors
    ///
    /// One that fails loses nothing: the log keeps what it has, and the next begins where it was. But
    /// where a sync failed there must be no next one on this log: one that a reader held up counts
    /// what it wrote as brought over and leaves the sync to a later one, whose failure may make the
    /// kernel forget both.
    pub fn run_if_due(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let log = self.log.load(Ordering::Relaxed);
        if log < self.brought {
            self.brought = 0;
        }
        if log - self.brought < PAGES {
            return Ok(());
        }
        self.brought = log;
        connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
        Ok(())
    }
}

/// Brings all that the log has into the database, however much of it was brought before.
///
/// For the first connection of a process: what an earlier one could not sync the kernel may show as if
/// it were on disk, and commits that follow it in the log would be lost with it. Written to the
/// database it is synced, and the log begins anew.
///
/// # Errors
///
/// Where it is not known whether what is there is on disk.
pub fn renew(connection: &Connection) -> rusqlite::Result<()> {
    match connection.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE) {
        // Another program, which has the database open, does it.
        Err(err) if err.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
        renewed => renewed.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        journal::disk::schema::{self, PAGE_BYTES},
        model::ModelId,
    };

    const MODEL: ModelId = ModelId {
        name: "test",
        version: 1,
    };

    /// Commits a number of rows of a page each, with checkpoints as they are due.
    fn fill(connection: &mut Connection, rows: u32) {
        let mut checkpoints = Checkpoints::watch(connection).unwrap();
        let insert = "INSERT INTO meta (key, value)
            VALUES (hex(randomblob(16)), printf('%.*c', 16384, 'x'))";
        for _ in 0..rows {
            connection.execute(insert, []).unwrap();
            checkpoints.run_if_due(connection).unwrap();
        }
    }

    fn log_pages(folder: &TempDir) -> u64 {
        let log = fs::metadata(folder.path().join("test.db-wal")).unwrap();
        log.len() / PAGE_BYTES as u64
    }

    #[test]
    fn the_log_stays_short_while_much_is_written() {
        let folder = TempDir::new().unwrap();
        let mut connection = schema::open(&folder.path().join("test.db"), MODEL).unwrap();
        fill(&mut connection, 1500);
        assert!(log_pages(&folder) < 1100, "{}", log_pages(&folder));
    }

    #[test]
    fn the_log_stays_short_where_every_process_is_killed_before_it_wrote_much() {
        let folder = TempDir::new().unwrap();
        for _ in 0..30 {
            let mut connection = schema::open(&folder.path().join("test.db"), MODEL).unwrap();
            fill(&mut connection, 50);
            // Closing it would bring everything into the database.
            std::mem::forget(connection);
        }
        assert!(log_pages(&folder) < 1200, "{}", log_pages(&folder));
    }
}
