//! A room's state as its batches make it, whoever asked for what is in them.

use super::{changes::Changes, draft::guarded};
use crate::{
    entry::{Batch, Entry, Position, Snapshot},
    ids::{Millis, Revision},
    model::{Model, Stored},
    rejection::Rejection,
};

/// A state and where in its room's journal it is.
pub struct History<M: Model> {
    state: M::State,
    position: Position,
    at: Millis,
}

impl<M: Model> History<M> {
    /// Before the first entry of a journal that begins at `position`.
    pub fn new(position: Position) -> Self {
        Self::begin(position, Millis::default(), M::State::default())
    }

    /// From a state on.
    pub fn begin(position: Position, at: Millis, state: M::State) -> Self {
        Self {
            state,
            position,
            at,
        }
    }

    /// As it was when the snapshot was taken.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] where another model or a newer version wrote it, or it cannot be read.
    pub fn restore(snapshot: &Snapshot) -> Result<Self, RestoreError> {
        if snapshot.model != M::NAME {
            return Err(RestoreError::OtherModel {
                found: snapshot.model.clone(),
                expected: M::NAME,
            });
        }
        let state = match snapshot.version {
            found if found > M::VERSION => {
                let expected = M::VERSION;
                return Err(RestoreError::Newer { found, expected });
            }
            found if found < M::VERSION => {
                let stored = Stored::State(serde_json::from_str(snapshot.state.get())?);
                let state = migrate::<M>(stored, found).map_err(RestoreError::Migrate)?;
                serde_json::from_value(state)?
            }
            _ => serde_json::from_str(snapshot.state.get())?,
        };
        Ok(Self::begin(snapshot.position, snapshot.at, state))
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn at(&self) -> Millis {
        self.at
    }

    pub fn state(&self) -> &M::State {
        &self.state
    }

    /// Goes on to the state that a batch makes.
    ///
    /// # Panics
    ///
    /// If the batch was judged elsewhere: its owner judges again then.
    pub fn pass(&mut self, batch: &Batch, state: M::State) {
        assert_eq!(
            batch.after, self.position,
            "a batch is adopted where it was judged"
        );
        self.state = state;
        self.end(batch);
    }

    /// Applies a batch that a journal gave, and says what each entry changed for clients.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] where the batch does not follow, or the model does not take what it took
    /// before. The state is of no use then: it may have taken a part of the batch.
    pub fn replay(&mut self, batch: &Batch) -> Result<Changes, ReplayError> {
        let after = self.position;
        if batch.after != after {
            return Err(ReplayError::Gap {
                expected: after.rev.next(),
            });
        }
        let mut changes = Changes::default();
        for (rev, entry) in (after.rev.0 + 1..).map(Revision).zip(&batch.entries) {
            if entry.rev != rev {
                return Err(ReplayError::Gap { expected: rev });
            }
            let refused = |reason| ReplayError::Refused { rev, reason };
            let by = entry.by(batch.at);
            let action = stored_action::<M>(entry, batch.version).map_err(refused)?;
            guarded(|| {
                M::apply(&mut self.state, &action, &by)?;
                changes.push::<M>(&self.state, &action, &by, None)
            })
            .map_err(refused)?;
        }
        self.end(batch);
        Ok(changes)
    }

    fn end(&mut self, batch: &Batch) {
        self.position = batch.end();
        self.at = batch.at;
    }
}

fn stored_action<M: Model>(entry: &Entry, version: u32) -> Result<M::Action, Rejection> {
    let text = entry.action.get();
    let unreadable = |err: serde_json::Error| Rejection::new("bad_field", err.to_string());
    if version == M::VERSION {
        return serde_json::from_str(text).map_err(unreadable);
    }
    if version > M::VERSION {
        let message = format!(
            "version {version} wrote it; this program reads version {}",
            M::VERSION
        );
        return Err(Rejection::new("newer", message));
    }
    let stored = Stored::Action(serde_json::from_str(text).map_err(unreadable)?);
    let action = migrate::<M>(stored, version)?;
    serde_json::from_value(action).map_err(unreadable)
}

fn migrate<M: Model>(stored: Stored, from: u32) -> Result<serde_json::Value, Rejection> {
    guarded(|| M::migrate(stored, from))
}

/// A snapshot cannot be gone on from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error("the data is of the model {found:?}; this program has {expected:?}")]
    OtherModel {
        found: String,
        expected: &'static str,
    },
    #[error("the data is of version {found} of the model; this program reads up to {expected}")]
    Newer { found: u32, expected: u32 },
    #[error("the data of an older version cannot be brought up: {0}")]
    Migrate(Rejection),
    #[error("the stored state cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// A batch cannot be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    #[error("the batch does not follow: revision {} was expected", expected.0)]
    Gap { expected: Revision },
    #[error("the model does not take revision {} again: {reason}", rev.0)]
    Refused { rev: Revision, reason: Rejection },
}
