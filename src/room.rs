//! The owner: an actor around one [`Replica`] that judges, appends and tells, in this order.
//!
//! Nobody is told of anything before it is committed. While one append is in flight the next batch
//! gathers, so that an idle room adds no latency and a busy one shares one commit, one encoding and
//! one delivery per worker among many actions. The owner never waits for a socket.

mod answers;
mod audience;
mod handlers;
mod import;
mod load;
mod messages;
mod shown;

use std::{
    collections::VecDeque,
    future::ready,
    mem,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::prelude::*;
use futures_util::future::Either;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::{
    answers::{Committed, Queued, answer, message},
    audience::{Answers, Audience, Told},
    messages::WaitingImport,
    shown::{Shown, every_state, users_frame},
};
pub use self::{
    audience::{Listener, Origin, Seat},
    load::{LoadError, Loaded, load},
    messages::{
        Act, Gone, Import, ImportError, Join, Leave, Look, Outcome, Rest, Seen, Settle, Submit,
    },
};
use crate::{
    deliver::Answer,
    entry::{Batch, Position},
    ids::{BatchId, Epoch, Millis, OwnerId, Revision, RoomName},
    journal::{AppendError, Journal},
    limits::{Limits, MAX_BATCH_ACTIONS},
    model::Model,
    outbox::States,
    presence::{Presence, Tell},
    protocol::{Dialect, v1},
    rejection::Rejection,
    replica::{Judged, Number, Replica, Retry, Verdict, Views, gap},
};

/// A snapshot is taken after this many entries and refusals, so that replay is short; in a room that
/// remembers more clients, after as many as they are, so that writing them down stays cheap.
const SNAPSHOT_EVERY: u64 = 10_000;

/// In a busy room snapshots are this far apart, so that they cost the disk little beside the batches.
const SNAPSHOT_APART: Duration = Duration::from_millis(100);

/// How long a client is asked to wait while the store takes nothing.
const STORE_AWAY: Duration = Duration::from_secs(1);

/// How long to wait before a worker whose mailbox is full is told again.
const DELIVER_AGAIN: Duration = Duration::from_millis(5);

/// The waits between attempts to learn the outcome of an append.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The actor that owns one room's value and the set of its sessions.
pub struct Room<M: Model> {
    id: OwnerId,
    name: RoomName,
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    replica: Replica<M>,
    shown: Shown,
    /// Entries and refusals since the last snapshot.
    unsaved: u64,
    saving: bool,
    saved_at: Option<Instant>,
    presence: Presence,
    audience: Audience,
    queue: VecDeque<Queued<M::Action>>,
    imports: VecDeque<WaitingImport<M>>,
    /// Until then whoever comes too early is asked to wait.
    hold_until: Option<Instant>,
    in_flight: Option<InFlight<M>>,
    /// Judged on what is in flight, so that it goes out at once when that is committed.
    ahead: Option<InFlight<M>>,
    importing: bool,
    committing: bool,
    settling: Vec<oneshot::Sender<()>>,
    resting: Option<oneshot::Sender<()>>,
}

/// Actions that are in flight, and what they would do.
struct InFlight<M: Model> {
    queued: Vec<Queued<M::Action>>,
    judged: Judged<M>,
    retry: Duration,
}

impl<M: Model> Room<M> {
    pub fn new(
        id: OwnerId,
        name: RoomName,
        journal: Arc<dyn Journal>,
        limits: Arc<Limits>,
    ) -> Self {
        let backlog_bytes = limits.backlog_bytes;
        let nowhere = Position::start(Epoch(Uuid::nil()));
        Self {
            id,
            name,
            journal,
            replica: Replica::new(nowhere, limits.clone()),
            limits,
            shown: Shown::new(nowhere, Vec::new()),
            unsaved: 0,
            saving: false,
            saved_at: None,
            presence: Presence::default(),
            audience: Audience::new(id, backlog_bytes),
            queue: VecDeque::new(),
            imports: VecDeque::new(),
            hold_until: None,
            in_flight: None,
            ahead: None,
            importing: false,
            committing: false,
            settling: Vec::new(),
            resting: None,
        }
    }

    // Starting: snapshot, then the entries after it.

    fn loaded(&mut self, loaded: Result<Loaded<M>, LoadError>, ctx: &mut Context<Self>) {
        let shown = loaded.and_then(|loaded| {
            let view = loaded.replica.view().map_err(LoadError::View)?;
            Ok((loaded, view))
        });
        match shown {
            Ok((loaded, view)) => {
                self.shown = Shown::new(loaded.replica.position(), view);
                self.replica = loaded.replica;
                self.unsaved = loaded.replayed;
            }
            Err(err) => {
                log::error!("room {}: it cannot be opened: {err}", self.name);
                ctx.stop();
            }
        }
    }

    // Judge, append, tell.

    /// Commits what waits after the messages that are here already, so that they share a batch.
    fn commit_soon(&mut self, ctx: &mut Context<Self>) {
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
        self.queue.drain(..count).collect()
    }

    /// A batch's frames fit the backlog, so that a session that keeps up is not behind by one.
    fn max_batch(&self) -> usize {
        let backlog = self.limits.backlog_bytes.unwrap_or(usize::MAX);
        (backlog / self.shown.classic_len()).clamp(1, MAX_BATCH_ACTIONS)
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

    fn begin(&mut self, queued: Vec<Queued<M::Action>>, ctx: &mut Context<Self>) {
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
        self.tell_states(answers, None, ctx);
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
        let views = self.replica.adopt(judged);
        self.moved_on(&views);
        let mut next = self.ahead.take();
        if let Some(full) = next.take_if(|next| !next.judged.batch.is_empty()) {
            self.append(full, ctx);
        }
        let answers = self.answers(queued, verdicts, &views);
        self.tell_states(answers, Some(&views), ctx);
        self.snapshot_if_due(ctx);
        if let Some(empty) = next {
            self.go_on(empty, ctx);
        }
    }

    /// What was judged on something that did not come about is judged again.
    fn take_back(&mut self) {
        if let Some(InFlight { queued, .. }) = self.ahead.take() {
            for queued in queued.into_iter().rev() {
                self.queue.push_front(queued);
            }
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
        let InFlight { queued, judged, .. } = in_flight;
        let ours = judged.batch.id;
        let mut waiting = Some((queued, judged.verdicts));
        for batch in since {
            let views = match self.replica.replay(&batch) {
                Ok(views) => views,
                Err(err) => return self.give_up(err, ctx),
            };
            self.unsaved += batch.weight();
            self.moved_on(&views);
            let answers = match waiting.take_if(|_| batch.id == ours) {
                Some((queued, verdicts)) => self.answers(queued, verdicts, &views),
                None => Answers::default(),
            };
            self.tell_states(answers, Some(&views), ctx);
        }
        self.snapshot_if_due(ctx);
        match waiting {
            Some((queued, _)) => self.begin(queued, ctx),
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
        let not_taken = |(queued, verdict): (&Queued<M::Action>, Verdict)| {
            let Some(Number { client, n }) = queued.asked.number else {
                return match verdict {
                    Verdict::Refused(why) => Verdict::Refused(why),
                    _ => Verdict::Retry(Retry::new(why.clone(), None, STORE_AWAY)),
                };
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
            let after = STORE_AWAY.max(queued.asked.hold);
            Verdict::Retry(Retry::new(why, Some(expected), after))
        };
        let verdicts = queued.iter().zip(judged.verdicts).map(not_taken).collect();
        let answers = self.answers(queued, verdicts, &Views::default());
        self.tell_states(answers, None, ctx);
    }

    /// The room cannot go on by itself; its sessions come back to a new owner.
    fn give_up(&mut self, why: impl std::fmt::Display, ctx: &mut Context<Self>) {
        log::error!("room {}: {why}; its sessions must connect again", self.name);
        ctx.stop();
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

    fn snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        let due = SNAPSHOT_EVERY.max(self.replica.settled().len() as u64);
        let apart = |saved_at: Instant| saved_at.elapsed() >= SNAPSHOT_APART;
        if !self.saving && self.unsaved >= due && self.saved_at.is_none_or(apart) {
            self.saving = true;
            self.saved_at = Some(Instant::now());
            let save = self.save_snapshot().into_actor(self);
            ctx.spawn(save.map(|(), room, _| room.saving = false));
        }
    }

    fn save_snapshot(&mut self) -> impl Future<Output = ()> + use<M> {
        let (journal, name) = (self.journal.clone(), self.name.clone());
        let snapshot = self.replica.snapshot();
        self.unsaved = 0;
        async move {
            let saved = match snapshot {
                Ok(snapshot) => journal
                    .save(&name, snapshot)
                    .await
                    .map_err(|err| err.to_string()),
                Err(err) => Err(err.to_string()),
            };
            if let Err(err) = saved {
                log::error!("room {name}: a snapshot was not kept: {err}");
            }
        }
    }

    // Telling.

    /// The replica took a batch, which made these views.
    fn moved_on(&mut self, views: &Views) {
        let view = match views.len() {
            0 => self.shown.view().to_vec(),
            len => views.get(len - 1).to_vec(),
        };
        self.shown = Shown::new(self.replica.position(), view);
    }

    /// Answers by verdicts; `views` is what the batch made, which is committed.
    fn answers(
        &mut self,
        queued: Vec<Queued<M::Action>>,
        verdicts: Vec<Verdict>,
        views: &Views,
    ) -> Answers {
        let committed = Committed {
            settled: self.replica.settled(),
            shown: &self.shown,
            views,
            before: Revision(self.shown.position().rev.0 - views.len() as u64),
        };
        answer(self.id, &mut self.audience, &committed, queued, verdicts)
    }

    /// Tells single sessions their answers, and all of them what they are shown now: each view to
    /// those who take every one; `None`: nothing new.
    fn tell_states(&mut self, answers: Answers, views: Option<&Views>, ctx: &mut Context<Self>) {
        let states = views.filter(|views| !views.is_empty()).map(|views| States {
            every: self
                .audience
                .speaks(Dialect::Classic)
                .then(|| every_state(views.iter())),
            newest: self.audience.speaks(Dialect::V1).then(|| self.shown.v1()),
        });
        let told = self.audience.tell(answers, states);
        self.told(told, ctx);
    }

    fn tell_users(&mut self, count: usize, ctx: &mut Context<Self>) {
        let told = self.audience.tell_users(users_frame(count));
        self.told(told, ctx);
    }

    /// Sees to the workers that could not be told.
    fn told(&mut self, told: Told, ctx: &mut Context<Self>) {
        for worker in told.busy {
            ctx.run_later(DELIVER_AGAIN, move |room, ctx| {
                let told = room.audience.flush(worker);
                room.told(told, ctx);
            });
        }
        if told.died {
            log::warn!(
                "room {}: a worker ended, and its sessions with it",
                self.name
            );
            self.presence_changed(ctx);
        }
    }

    /// What a session of `tallyroom.v1` is told first.
    fn welcome(&self, seat: Seat) -> String {
        let Seat::V1 {
            client,
            permissions,
        } = seat
        else {
            return String::new();
        };
        let Position { epoch, rev, .. } = self.shown.position();
        let settled = self.replica.settled();
        v1::welcome(&v1::Welcome {
            room: self.name.as_str(),
            client,
            epoch,
            rev,
            n: settled.last(client),
            refused: settled.refused(client),
            durability: &self.journal.durability().to_string(),
            permissions: permissions.names(),
            beat: self.limits.heartbeat,
        })
    }

    /// The same when the epoch is another one: nothing of any client is settled.
    fn welcome_again(&mut self, from: Origin, seat: Seat) -> Answer {
        if let Some(member) = self.audience.member(from.session) {
            member.acked = 0;
        }
        message(from, &self.welcome(seat), Some(1))
    }

    // Who is here.

    fn presence_changed(&mut self, ctx: &mut Context<Self>) {
        match self.presence.change(self.audience.len(), Instant::now()) {
            Tell::Now => self.tell_users(self.presence.count(), ctx),
            Tell::After(wait) => {
                ctx.run_later(wait, |room, ctx| {
                    if let Some(count) = room.presence.due(Instant::now()) {
                        room.tell_users(count, ctx);
                    }
                });
            }
            Tell::Not => {}
        }
    }

    /// Answers those who wait until nothing is underway.
    fn settled(&mut self, ctx: &mut Context<Self>) {
        let in_flight = self.in_flight.is_some() || self.importing;
        if in_flight || !self.queue.is_empty() || !self.imports.is_empty() {
            return;
        }
        for settled in self.settling.drain(..) {
            let _ = settled.send(());
        }
        let Some(rested) = self.resting.take() else {
            return;
        };
        // Of many clients only a snapshot that saves much replaying is worth writing them down.
        let worth = self.replica.settled().len() as u64 / 16;
        let unsaved = self.unsaved > 0 && self.unsaved >= worth;
        let save = unsaved.then(|| self.save_snapshot());
        let save = async move {
            if let Some(save) = save {
                save.await;
            }
        };
        ctx.wait(save.into_actor(self).map(|(), _, ctx| {
            ctx.stop();
            let _ = rested.send(());
        }));
    }
}

/// Commit what waits; sent by the owner to itself.
#[derive(Message)]
#[rtype(result = "()")]
struct Commit;

fn now() -> Millis {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

impl<M: Model> Actor for Room<M> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Messages wait in the mailbox until the room is there.
        let load = load(self.journal.clone(), self.name.clone(), self.limits.clone());
        let load = load.into_actor(self);
        ctx.wait(load.map(|loaded, room, ctx| room.loaded(loaded, ctx)));
    }
}

impl<M: Model> Drop for Room<M> {
    /// However the owner ends, its sessions are told that nothing more comes from it.
    fn drop(&mut self) {
        self.audience.tell_gone();
    }
}
