//! A room's state machine: actions in, a batch and its verdicts out.
//!
//! [`Replica::judge`] works on a copy, so that there is nothing to roll back: the copy becomes the
//! state by [`Replica::adopt`], when the batch is committed. It never waits and never asks the
//! time. The invariant: the state is what the entries up to the position make, whoever applied
//! them.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    entry::{Batch, Entry, Position, Snapshot},
    ids::{BatchId, ClientId, Millis, Revision},
    model::{By, Model},
    rejection::Rejection,
};

/// One node's copy of a room.
pub struct Replica<M: Model> {
    state: M::State,
    position: Position,
    at: Millis,
}

/// An action and who asks for it.
#[derive(Clone, Debug)]
pub struct Asked<A> {
    pub client: Option<ClientId>,
    pub action: A,
}

/// What a batch would do, before it is committed.
pub struct Judged<M: Model> {
    /// Has no entries where everything was refused: then there is nothing to append.
    pub batch: Arc<Batch>,
    /// One for each action asked, in order: the revision that it makes, or why it is refused.
    pub verdicts: Vec<Result<Revision, Rejection>>,
    /// One for each entry of the batch, in order.
    pub views: Views,
    state: M::State,
}

/// What a state looks like to clients at consecutive revisions, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    json: Vec<u8>,
    ends: Vec<usize>,
}

impl<M: Model> Replica<M> {
    /// A room without entries, whose journal begins at `position`.
    pub fn new(position: Position) -> Self {
        Self {
            state: M::State::default(),
            position,
            at: Millis::default(),
        }
    }

    /// The room as it was when the snapshot was taken.
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
        if snapshot.version != M::VERSION {
            return Err(RestoreError::OtherVersion {
                found: snapshot.version,
                expected: M::VERSION,
            });
        }
        Ok(Self {
            state: serde_json::from_str(snapshot.state.get())?,
            position: snapshot.position,
            at: snapshot.at,
        })
    }

    /// The state at the present position.
    ///
    /// # Errors
    ///
    /// Where the model's state cannot be written as JSON.
    pub fn snapshot(&self) -> serde_json::Result<Snapshot> {
        Ok(Snapshot {
            position: self.position,
            at: self.at,
            model: M::NAME.to_owned(),
            version: M::VERSION,
            state: to_raw_value(&self.state)?,
        })
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn state(&self) -> &M::State {
        &self.state
    }

    /// What clients see at the present position, as JSON.
    ///
    /// # Errors
    ///
    /// `internal` where the model panics or its view cannot be written as JSON.
    pub fn view(&self) -> Result<Vec<u8>, Rejection> {
        let mut views = Views::default();
        guarded(|| views.push(&M::view(&self.state)))?;
        Ok(views.json)
    }

    /// Judges what was asked, in order, on a copy of the state.
    ///
    /// `now` is used unless the last entry is later: a journal's time never falls. An action that
    /// the model refuses, on which it panics, or which would make the state larger than
    /// `max_state_bytes` leaves no trace in those after it.
    pub fn judge<'a>(
        &self,
        asked: impl IntoIterator<Item = &'a Asked<M::Action>>,
        id: BatchId,
        now: Millis,
        max_state_bytes: Option<usize>,
    ) -> Judged<M> {
        let at = self.at.max(now);
        let mut draft = Draft::<M>::new(&self.state, max_state_bytes);
        let mut entries = Vec::new();
        let mut verdicts = Vec::new();
        let mut rev = self.position.rev;
        for Asked { client, action } in asked {
            let by = By {
                client: *client,
                rev: rev.next(),
                at,
            };
            let verdict = draft.apply(action, by).map(|action| {
                rev = by.rev;
                entries.push(Entry {
                    rev,
                    at,
                    client: *client,
                    action,
                });
                rev
            });
            verdicts.push(verdict);
        }
        Judged {
            batch: Arc::new(Batch {
                id,
                after: self.position,
                entries,
            }),
            verdicts,
            views: draft.views,
            state: draft.state,
        }
    }

    /// Makes what was judged the state: its batch is committed.
    ///
    /// # Panics
    ///
    /// If the replica moved on after it judged: the owner judges again then.
    pub fn adopt(&mut self, judged: Judged<M>) -> Views {
        assert_eq!(
            judged.batch.after, self.position,
            "a batch is adopted where it was judged"
        );
        self.position = judged.batch.end();
        self.at = judged.batch.entries.last().map_or(self.at, |last| last.at);
        self.state = judged.state;
        judged.views
    }

    /// Applies a batch that a journal gave: replayed, or another owner's.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] where the batch does not follow, or the model does not take what it took
    /// before. The replica is as it was.
    pub fn replay(&mut self, batch: &Batch) -> Result<Views, ReplayError> {
        if batch.after != self.position {
            return Err(ReplayError::Gap {
                expected: self.position.rev.next(),
            });
        }
        let mut state = self.state.clone();
        let mut views = Views::default();
        for entry in &batch.entries {
            let by = By {
                client: entry.client,
                rev: entry.rev,
                at: entry.at,
            };
            let action: M::Action =
                serde_json::from_str(entry.action.get()).map_err(|err| ReplayError::Refused {
                    rev: entry.rev,
                    reason: Rejection::new("bad_field", err.to_string()),
                })?;
            guarded(|| {
                M::apply(&mut state, &action, &by)?;
                views.push(&M::view(&state))
            })
            .map_err(|reason| ReplayError::Refused {
                rev: entry.rev,
                reason,
            })?;
        }
        self.state = state;
        self.position = batch.end();
        self.at = batch.entries.last().map_or(self.at, |last| last.at);
        Ok(views)
    }
}

/// The copy that a batch is judged on.
///
/// A model may change its state half-way and then refuse. The draft then goes back to the last
/// checkpoint, applies again what was accepted since, and makes a checkpoint there: so each action
/// is applied at most twice, however many are refused.
struct Draft<'a, M: Model> {
    base: &'a M::State,
    checkpoint: Option<M::State>,
    since_checkpoint: Vec<(&'a M::Action, By)>,
    state: M::State,
    views: Views,
    max_state_bytes: Option<usize>,
}

impl<'a, M: Model> Draft<'a, M> {
    fn new(base: &'a M::State, max_state_bytes: Option<usize>) -> Self {
        Self {
            base,
            checkpoint: None,
            since_checkpoint: Vec::new(),
            state: base.clone(),
            views: Views::default(),
            max_state_bytes,
        }
    }

    fn apply(&mut self, action: &'a M::Action, by: By) -> Result<Box<RawValue>, Rejection> {
        let shown = self.views.len();
        let outcome = guarded(|| {
            M::apply(&mut self.state, action, &by)?;
            self.check_size()?;
            self.views.push(&M::view(&self.state))?;
            to_raw_value(action).map_err(|_| Rejection::internal())
        });
        match outcome {
            Ok(_) => self.since_checkpoint.push((action, by)),
            Err(_) => {
                self.views.truncate(shown);
                self.rewind();
            }
        }
        outcome
    }

    fn rewind(&mut self) {
        let mut state = self.checkpoint.take().unwrap_or_else(|| self.base.clone());
        for (action, by) in self.since_checkpoint.drain(..) {
            // A model is deterministic, so what was accepted a moment ago is accepted again.
            let again = M::apply(&mut state, action, &by);
            debug_assert!(again.is_ok(), "a model is deterministic");
        }
        self.checkpoint = Some(state.clone());
        self.state = state;
    }

    fn check_size(&self) -> Result<(), Rejection> {
        let Some(max) = self.max_state_bytes else {
            return Ok(());
        };
        let mut size = Size(0);
        serde_json::to_writer(&mut size, &self.state).map_err(|_| Rejection::internal())?;
        if size.0 <= max {
            return Ok(());
        }
        let message = format!(
            "the room's state may have {max} bytes (--max-state-bytes); nothing was changed"
        );
        Err(Rejection::new("too_large", message))
    }
}

/// Runs a model's code; its panic is `internal`.
fn guarded<T>(run: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Rejection> {
    // Whatever the code had in its hands is a copy that is thrown away after a panic.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Rejection::internal()))
}

/// Counts what would be written.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Views {
    fn push(&mut self, view: &impl Serialize) -> Result<(), Rejection> {
        serde_json::to_writer(&mut self.json, view).map_err(|_| Rejection::internal())?;
        self.ends.push(self.json.len());
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.json.truncate(self.ends.last().copied().unwrap_or(0));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.json[start..end])
    }
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
    #[error("the data is of version {found} of the model; this program reads version {expected}")]
    OtherVersion { found: u32, expected: u32 },
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

#[cfg(test)]
#[path = "replica/tests.rs"]
mod tests;
