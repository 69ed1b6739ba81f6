//! How a room is brought back: the newest snapshot, then the entries after it, in pieces.

use std::sync::Arc;

use crate::{
    ids::{Revision, RoomName},
    journal::{Journal, ReadError},
    model::Model,
    rejection::Rejection,
    replica::{ReplayError, Replica, RestoreError},
};

/// How many entries are replayed at a time.
const REPLAY_PIECE: usize = 1000;

/// A room cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("its state cannot be shown: {0}")]
    View(Rejection),
}

/// The room as the journal has it, and the revision of the snapshot that it was begun from.
pub async fn load<M: Model>(
    journal: Arc<dyn Journal>,
    name: RoomName,
) -> Result<(Replica<M>, Revision), LoadError> {
    let opened = journal.open(&name).await?;
    let mut replica = match &opened.snapshot {
        Some(snapshot) => Replica::restore(snapshot)?,
        None => Replica::new(opened.start),
    };
    let snapshot_rev = replica.position().rev;
    loop {
        let after = replica.position().rev;
        let piece = journal.replay(&name, after, REPLAY_PIECE).await?;
        if piece.is_empty() {
            return Ok((replica, snapshot_rev));
        }
        for batch in piece {
            replica.replay(&batch)?;
        }
    }
}
