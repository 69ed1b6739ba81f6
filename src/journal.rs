//! The ordered, durable batches of every room: the trait that a store implements.
//!
//! One primitive carries everything: *compare and append*. A store takes a batch only if the room's
//! journal still ends where the batch was judged. That makes two owners of one room harmless, and
//! a file, a Redis script, a stream with expected sequences or a database's unique key can give it.

pub mod disk;
pub mod memory;
pub mod passing;

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use uuid::Uuid;

use crate::{
    entry::{Batch, Position, Snapshot},
    ids::{Revision, RoomName},
};

/// A future that a store gives; it may be sent to another thread.
pub type StoreFuture<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

/// A store of rooms' journals.
///
/// All methods are asynchronous and may be called from any thread. None of them depends on being
/// polled to the end for what the store already began.
pub trait Journal: Send + Sync + 'static {
    /// How much an acknowledged batch survives.
    fn durability(&self) -> Durability;

    /// The store's id, which only it knows and keeps for as long as it lives.
    fn id(&self) -> Uuid;

    /// Appends a batch to a room's journal if the journal still ends at `batch.after`, and returns
    /// where it ends now.
    ///
    /// All or none of the batch is committed, and durable as [`Journal::durability`] says when this
    /// resolves; the owner tells nobody before. The first batch of a room creates it. Dropping the
    /// future does not stop the commit.
    ///
    /// # Errors
    ///
    /// [`AppendError::Conflict`]: others were first; nothing was written. Adopt `since`, judge
    /// again, append again.
    /// [`AppendError::Full`], [`AppendError::Unavailable`]: nothing was written. Refuse actions and
    /// keep serving the state.
    /// [`AppendError::Unknown`]: the outcome is not known. Append the same batch again; if `since`
    /// of a conflict holds its id, it is in.
    fn append<'a>(
        &'a self,
        room: &'a RoomName,
        batch: Arc<Batch>,
    ) -> StoreFuture<'a, Position, AppendError>;

    /// Finds where a room's journal ends, and the newest snapshot to go on from.
    ///
    /// Writes nothing: a room that nobody changed has no entries and the epoch that its first entry
    /// will have.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; try again later.
    fn open<'a>(&'a self, room: &'a RoomName) -> StoreFuture<'a, Opened, ReadError>;

    /// The newest snapshot that is kept at or before a revision.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; try again later.
    fn snapshot_at<'a>(
        &'a self,
        room: &'a RoomName,
        until: Revision,
    ) -> StoreFuture<'a, Option<Snapshot>, ReadError>;

    /// Reads batches after a position that the journal passed, oldest first.
    ///
    /// Gives whole batches, at least one where there is one, and stops at some point past
    /// `max_entries`, so that a long journal is read in pieces. Empty at the journal's end.
    ///
    /// # Errors
    ///
    /// [`ReadError::Gone`] where entries after `after` were dropped, or its epoch is over: go on
    /// from a snapshot.
    fn replay<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        max_entries: usize,
    ) -> StoreFuture<'a, Vec<Arc<Batch>>, ReadError>;

    /// Keeps a snapshot, so that older entries may be dropped.
    ///
    /// One that is older than what is kept, or of another epoch, is passed over.
    ///
    /// # Errors
    ///
    /// [`ReadError::Unavailable`]; nothing is lost, the journal only stays longer.
    fn save<'a>(&'a self, room: &'a RoomName, snapshot: Snapshot)
    -> StoreFuture<'a, (), ReadError>;

    /// Begins a new epoch of a room with a snapshot at its start, if the journal still ends at
    /// `after`; what was before is gone. Durable as an append is, and fails as one does.
    ///
    /// # Errors
    ///
    /// [`AppendError`]; a conflict gives what came since, and nothing was changed.
    fn restart<'a>(
        &'a self,
        room: &'a RoomName,
        after: Position,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, Position, AppendError>;

    /// The names of rooms that have a journal, in their order, from behind `after` on; at most so many.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; try again later.
    fn rooms<'a>(
        &'a self,
        after: Option<&'a RoomName>,
        max: usize,
    ) -> StoreFuture<'a, Vec<RoomName>, ReadError>;
}

/// Where a room's journal ends, and what to go on from.
#[derive(Clone, Debug)]
pub struct Opened {
    pub end: Position,
    pub snapshot: Option<Snapshot>,
    /// The epoch's beginning, to replay from where there is no snapshot.
    pub start: Position,
}

/// How much an acknowledged batch survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: it is gone when the process ends.
    Memory,
    /// It is fsynced: nothing is lost when the process is killed or power fails.
    Disk,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        })
    }
}

/// A batch was not appended, or it is not known.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The journal ends elsewhere: `since` are the batches after the one expected, oldest first.
    #[error("others appended {} batches first", since.len())]
    Conflict { since: Vec<Arc<Batch>> },
    /// There is no space.
    #[error("the store has no space left")]
    Full,
    /// The store cannot be reached, and nothing was written.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store failed so that it can promise nothing any more: it is not known whether it wrote,
    /// and it takes nothing more in this process. Refuse actions and keep serving the state.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The store did not say whether it wrote.
    #[error("the outcome is not known: {0}")]
    Unknown(String),
}

/// A journal could not be read, or a snapshot not be kept.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Entries that were asked for are dropped; `first` is the oldest kept.
    #[error("the journal begins at revision {}", first.0)]
    Gone { first: Revision },
    /// The store cannot be reached.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read.
    #[error("what is stored is damaged: {0}")]
    Damaged(String),
}
