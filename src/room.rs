//! The owner: an actor around one [`Replica`] that judges, appends and tells, in this order.
//!
//! Nobody is told of anything before it is committed. While one append is in flight the next batch
//! gathers, so that an idle room adds no latency and a busy one shares one commit, one encoding and
//! one delivery per worker among many actions. The owner never waits for a socket.

mod answers;
mod audience;
mod commit;
mod handlers;
mod import;
mod load;
mod messages;
mod queue;
mod shown;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::prelude::*;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::{
    answers::{Committed, Queued, answer, message},
    audience::{Answers, Audience, Told},
    messages::WaitingImport,
    queue::Queue,
    shown::{tell_frame, users_frame},
};
pub use self::{
    audience::{Listener, Origin, Peer},
    load::{LoadError, Loaded, load},
    messages::{
        Act, Gone, Import, ImportError, Join, Leave, Look, Outcome, Rest, Seen, Settle, Submit,
    },
    shown::{Shown, every_state},
};
use crate::{
    deliver::Answer,
    entry::Position,
    ids::{Epoch, Millis, OwnerId, Revision, RoomName, SessionId},
    journal::Journal,
    limits::Limits,
    model::{Events, Model},
    outbox::States,
    presence::{Presence, Tell},
    protocol::{Dialect, v1},
    replica::{Changes, Judged, Replica, Verdict, Views},
    waiting::Waiting,
};

/// A snapshot is taken after this many entries and refusals, so that replay is short; in a room that
/// remembers more clients, after as many as they are, so that writing them down stays cheap.
const SNAPSHOT_EVERY: u64 = 10_000;

/// In a busy room snapshots are this far apart, so that they cost the disk little beside the batches.
const SNAPSHOT_APART: Duration = Duration::from_millis(100);

/// How long to wait before a worker whose mailbox is full is told again.
const DELIVER_AGAIN: Duration = Duration::from_millis(5);

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
    queue: Queue<M::Action>,
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
    /// Sessions that are gone, oldest first, and up to which action theirs may still wait.
    gone: VecDeque<(SessionId, u64)>,
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
        waiting: &Waiting,
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
            queue: Queue::new(waiting),
            imports: VecDeque::new(),
            hold_until: None,
            in_flight: None,
            ahead: None,
            importing: false,
            committing: false,
            settling: Vec::new(),
            resting: None,
            gone: VecDeque::new(),
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

    /// The room cannot go on by itself; its sessions come back to a new owner.
    fn give_up(&mut self, why: impl std::fmt::Display, ctx: &mut Context<Self>) {
        log::error!("room {}: {why}; its sessions must connect again", self.name);
        ctx.stop();
    }

    fn snapshot_if_due(&mut self, ctx: &mut Context<Self>) {
        let due = SNAPSHOT_EVERY.max(self.replica.settled().weight() as u64);
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
        let mut answers = answer(self.id, &mut self.audience, &committed, queued, verdicts);
        if M::EVENTS == Events::None {
            answers.silence();
        }
        answers
    }

    /// Tells single sessions their answers, and all of them what changed: each view to those who take
    /// every one.
    fn tell(&mut self, answers: Answers, changes: &Changes, ctx: &mut Context<Self>) {
        let views = &changes.views;
        self.forget_gone();
        let told = M::EVENTS == Events::Json && !views.is_empty();
        let states = told.then(|| States {
            every: self
                .audience
                .speaks(Dialect::Classic)
                .then(|| every_state(views.iter())),
            newest: self.audience.speaks(Dialect::V1).then(|| self.shown.v1()),
        });
        let tells: Vec<_> = changes.tells.iter().filter_map(tell_frame).collect();
        let told = self.audience.tell(answers, &tells, states);
        self.told(told, ctx);
    }

    fn tell_users(&mut self, count: usize, ctx: &mut Context<Self>) {
        if M::EVENTS == Events::None {
            return;
        }
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
    fn welcome(&self, peer: Peer) -> String {
        let Peer::V1 {
            client,
            permissions,
        } = peer
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
    fn welcome_again(&mut self, from: Origin, peer: Peer) -> Answer {
        if let Some(member) = self.audience.member(from.session) {
            member.acked = 0;
        }
        message(from, &self.welcome(peer), Some(1))
    }

    // Who is here.

    fn presence_changed(&mut self, ctx: &mut Context<Self>) {
        let tell = self.presence.change(self.audience.len(), Instant::now());
        self.tell_presence(tell, ctx);
    }

    fn tell_presence(&mut self, tell: Tell, ctx: &mut Context<Self>) {
        match tell {
            Tell::Now(count) => self.tell_users(count, ctx),
            Tell::After(wait) => {
                ctx.run_later(wait, |room, ctx| {
                    let tell = room.presence.due(Instant::now());
                    room.tell_presence(tell, ctx);
                });
            }
            Tell::Not => {}
        }
    }

    /// A session is gone; what it asked for before may still wait.
    fn gone(&mut self, session: SessionId) {
        if M::NUMBERED {
            self.gone.push_back((session, self.queue.pushed()));
            self.forget_gone();
        }
    }

    /// Forgets those of whom nothing waits any more.
    fn forget_gone(&mut self) {
        let judged = [&self.in_flight, &self.ahead].into_iter().flatten();
        let judged: usize = judged.map(|judged| judged.queued.len()).sum();
        let done = self.queue.pushed() - (self.queue.len() + judged) as u64;
        while let Some((session, last)) = self.gone.front()
            && *last <= done
        {
            self.replica.forget(*session);
            self.gone.pop_front();
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
        let worth = self.replica.settled().weight() as u64 / 16;
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
