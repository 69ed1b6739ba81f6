//! The owner: an actor around one [`Replica`] that judges, appends and tells, in this order.
//!
//! Nobody is told of anything before it is committed. While one append is in flight the next batch
//! gathers, so that an idle room adds no latency and a busy one shares one commit, one encoding and
//! one delivery per worker among many actions. The owner never waits for a socket.

mod audience;
mod frames;
mod load;
mod messages;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::prelude::*;
use actix_web::web::Bytes;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::{
    audience::{Answers, Audience, Told},
    frames::{state_frames, users_frame},
    load::{LoadError, load},
};
pub use self::{
    audience::{Listener, Origin},
    messages::{Join, Leave, Rest, Settle, Submit},
};
use crate::{
    deliver::{Answer, Entered, Underway},
    entry::{Batch, Position},
    framing,
    ids::{BatchId, Epoch, Millis, OwnerId, Revision, RoomName},
    journal::{AppendError, Journal},
    limits::{Limits, MAX_BATCH_ACTIONS},
    model::Model,
    presence::{Presence, Tell},
    protocol::classic,
    rejection::Rejection,
    replica::{Asked, Judged, Replica, Views},
};

/// A snapshot is taken after this many entries, so that replay is short.
const SNAPSHOT_EVERY: u64 = 10_000;

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
    /// What everybody sees now, as it goes on the wire.
    state_frame: Bytes,
    snapshot_rev: Revision,
    saving: bool,
    presence: Presence,
    audience: Audience,
    queue: VecDeque<Queued<M::Action>>,
    in_flight: bool,
    committing: bool,
    settling: Vec<oneshot::Sender<()>>,
    resting: Option<oneshot::Sender<()>>,
}

/// An action on its way, and whom to answer.
struct Queued<A> {
    from: Origin,
    bytes: usize,
    asked: Asked<A>,
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
            limits,
            replica: Replica::new(nowhere),
            state_frame: Bytes::new(),
            snapshot_rev: Revision(0),
            saving: false,
            presence: Presence::default(),
            audience: Audience::new(id, backlog_bytes),
            queue: VecDeque::new(),
            in_flight: false,
            committing: false,
            settling: Vec::new(),
            resting: None,
        }
    }

    // Starting: snapshot, then the entries after it.

    fn loaded(
        &mut self,
        loaded: Result<(Replica<M>, Revision), LoadError>,
        ctx: &mut Context<Self>,
    ) {
        let shown = loaded.and_then(|(replica, snapshot_rev)| {
            let view = replica.view().map_err(LoadError::View)?;
            Ok((replica, snapshot_rev, view))
        });
        match shown {
            Ok((replica, snapshot_rev, view)) => {
                self.replica = replica;
                self.snapshot_rev = snapshot_rev;
                self.state_frame = state_frames(std::iter::once(&view[..])).newest;
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
        if !self.in_flight && !self.committing && !self.queue.is_empty() {
            self.committing = true;
            ctx.notify(Commit);
        }
    }

    fn commit(&mut self, ctx: &mut Context<Self>) {
        self.committing = false;
        if self.in_flight || self.queue.is_empty() {
            return;
        }
        let count = self.queue.len().min(self.max_batch());
        let queued: Vec<_> = self.queue.drain(..count).collect();
        self.judge(queued, ctx);
    }

    /// A batch's frames fit the backlog, so that a session that keeps up is not behind by one.
    fn max_batch(&self) -> usize {
        let backlog = self.limits.backlog_bytes.unwrap_or(usize::MAX);
        (backlog / self.state_frame.len().max(1)).clamp(1, MAX_BATCH_ACTIONS)
    }

    fn judge(&mut self, queued: Vec<Queued<M::Action>>, ctx: &mut Context<Self>) {
        let judged = self.replica.judge(
            queued.iter().map(|queued| &queued.asked),
            BatchId(Uuid::new_v4()),
            now(),
            self.limits.max_state_bytes,
        );
        self.log_faults(&judged);
        if judged.batch.entries.is_empty() {
            self.tell(self.answers(&queued, &judged.verdicts), None, ctx);
            self.commit_soon(ctx);
            self.settled(ctx);
            return;
        }
        self.in_flight = true;
        let in_flight = InFlight {
            queued,
            judged,
            retry: FIRST_RETRY,
        };
        self.append(in_flight, ctx);
    }

    fn append(&mut self, in_flight: InFlight<M>, ctx: &mut Context<Self>) {
        let (journal, name) = (self.journal.clone(), self.name.clone());
        let batch = in_flight.judged.batch.clone();
        let append = async move { journal.append(&name, batch).await };
        let appended = append
            .into_actor(self)
            .map(move |outcome, room, ctx| room.appended(in_flight, outcome, ctx));
        ctx.spawn(appended);
    }

    fn appended(
        &mut self,
        in_flight: InFlight<M>,
        outcome: Result<Position, AppendError>,
        ctx: &mut Context<Self>,
    ) {
        match outcome {
            Ok(_) => self.committed(in_flight, ctx),
            Err(AppendError::Conflict { since }) => return self.conflict(in_flight, since, ctx),
            Err(AppendError::Unknown(reason)) => return self.append_again(in_flight, &reason, ctx),
            Err(AppendError::Full) => {
                let reason = "the store has no space left; the action was not taken";
                self.refuse(&in_flight, &Rejection::new("store_full", reason), ctx);
            }
            Err(AppendError::Unavailable(reason) | AppendError::Failed(reason)) => {
                log::warn!("room {}: {reason}", self.name);
                let reason = "the store is away; the action was not taken, try again";
                self.refuse(&in_flight, &Rejection::new("unavailable", reason), ctx);
            }
        }
        self.in_flight = false;
        self.commit_soon(ctx);
        self.settled(ctx);
    }

    fn committed(&mut self, in_flight: InFlight<M>, ctx: &mut Context<Self>) {
        let InFlight { queued, judged, .. } = in_flight;
        let answers = self.answers(&queued, &judged.verdicts);
        let views = self.replica.adopt(judged);
        self.tell(answers, Some(&views), ctx);
        self.snapshot_if_due(ctx);
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
        let mut ours_is_in = false;
        for batch in since {
            let views = match self.replica.replay(&batch) {
                Ok(views) => views,
                Err(err) => return self.give_up(err, ctx),
            };
            let mut answers = Answers::default();
            if batch.id == in_flight.judged.batch.id {
                ours_is_in = true;
                answers = self.answers(&in_flight.queued, &in_flight.judged.verdicts);
            }
            self.tell(answers, Some(&views), ctx);
        }
        self.in_flight = false;
        if ours_is_in {
            self.snapshot_if_due(ctx);
            self.commit_soon(ctx);
            self.settled(ctx);
        } else {
            self.judge(in_flight.queued, ctx);
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
        ctx.run_later(wait, move |room, ctx| room.append(in_flight, ctx));
    }

    fn refuse(&mut self, in_flight: &InFlight<M>, why: &Rejection, ctx: &mut Context<Self>) {
        let verdicts = vec![Err(why.clone()); in_flight.queued.len()];
        let answers = self.answers(&in_flight.queued, &verdicts);
        self.tell(answers, None, ctx);
    }

    /// The room cannot go on by itself; its sessions come back to a new owner.
    fn give_up(&mut self, why: impl std::fmt::Display, ctx: &mut Context<Self>) {
        log::error!("room {}: {why}; its sessions must connect again", self.name);
        ctx.stop();
    }

    fn log_faults(&self, judged: &Judged<M>) {
        for refused in judged
            .verdicts
            .iter()
            .filter_map(|verdict| verdict.as_ref().err())
        {
            if refused.code == "internal" {
                let (name, model) = (&self.name, M::NAME);
                log::error!(
                    "room {name}: the model {model:?} failed on an action, which is refused"
                );
            }
        }
    }

    fn snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        let rev = self.replica.position().rev;
        if !self.saving && rev.0 - self.snapshot_rev.0 >= SNAPSHOT_EVERY {
            self.saving = true;
            let save = self.save_snapshot().into_actor(self);
            ctx.spawn(save.map(|(), room, _| room.saving = false));
        }
    }

    fn save_snapshot(&mut self) -> impl Future<Output = ()> + use<M> {
        let (journal, name) = (self.journal.clone(), self.name.clone());
        let snapshot = self.replica.snapshot();
        self.snapshot_rev = self.replica.position().rev;
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

    fn answers(
        &self,
        queued: &[Queued<M::Action>],
        verdicts: &[Result<Revision, Rejection>],
    ) -> Answers {
        let mut answers = Answers::default();
        for (queued, verdict) in queued.iter().zip(verdicts) {
            let frames = match verdict {
                Ok(_) => Bytes::new(),
                Err(refused) => framing::text(&classic::error(refused)),
            };
            let answer = Answer {
                session: queued.from.session,
                done: Underway {
                    actions: 1,
                    bytes: queued.bytes,
                },
                frames,
            };
            answers.add(self.id, queued.from.worker, answer);
        }
        answers
    }

    fn tell(&mut self, answers: Answers, views: Option<&Views>, ctx: &mut Context<Self>) {
        let states = views.filter(|views| !views.is_empty()).map(|views| {
            let frames = state_frames(views.iter());
            self.state_frame = frames.newest.clone();
            frames
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
        if self.in_flight || !self.queue.is_empty() {
            return;
        }
        for settled in self.settling.drain(..) {
            let _ = settled.send(());
        }
        let Some(rested) = self.resting.take() else {
            return;
        };
        let unsaved = self.replica.position().rev > self.snapshot_rev;
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
        let load = load(self.journal.clone(), self.name.clone()).into_actor(self);
        ctx.wait(load.map(|loaded, room, ctx| room.loaded(loaded, ctx)));
    }
}

impl<M: Model> Drop for Room<M> {
    /// However the owner ends, its sessions are told that nothing more comes from it.
    fn drop(&mut self) {
        self.audience.tell_gone();
    }
}

impl<M: Model> Handler<Join> for Room<M> {
    type Result = ();

    fn handle(&mut self, Join { from, listener }: Join, ctx: &mut Self::Context) {
        // The others first: what is told to everybody is not for a newcomer that is told it anyway.
        self.audience.add(from, listener);
        self.presence_changed(ctx);
        let entered = Entered {
            session: from.session,
            users: users_frame(self.audience.len()),
            state: self.state_frame.clone(),
        };
        let told = self.audience.welcome(from, entered);
        self.told(told, ctx);
    }
}

impl<M: Model> Handler<Leave> for Room<M> {
    type Result = ();

    fn handle(&mut self, Leave(from): Leave, ctx: &mut Self::Context) {
        if self.audience.leave(from) {
            self.presence_changed(ctx);
        }
    }
}

impl<M: Model> Handler<Submit<M>> for Room<M> {
    type Result = ();

    fn handle(&mut self, Submit { from, actions }: Submit<M>, ctx: &mut Self::Context) {
        let queued = actions
            .into_iter()
            .map(|(asked, bytes)| Queued { from, bytes, asked });
        self.queue.extend(queued);
        self.commit_soon(ctx);
    }
}

impl<M: Model> Handler<Commit> for Room<M> {
    type Result = ();

    fn handle(&mut self, _: Commit, ctx: &mut Self::Context) {
        self.commit(ctx);
    }
}

impl<M: Model> Handler<Settle> for Room<M> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> Self::Result {
        let (settled, wait) = oneshot::channel();
        self.settling.push(settled);
        self.settled(ctx);
        Box::pin(async {
            // An owner that died has nothing underway.
            let _ = wait.await;
        })
    }
}

impl<M: Model> Handler<Rest> for Room<M> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Rest, ctx: &mut Self::Context) -> Self::Result {
        let (rested, wait) = oneshot::channel();
        self.resting = Some(rested);
        self.settled(ctx);
        Box::pin(async {
            // An owner that died is at rest too.
            let _ = wait.await;
        })
    }
}
