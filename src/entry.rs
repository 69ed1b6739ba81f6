//! What a journal keeps: entries, in batches, each of which names the one before it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{BatchId, ClientId, Epoch, Millis, Revision};

/// An accepted action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub rev: Revision,
    /// Never earlier than that of the entry before.
    pub at: Millis,
    /// `None` where the client did not say who it is.
    pub client: Option<ClientId>,
    /// The model's action as JSON.
    pub action: Box<RawValue>,
}

/// What one commit appends: all of it or nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    pub id: BatchId,
    /// Where the journal ended when this was judged.
    pub after: Position,
    /// Revisions go on from `after.rev` without gaps.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Where a journal ends whose last batch this is.
    pub fn end(&self) -> Position {
        let rev = self.entries.last().map_or(self.after.rev, |last| last.rev);
        Position {
            epoch: self.after.epoch,
            rev,
            batch: Some(self.id),
        }
    }
}

/// Where a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub rev: Revision,
    /// The last batch; `None` before the first.
    pub batch: Option<BatchId>,
}

impl Position {
    /// The beginning of an epoch, before its first batch.
    pub fn start(epoch: Epoch) -> Self {
        Self {
            epoch,
            rev: Revision(0),
            batch: None,
        }
    }
}

/// A room's state at a position, so that the journal before it can be dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub position: Position,
    /// The time of the last entry in it.
    pub at: Millis,
    /// [`Model::NAME`](crate::model::Model::NAME) and `VERSION` of what wrote it.
    pub model: String,
    pub version: u32,
    /// The model's state as JSON.
    pub state: Box<RawValue>,
}
