//! What a journal keeps: entries and refusals, in batches, each of which names the one before it.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ids::{BatchId, ClientId, Epoch, Millis, Name, Revision},
    model::By,
    rejection::Rejection,
};

/// An accepted action.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    pub rev: Revision,
    /// `None` where the client did not say who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The client's number of the action; there is one where there is a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// The model's action as JSON.
    pub action: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acting: Option<Box<Acting>>,
}

/// What is known of the session that an action came by, where a model's sessions have names or numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acting {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u64>,
}

impl Acting {
    /// `None` where nothing is known.
    pub fn of(by: &By) -> Option<Box<Self>> {
        let By { name, ordinal, .. } = by;
        let known = name.is_some() || ordinal.is_some();
        known.then(|| {
            Box::new(Self {
                name: name.clone(),
                ordinal: *ordinal,
            })
        })
    }
}

impl Entry {
    /// Who made it, in a batch of that time.
    pub fn by(&self, at: Millis) -> By {
        let acting = self.acting.as_deref();
        By {
            client: self.client,
            name: acting.and_then(|acting| acting.name.clone()),
            ordinal: self.ordinal(),
            rev: self.rev,
            at,
        }
    }

    pub fn ordinal(&self) -> Option<u64> {
        self.acting.as_ref()?.ordinal
    }
}

/// The final no to a numbered action: it changes nothing, takes no revision and settles its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub client: ClientId,
    #[serde(flatten)]
    pub refused: Refused,
}

/// What one commit appends: all of it or nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    pub id: BatchId,
    /// Where the journal ended when this was judged.
    pub after: Position,
    /// When it was judged; never earlier than the batch before.
    pub at: Millis,
    /// [`Model::VERSION`](crate::model::Model::VERSION) of the actions in it.
    pub version: u32,
    /// Revisions go on from `after.rev` without gaps.
    pub entries: Vec<Entry>,
    pub refusals: Vec<Refusal>,
}

impl Batch {
    /// Where a journal ends whose last batch this is.
    pub fn end(&self) -> Position {
        let (rev, part) = match self.entries.last() {
            Some(last) => (last.rev, 0),
            None => (self.after.rev, self.after.part + 1),
        };
        Position {
            epoch: self.after.epoch,
            rev,
            part,
            batch: Some(self.id),
        }
    }

    /// How many actions it settles: what replaying it costs.
    pub fn weight(&self) -> u64 {
        (self.entries.len() + self.refusals.len()) as u64
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.refusals.is_empty()
    }
}

/// Where a journal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub rev: Revision,
    /// How many batches with refusals alone came since that revision.
    #[serde(default)]
    pub part: u64,
    /// The last batch; `None` before the first.
    pub batch: Option<BatchId>,
}

impl Position {
    /// The beginning of an epoch, before its first batch.
    pub fn start(epoch: Epoch) -> Self {
        Self {
            epoch,
            rev: Revision(0),
            part: 0,
            batch: None,
        }
    }

    /// How far it is behind an earlier one: in entries, or in batches of refusals where there are none.
    pub fn beyond(&self, earlier: &Self) -> u64 {
        match self.rev.0 - earlier.rev.0 {
            0 => self.part - earlier.part,
            entries => entries,
        }
    }

    /// What orders the batches of an epoch.
    pub fn order(&self) -> (Revision, u64) {
        (self.rev, self.part)
    }
}

/// A room's state at a position, so that the journal before it can be dropped.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub position: Position,
    /// The time of the last batch in it.
    pub at: Millis,
    /// [`Model::NAME`](crate::model::Model::NAME) and `VERSION` of what wrote it.
    pub model: String,
    pub version: u32,
    /// The model's state as JSON.
    pub state: Box<RawValue>,
    /// Whose numbers are settled up to where, the longest settled first.
    #[serde(default)]
    pub settled: Vec<Remembered>,
    /// How many sessions were numbered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ordinals: u64,
}

/// What a room remembers of one client, so that nothing of it is applied twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    pub client: ClientId,
    /// The last of its numbers that is settled.
    pub n: u64,
    /// When that was.
    pub at: Millis,
    /// The refusals among its last numbers, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// What `n` made, where it was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

/// A number that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub n: u64,
    pub code: String,
    pub message: String,
}

impl Refused {
    /// How much it takes to remember it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.code.len() + self.message.len()
    }

    pub fn to_rejection(&self) -> Rejection {
        Rejection::new(self.code.clone(), self.message.clone())
    }
}

/// What an accepted action made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub rev: Revision,
    /// The value at that revision, as JSON text; `None` where it is too long to be remembered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<str>>,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
