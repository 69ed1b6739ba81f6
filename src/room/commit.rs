//! How actions become commits: judge, append, tell.

use std::{
    future::ready,
    mem,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::{Duration, Instant},
};

use actix::prelude::*;
use futures_util::future::Either;
use uuid::Uuid;

use super::{InFlight, Room, answers::Queued, audience::Answers, now};
use crate::{
    entry::{Batch, Position},
    ids::BatchId,
    journal::AppendError,
    limits::MAX_BATCH_ACTIONS,
    model::{Events, Model},
    rejection::Rejection,
    replica::{Asked, Changes, Judged, Number, Retry, Verdict, Views, gap},
    settled::Settled,
};

/// How long a client is asked to wait while the store takes nothing.
const STORE_AWAY: Duration = Duration::from_secs(1);

/// The waits between attempts to learn the outcome of an append.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

impl<M: Model> Room<M> {
    /// Commits what waits after the messages that are here already, so that they share a batch.
    pub(super) fn commit_soon(&mut self, ctx: &mut Context<Self>) {
        if !self.committing && (self.may_commit() || self.may_judge_ahead()) {
            self.committing = true;
            ctx.notify(Commit);
        }
    }

    fn may_commit(&self) -> bool {
        let waiting = !self.queue.is_empty() || !self.imports.is_empty();
        self.in_flight.is_none() && !self.importing && waiting
    }

    /// While one batch is in flight the next is judged only when it is full: till then it gathers.
    fn may_judge_ahead(&self) -> bool {
        let alone = self.ahead.is_none() && self.imports.is_empty();
        self.in_flight.is_some() && alone && self.queue.len() >= self.max_batch()
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        self.committing = false;
        if self.may_judge_ahead() {
            let queued = self.next_batch();
            self.ahead = Some(self.judge(queued));
        } else if self.may_commit() {
            match self.imports.pop_front() {
                Some(waiting) => self.import(waiting, ctx),
                None => {
                    let queued = self.next_batch();
                    self.begin(queued, ctx);
                }
            }
        }
    }

    fn next_batch(&mut self) -> Vec<Queued<M::Action>> {
        let count = self.queue.len().min(self.max_batch());
        self.queue.take(count)
    }

    /// A batch's frames fit the backlog, so that a session that keeps up is not behind by one.
    fn max_batch(&self) -> usize {
        let backlog = self.limits.backlog_bytes.unwrap_or(usize::MAX);
        match M::EVENTS {
            Events::Json => (backlog / self.shown.classic_len()).clamp(1, MAX_BATCH_ACTIONS),
            // What is told is about as long as what is said.
            Events::None => self.queue.fitting(backlog).clamp(1, MAX_BATCH_ACTIONS),
        }
    }

    /// Judges on what is in flight, if anything is.
    fn judge(&mut self, queued: Vec<Queued<M::Action>>) -> InFlight<M> {
        let before = self.in_flight.as_ref();
        let mut judged = self.replica.judge(
            before.map(|in_flight| &in_flight.judged),
            queued.iter().map(|queued| &queued.asked),
            BatchId(Uuid::new_v4()),
            now(),
        );
        self.log_faults(&judged);
        self.hold(&mut judged.verdicts);
        InFlight {
            queued,
            judged,
            retry: FIRST_RETRY,
        }
    }

    pub(super) fn begin(&mut self, queued: Vec<Queued<M::Action>>, ctx: &mut Context<Self>) {
        let judged = self.judge(queued);
        self.go_on(judged, ctx);
    }

    /// Appends what was judged, or answers it at once where there is nothing to append.
    fn go_on(&mut self, judged: InFlight<M>, ctx: &mut Context<Self>) {
        if !judged.judged.batch.is_empty() {
            self.append(judged, ctx);
            return;
        }
        let InFlight { queued, judged, .. } = judged;
        let answers = self.answers(queued, judged.verdicts, &Views::default());
        self.tell(answers, &Changes::default(), ctx);
        self.commit_soon(ctx);
        self.settled(ctx);
    }

    /// Whoever comes too early while the store is away waits as long as those before it.
    fn hold(&self, verdicts: &mut [Verdict]) {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let hold = self.hold_until.map_or(Duration::ZERO, left);
        for verdict in verdicts {
            if let Verdict::Retry(retry) = verdict {
                retry.after = retry.after.max(hold);
            }
        }
    }

    fn append(&mut self, in_flight: InFlight<M>, ctx: &mut Context<Self>) {
        let (journal, name) = (self.journal.clone(), self.name.clone());
        let batch = in_flight.judged.batch.clone();
        self.in_flight = Some(in_flight);
        let mut append = Box::pin(async move { journal.append(&name, batch).await });
        // The store begins now, while the batch before is told.
        let mut task = TaskContext::from_waker(Waker::noop());
        let begun = match append.as_mut().poll(&mut task) {
            Poll::Ready(outcome) => Either::Left(ready(outcome)),
            Poll::Pending => Either::Right(append),
        };
        let appended = begun
            .into_actor(self)
            .map(|outcome, room, ctx| room.appended(outcome, ctx));
        ctx.spawn(appended);
        self.commit_soon(ctx);
    }

    fn appended(&mut self, outcome: Result<Position, AppendError>, ctx: &mut Context<Self>) {
        let Some(in_flight) = self.in_flight.take() else {
            return self.give_up("an append ended that nobody began", ctx);
        };
        match outcome {
            Ok(_) => self.committed(in_flight, ctx),
            Err(AppendError::Conflict { since }) => return self.conflict(in_flight, since, ctx),
            Err(AppendError::Unknown(reason)) => return self.append_again(in_flight, &reason, ctx),
            Err(AppendError::Full) => {
                let reason = "the store has no space left; the action was not taken";
                self.take_none(in_flight, &Rejection::new("store_full", reason), ctx);
            }
            Err(AppendError::Unavailable(reason)) => {
                log::warn!("room {}: {reason}", self.name);
                let reason = "the store is away; the action was not taken, try again";
                self.take_none(in_flight, &Rejection::new("unavailable", reason), ctx);
            }
            Err(AppendError::Failed(reason)) => {
                log::warn!("room {}: {reason}", self.name);
                let reason = "the store failed; whether the action is in shows when it is back";
                self.take_none(in_flight, &Rejection::new("unavailable", reason), ctx);
            }
        }
        self.commit_soon(ctx);
        self.settled(ctx);
    }

    fn committed(&mut self, in_flight: InFlight<M>, ctx: &mut Context<Self>) {
        let InFlight {
            queued, mut judged, ..
        } = in_flight;
        let verdicts = mem::take(&mut judged.verdicts);
        self.unsaved += judged.batch.weight();
        let changes = self.replica.adopt(judged);
        self.moved_on(&changes.views);
        let mut next = self.ahead.take();
        if let Some(full) = next.take_if(|next| !next.judged.batch.is_empty()) {
            self.append(full, ctx);
        }
        let answers = self.answers(queued, verdicts, &changes.views);
        self.tell(answers, &changes, ctx);
        self.snapshot_if_due(ctx);
        if let Some(empty) = next {
            self.go_on(empty, ctx);
        }
    }

    /// What was judged on something that did not come about is judged again.
    fn take_back(&mut self) {
        if let Some(InFlight { queued, .. }) = self.ahead.take() {
            self.queue.put_back(queued);
        }
    }

    /// Others were first: takes what they did, and what of it is ours, and tries again.
    fn conflict(
        &mut self,
        in_flight: InFlight<M>,
        since: Vec<Arc<Batch>>,
        ctx: &mut Context<Self>,
    ) {
        if since.is_empty() {
            return self.give_up("the journal ends elsewhere and does not say where", ctx);
        }
        self.take_back();
        let mut waiting = Some(in_flight);
        for batch in since {
            let ours = waiting.take_if(|waiting| waiting.judged.batch.id == batch.id);
            let weight = batch.weight();
            let (mut ours, changes) = match ours {
                // It is in, and those who asked are known to it.
                Some(mut ours) if ours.judged.batch.after == self.replica.position() => {
                    let verdicts = mem::take(&mut ours.judged.verdicts);
                    let changes = self.replica.adopt(ours.judged);
                    (Some((ours.queued, verdicts)), Ok(changes))
                }
                _ => (None, self.replica.replay(&batch)),
            };
            let changes = match changes {
                Ok(changes) => changes,
                Err(err) => return self.give_up(err, ctx),
            };
            self.unsaved += weight;
            self.moved_on(&changes.views);
            let answers = match ours.take() {
                Some((queued, verdicts)) => self.answers(queued, verdicts, &changes.views),
                None => Answers::default(),
            };
            self.tell(answers, &changes, ctx);
        }
        self.snapshot_if_due(ctx);
        match waiting {
            Some(InFlight { queued, .. }) => self.begin(queued, ctx),
            None => {
                self.commit_soon(ctx);
                self.settled(ctx);
            }
        }
    }

    /// It is not known whether the batch is in: appends it again until it is.
    fn append_again(&mut self, mut in_flight: InFlight<M>, reason: &str, ctx: &mut Context<Self>) {
        log::warn!(
            "room {}: the outcome of an append is not known: {reason}",
            self.name
        );
        let wait = in_flight.retry;
        in_flight.retry = (wait * 2).min(LAST_RETRY);
        self.in_flight = Some(in_flight);
        ctx.run_later(wait, |room, ctx| {
            if let Some(in_flight) = room.in_flight.take() {
                room.append(in_flight, ctx);
            }
        });
    }

    /// The store takes nothing: what would have been settled is not.
    fn take_none(&mut self, in_flight: InFlight<M>, why: &Rejection, ctx: &mut Context<Self>) {
        self.take_back();
        self.hold_until = Some(Instant::now() + STORE_AWAY);
        let InFlight { queued, judged, .. } = in_flight;
        let settled = self.replica.settled();
        let not_taken = |(queued, verdict): (&Queued<M::Action>, Verdict)| match verdict {
            Verdict::Refused(refused) if queued.asked.number.is_none() => Verdict::Refused(refused),
            _ => not_taken(&queued.asked, settled, why),
        };
        let verdicts = queued.iter().zip(judged.verdicts).map(not_taken).collect();
        let answers = self.answers(queued, verdicts, &Views::default());
        self.tell(answers, &Changes::default(), ctx);
    }

    fn log_faults(&self, judged: &Judged<M>) {
        for verdict in &judged.verdicts {
            if let Verdict::Refused(refused) = verdict
                && refused.code == "internal"
            {
                let (name, model) = (&self.name, M::NAME);
                log::error!(
                    "room {name}: the model {model:?} failed on an action, which is refused"
                );
            }
        }
    }
}

/// What is said to an action that the store does not take: those of a client go on from its first that
/// is not settled.
fn not_taken<A>(asked: &Asked<A>, settled: &Settled, why: &Rejection) -> Verdict {
    let after = STORE_AWAY.max(asked.hold);
    let Some(Number { client, n }) = asked.number else {
        return Verdict::Retry(Retry::new(why.clone(), None, after));
    };
    let expected = settled.last(client) + 1;
    if n < expected {
        return Verdict::Repeated;
    }
    let why = match n > expected {
        // Those behind the first that was not taken.
        true => gap(n, expected),
        false => why.clone(),
    };
    Verdict::Retry(Retry::new(why, Some(expected), after))
}

/// Commit what waits; sent by the owner to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct Commit;

impl<M: Model> Handler<Commit> for Room<M> {
    type Result = ();

    fn handle(&mut self, _: Commit, ctx: &mut Self::Context) {
        self.commit(ctx);
    }
}
