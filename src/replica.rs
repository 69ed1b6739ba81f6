//! A room's state machine: actions in, a batch and its verdicts out.
//!
//! [`Replica::judge`] works on a copy, so that there is nothing to roll back: the copy becomes the
//! state by [`Replica::adopt`], when the batch is committed. It never waits and never asks the
//! time. The invariant: the state, and who is settled up to which number, are what the batches up to
//! the position make, whoever judged them.

mod asked;
mod draft;
mod numbers;
mod views;

use std::sync::Arc;

use serde_json::value::to_raw_value;

pub use self::{
    asked::{Asked, Declined, Number, Retry, Verdict, gap},
    draft::check_size,
    views::Views,
};
use self::{
    draft::{Draft, guarded},
    numbers::{Numbers, Taken},
};
use crate::{
    entry::{Batch, Entry, Position, Refusal, Refused, Snapshot},
    ids::{BatchId, Millis, Revision},
    limits::Limits,
    model::{By, Model, Stored},
    rejection::Rejection,
    settled::Settled,
};

/// One node's copy of a room.
pub struct Replica<M: Model> {
    state: M::State,
    position: Position,
    at: Millis,
    settled: Settled,
    limits: Arc<Limits>,
}

/// What a batch would do, before it is committed.
pub struct Judged<M: Model> {
    /// Empty where there is nothing to append.
    pub batch: Arc<Batch>,
    /// One for each action asked, in order.
    pub verdicts: Vec<Verdict>,
    /// One for each entry of the batch, in order.
    pub views: Views,
    state: M::State,
    taken: Taken,
}

impl<M: Model> Replica<M> {
    /// A room without entries, whose journal begins at `position`.
    pub fn new(position: Position, limits: Arc<Limits>) -> Self {
        Self {
            state: M::State::default(),
            position,
            at: Millis::default(),
            settled: Settled::default(),
            limits,
        }
    }

    /// A room that begins with a state from elsewhere.
    pub fn begin(position: Position, at: Millis, state: M::State, limits: Arc<Limits>) -> Self {
        Self {
            state,
            at,
            ..Self::new(position, limits)
        }
    }

    /// The room as it was when the snapshot was taken.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] where another model or a newer version wrote it, or it cannot be read.
    pub fn restore(snapshot: &Snapshot, limits: Arc<Limits>) -> Result<Self, RestoreError> {
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
        Ok(Self {
            state,
            position: snapshot.position,
            at: snapshot.at,
            settled: Settled::from_remembered(snapshot.settled.iter().cloned()),
            limits,
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
            settled: self.settled.to_remembered(),
        })
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn state(&self) -> &M::State {
        &self.state
    }

    pub fn settled(&self) -> &Settled {
        &self.settled
    }

    /// What clients see at the present position, as JSON.
    ///
    /// # Errors
    ///
    /// `internal` where the model panics or its view cannot be written as JSON.
    pub fn view(&self) -> Result<Vec<u8>, Rejection> {
        let mut views = Views::default();
        guarded(|| views.push(&M::view(&self.state)))?;
        Ok(views.into_json())
    }

    /// Judges what was asked, in order, on a copy of the state: that which `before` makes, where it is
    /// given, whose batch is then to be adopted first.
    ///
    /// `now` is used unless the last batch is later: a journal's time never falls. An action that
    /// the model refuses, on which it panics, or which would make the state larger than
    /// [`Limits::max_state_bytes`] leaves no trace in those after it. A number is taken only if it
    /// is its client's next.
    pub fn judge<'a>(
        &self,
        before: Option<&Judged<M>>,
        asked: impl IntoIterator<Item = &'a Asked<M::Action>>,
        id: BatchId,
        now: Millis,
    ) -> Judged<M> {
        let (state, after, at, taken) = match before {
            None => (&self.state, self.position, self.at, None),
            Some(Judged {
                batch,
                state,
                taken,
                ..
            }) => (state, batch.end(), batch.at, Some(taken)),
        };
        let at = at.max(now);
        let mut draft = Draft::<M>::new(state, self.limits.max_state_bytes);
        let max = self.limits.max_clients_per_room;
        let mut numbers = Numbers::new(&self.settled, taken, at, max);
        let mut entries = Vec::new();
        let mut refusals = Vec::new();
        let mut verdicts = Vec::new();
        let mut rev = after.rev;
        for asked in asked {
            if let Some(verdict) = numbers.precludes(asked) {
                verdicts.push(verdict);
                continue;
            }
            let client = asked.number.map(|number| number.client);
            let by = By {
                client,
                rev: rev.next(),
                at,
            };
            let outcome = match &asked.action {
                Ok(action) => draft.apply(action, by),
                Err(Declined::Refused(why) | Declined::NotTaken(why)) => Err(why.clone()),
            };
            verdicts.push(match (outcome, asked.number) {
                (Ok(action), number) => {
                    if let Some(number) = number {
                        numbers.accept(number);
                    }
                    rev = by.rev;
                    entries.push(Entry {
                        rev,
                        client,
                        n: number.map(|number| number.n),
                        action,
                    });
                    Verdict::Accepted(rev)
                }
                (Err(refused), None) => Verdict::Refused(refused.shortened()),
                (Err(refused), Some(number)) => {
                    let why = refused.shortened();
                    let refused = Refused {
                        n: number.n,
                        code: why.code.to_string(),
                        message: why.message.clone(),
                    };
                    match numbers.refuse(number, &refused) {
                        Ok(()) => {
                            let client = number.client;
                            refusals.push(Refusal { client, refused });
                            Verdict::Refused(why)
                        }
                        Err(not_taken) => not_taken,
                    }
                }
            });
        }
        let (state, views) = draft.into_parts();
        Judged {
            batch: Arc::new(Batch {
                id,
                after,
                at,
                version: M::VERSION,
                entries,
                refusals,
            }),
            verdicts,
            views,
            state,
            taken: numbers.into_taken(),
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
        self.state = judged.state;
        self.passed(&judged.batch, &judged.views);
        judged.views
    }

    /// Applies a batch that a journal gave: replayed, or another owner's.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] where the batch does not follow, or the model does not take what it took
    /// before. The replica is of no use then: it may have taken a part of the batch.
    pub fn replay(&mut self, batch: &Batch) -> Result<Views, ReplayError> {
        let after = self.position;
        if batch.after != after {
            return Err(ReplayError::Gap {
                expected: after.rev.next(),
            });
        }
        let mut views = Views::default();
        for (rev, entry) in (after.rev.0 + 1..).map(Revision).zip(&batch.entries) {
            if entry.rev != rev {
                return Err(ReplayError::Gap { expected: rev });
            }
            let refused = |reason| ReplayError::Refused { rev, reason };
            let by = By {
                client: entry.client,
                rev,
                at: batch.at,
            };
            let action = stored_action::<M>(entry, batch.version).map_err(refused)?;
            guarded(|| {
                M::apply(&mut self.state, &action, &by)?;
                views.push(&M::view(&self.state))
            })
            .map_err(refused)?;
        }
        self.passed(batch, &views);
        Ok(views)
    }

    /// The batch is in: what it settles is settled, and the journal ends behind it.
    fn passed(&mut self, batch: &Batch, views: &Views) {
        let max = self.limits.max_clients_per_room;
        self.settled.settle(batch, |nth| views.get(nth), max);
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

#[cfg(test)]
#[path = "replica/tests.rs"]
mod tests;
