//! How a room is brought back: the newest snapshot, then the entries after it, in pieces.

use std::sync::Arc;

use crate::{
    ids::RoomName,
    journal::{Journal, ReadError},
    limits::Limits,
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

/// A room as the journal has it.
pub struct Loaded<M: Model> {
    pub replica: Replica<M>,
    /// How many entries and refusals came after the snapshot that it was begun from.
    pub replayed: u64,
}

/// Brings a room back.
pub async fn load<M: Model>(
    journal: Arc<dyn Journal>,
    name: RoomName,
    limits: Arc<Limits>,
) -> Result<Loaded<M>, LoadError> {
    let opened = journal.open(&name).await?;
    let mut replica = match &opened.snapshot {
        Some(snapshot) => Replica::restore(snapshot, limits)?,
        None => Replica::new(opened.start, limits),
    };
    let mut replayed = 0;
    loop {
        let piece = journal
            .replay(&name, replica.position(), REPLAY_PIECE)
            .await?;
        if piece.is_empty() {
            return Ok(Loaded { replica, replayed });
        }
        for batch in piece {
            replica.replay(&batch)?;
            replayed += batch.weight();
        }
    }
}
