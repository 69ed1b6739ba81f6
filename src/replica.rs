//! A room's state machine: actions in, a batch and its verdicts out.
//!
//! [`Replica::judge`] works on a copy, so that there is nothing to roll back: the copy becomes the
//! state by [`Replica::adopt`], when the batch is committed. It never waits and never asks the
//! time. The invariant: the state, and who is settled up to which number, are what the batches up to
//! the position make, whoever judged them.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    entry::{Batch, Entry, Position, Refusal, Refused, Snapshot},
    ids::{BatchId, ClientId, Millis, Revision},
    limits::{Limits, MAX_BATCH_ACTIONS, WINDOW},
    model::{By, Model, Stored},
    rejection::Rejection,
    settled::Settled,
};

/// How long a client waits at least where the room remembers as many clients as it may.
const CROWDED: Duration = Duration::from_secs(10);

/// One node's copy of a room.
pub struct Replica<M: Model> {
    state: M::State,
    position: Position,
    at: Millis,
    settled: Settled,
    limits: Arc<Limits>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct Asked<A> {
    /// Who asks, and the number; `None` where the client did not say: then it is not remembered.
    pub number: Option<Number>,
    pub action: Result<A, Declined>,
    /// How long the client was told to wait already: a retry says at least as much.
    pub hold: Duration,
}

/// A client's number of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    pub client: ClientId,
    /// From 1 to [`MAX_NUMBER`](crate::ids::MAX_NUMBER).
    pub n: u64,
}

/// Why an action is not even judged by the model.
#[derive(Clone, Debug)]
pub enum Declined {
    /// It cannot be understood: its number is settled by a refusal.
    Refused(Rejection),
    /// It is over a limit: its number is not taken.
    NotTaken(Rejection),
}

/// What becomes of an action, when its batch is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It made this revision.
    Accepted(Revision),
    /// It changes nothing, for good.
    Refused(Rejection),
    /// Its number was settled before: [`Settled::first`] has what was said then.
    Repeated,
    /// It was not taken, and nothing is settled.
    Retry(Retry),
}

/// Why an action was not taken, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub why: Rejection,
    /// The number that the room takes next, where the action had one.
    pub expected: Option<u64>,
    /// How long to wait at least.
    pub after: Duration,
}

impl Retry {
    pub fn new(why: Rejection, expected: Option<u64>, after: Duration) -> Self {
        Self {
            why,
            expected,
            after,
        }
    }
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

/// The numbers that a batch takes.
#[derive(Debug, Default)]
struct Taken {
    /// The last of each client.
    last: HashMap<ClientId, u64>,
    /// How many places they need among those that are remembered.
    places: usize,
}

/// What a state looks like to clients at consecutive revisions, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    json: Vec<u8>,
    ends: Vec<usize>,
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
        Ok(views.json)
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
        let mut numbers = Numbers {
            settled: &self.settled,
            before: taken,
            taken: Taken::default(),
            at,
            max: self.limits.max_clients_per_room,
            spare: None,
        };
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
            verdicts.push(match outcome {
                Ok(action) => {
                    rev = by.rev;
                    let n = numbers.settle(asked.number, false);
                    entries.push(Entry {
                        rev,
                        client,
                        n,
                        action,
                    });
                    Verdict::Accepted(rev)
                }
                Err(refused) => {
                    let refused = refused.shortened();
                    if let Some(Number { client, n }) = asked.number {
                        numbers.settle(asked.number, true);
                        let (code, message) = (refused.code.to_string(), refused.message.clone());
                        let refused = Refused { n, code, message };
                        refusals.push(Refusal { client, refused });
                    }
                    Verdict::Refused(refused)
                }
            });
        }
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
            views: draft.views,
            state: draft.state,
            taken: numbers.taken,
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

/// Which numbers a batch takes: each client's next, those before it in the batch included.
struct Numbers<'a> {
    settled: &'a Settled,
    /// Those of the batch before, which is in flight.
    before: Option<&'a Taken>,
    taken: Taken,
    at: Millis,
    max: Option<usize>,
    /// How many more clients and refusals may be remembered; counted when it is first asked for.
    spare: Option<usize>,
}

impl Numbers<'_> {
    /// What is said to an action without judging it.
    fn precludes<A>(&mut self, asked: &Asked<A>) -> Option<Verdict> {
        let retry = |why: Rejection, expected, after: Duration| {
            let after = after.max(asked.hold);
            Some(Verdict::Retry(Retry::new(why, expected, after)))
        };
        let Some(Number { client, n }) = asked.number else {
            return match &asked.action {
                Err(Declined::NotTaken(why)) => retry(why.clone(), None, Duration::ZERO),
                _ => None,
            };
        };
        let last = self.last(client);
        let expected = Some(last + 1);
        if n <= last {
            return Some(Verdict::Repeated);
        }
        if n > last + 1 {
            return retry(gap(n, last + 1), expected, Duration::ZERO);
        }
        if let Err(Declined::NotTaken(why)) = &asked.action {
            return retry(why.clone(), expected, Duration::ZERO);
        }
        if n > self.settled.last(client) + WINDOW {
            return retry(beyond_window(), expected, Duration::ZERO);
        }
        if self.spare() < 2 {
            return retry(crowded(), expected, CROWDED);
        }
        None
    }

    fn last(&self, client: ClientId) -> u64 {
        let taken = self.taken.last.get(&client);
        let before = || self.before.and_then(|before| before.last.get(&client));
        let last = taken.or_else(before).copied();
        last.unwrap_or_else(|| self.settled.last(client))
    }

    /// Takes a number, if there is one.
    fn settle(&mut self, number: Option<Number>, refused: bool) -> Option<u64> {
        let Number { client, n } = number?;
        let new = self.last(client) == 0;
        self.taken.last.insert(client, n);
        self.taken.places += usize::from(new) + usize::from(refused);
        Some(n)
    }

    /// How many places are left.
    fn spare(&mut self) -> usize {
        /// More than two batches can take: a client and a refusal for each of their actions.
        const WANTED: usize = 4 * MAX_BATCH_ACTIONS + 2;
        let spare = || self.settled.spare(self.at, self.max, WANTED);
        let spare = *self.spare.get_or_insert_with(spare);
        let before = self.before.map_or(0, |before| before.places);
        spare.saturating_sub(before + self.taken.places)
    }
}

/// What is said to a number that is not the expected one.
pub fn gap(n: u64, expected: u64) -> Rejection {
    let message = format!("number {n} came where {expected} was expected; send from there");
    Rejection::new("gap", message)
}

fn beyond_window() -> Rejection {
    let message =
        format!("{WINDOW} numbers are unsettled, as many as may be; wait until some are settled");
    Rejection::new("overloaded", message)
}

fn crowded() -> Rejection {
    let message =
        "the room remembers as many clients as it may (--max-clients-per-room); try again later";
    Rejection::new("overloaded", message)
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
            check_size(&self.state, self.max_state_bytes)?;
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
}

/// Whether a state may be so large.
///
/// # Errors
///
/// `too_large`
pub fn check_size(state: &impl Serialize, max: Option<usize>) -> Result<(), Rejection> {
    let Some(max) = max else {
        return Ok(());
    };
    let mut size = Size(0);
    serde_json::to_writer(&mut size, state).map_err(|_| Rejection::internal())?;
    if size.0 <= max {
        return Ok(());
    }
    let message =
        format!("the room's state may have {max} bytes (--max-state-bytes); nothing was changed");
    Err(Rejection::new("too_large", message))
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
    /// One alone, which is JSON.
    pub fn one(json: Vec<u8>) -> Self {
        let ends = vec![json.len()];
        Self { json, ends }
    }

    fn push(&mut self, view: &impl Serialize) -> Result<(), Rejection> {
        serde_json::to_writer(&mut self.json, view).map_err(|_| Rejection::internal())?;
        self.ends.push(self.json.len());
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.json.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// The one after the entry of that place in the batch.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn get(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.json[start..self.ends[nth]]
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
