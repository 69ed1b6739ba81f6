//! A room's state machine: actions in, a batch and its verdicts out.
//!
//! [`Replica::judge`] works on a copy, so that there is nothing to roll back: the copy becomes the
//! state by [`Replica::adopt`], when the batch is committed. It never waits and never asks the
//! time. The invariant: the state, and who is settled up to which number, are what the batches up to
//! the position make, whoever judged them.

mod asked;
mod changes;
mod draft;
mod history;
mod numbers;
mod ordinals;
mod views;

use std::sync::Arc;

use serde_json::value::to_raw_value;

pub use self::{
    asked::{Asked, Declined, Number, Retry, Verdict, gap},
    changes::Changes,
    draft::check_size,
    history::{History, ReplayError, RestoreError},
    views::Views,
};
use self::{
    draft::{Draft, guarded},
    numbers::{Numbers, Taken},
    ordinals::{Given, Ordinals},
};
use crate::{
    entry::{Acting, Batch, Entry, Position, Refusal, Refused, Snapshot},
    ids::{BatchId, Millis, SessionId},
    limits::Limits,
    model::{By, Model},
    rejection::Rejection,
    settled::Settled,
};

/// One node's copy of a room.
pub struct Replica<M: Model> {
    history: History<M>,
    settled: Settled,
    ordinals: Ordinals,
    limits: Arc<Limits>,
}

/// What a batch would do, before it is committed.
pub struct Judged<M: Model> {
    /// Empty where there is nothing to append.
    pub batch: Arc<Batch>,
    /// One for each action asked, in order.
    pub verdicts: Vec<Verdict>,
    pub changes: Changes,
    state: M::State,
    taken: Taken,
    given: Given,
}

impl<M: Model> Replica<M> {
    /// A room without entries, whose journal begins at `position`.
    pub fn new(position: Position, limits: Arc<Limits>) -> Self {
        Self {
            history: History::new(position),
            settled: Settled::default(),
            ordinals: Ordinals::default(),
            limits,
        }
    }

    /// A room that begins with a state from elsewhere.
    pub fn begin(position: Position, at: Millis, state: M::State, limits: Arc<Limits>) -> Self {
        Self {
            history: History::begin(position, at, state),
            ..Self::new(position, limits)
        }
    }

    /// The room as it was when the snapshot was taken.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] where another model or a newer version wrote it, or it cannot be read.
    pub fn restore(snapshot: &Snapshot, limits: Arc<Limits>) -> Result<Self, RestoreError> {
        Ok(Self {
            history: History::restore(snapshot)?,
            settled: Settled::from_remembered(snapshot.settled.iter().cloned()),
            ordinals: Ordinals::after(snapshot.ordinals),
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
            position: self.position(),
            at: self.history.at(),
            model: M::NAME.to_owned(),
            version: M::VERSION,
            state: to_raw_value(self.state())?,
            settled: self.settled.to_remembered(),
            ordinals: self.ordinals.last(),
        })
    }

    pub fn position(&self) -> Position {
        self.history.position()
    }

    pub fn state(&self) -> &M::State {
        self.history.state()
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
        guarded(|| views.push(&M::view(self.state())))?;
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
        let (state, after, at, taken, mut given) = match before {
            None => {
                let given = self.ordinals.begin();
                (
                    self.state(),
                    self.position(),
                    self.history.at(),
                    None,
                    given,
                )
            }
            Some(Judged {
                batch,
                state,
                taken,
                given,
                ..
            }) => (state, batch.end(), batch.at, Some(taken), given.clone()),
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
            let session = asked.session.filter(|_| M::NUMBERED);
            let ordinal = session.map(|session| self.ordinals.of(session, &given));
            let by = By {
                client,
                name: asked.name.clone(),
                ordinal,
                rev: rev.next(),
                at,
            };
            let acting = Acting::of(&by);
            let outcome = match &asked.action {
                Ok(action) => draft.apply(action, by, asked.session),
                Err(Declined::Refused(why) | Declined::NotTaken(why)) => Err(why.clone()),
            };
            verdicts.push(match (outcome, asked.number) {
                (Ok(action), number) => {
                    if let Some(number) = number {
                        numbers.accept(number);
                    }
                    if let Some((session, ordinal)) = session.zip(ordinal) {
                        given.take(session, ordinal);
                    }
                    rev = rev.next();
                    entries.push(Entry {
                        rev,
                        client,
                        n: number.map(|number| number.n),
                        action,
                        acting,
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
        let (state, changes) = draft.into_parts();
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
            changes,
            state,
            taken: numbers.into_taken(),
            given,
        }
    }

    /// Makes what was judged the state: its batch is committed.
    ///
    /// # Panics
    ///
    /// If the replica moved on after it judged: the owner judges again then.
    pub fn adopt(&mut self, judged: Judged<M>) -> Changes {
        self.history.pass(&judged.batch, judged.state);
        self.settle(&judged.batch, &judged.changes.views);
        self.ordinals.adopt(judged.given);
        judged.changes
    }

    /// A session is gone, and acts no more.
    pub fn forget(&mut self, session: SessionId) {
        self.ordinals.forget(session);
    }

    /// Applies a batch that a journal gave: replayed, or another owner's.
    ///
    /// # Errors
    ///
    /// [`ReplayError`] where the batch does not follow, or the model does not take what it took
    /// before. The replica is of no use then: it may have taken a part of the batch.
    pub fn replay(&mut self, batch: &Batch) -> Result<Changes, ReplayError> {
        let changes = self.history.replay(batch)?;
        self.settle(batch, &changes.views);
        self.ordinals.pass(batch);
        Ok(changes)
    }

    /// What a batch settles is settled: it is in.
    fn settle(&mut self, batch: &Batch, views: &Views) {
        let max = self.limits.max_clients_per_room;
        self.settled.settle(batch, |nth| views.get(nth), max);
    }
}

#[cfg(test)]
#[path = "replica/tests.rs"]
mod tests;
