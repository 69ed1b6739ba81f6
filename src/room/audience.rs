//! A room's sessions, by the workers that they live on, and how they are told.
//!
//! A worker is told by one message, whatever the number of its sessions. What its mailbox has no
//! place for waits here, merged by the same bounds as what a session is behind.

use std::collections::{HashMap, VecDeque};

use actix::prelude::*;
use actix_web::web::Bytes;

use crate::{
    deliver::{Answer, Deliver, Entered, OwnerGone},
    ids::{ClientId, OwnerId, SessionId, WorkerId},
    outbox::{States, TellFrame, UsersFrame, Whom},
    permissions::Permissions,
    protocol::Dialect,
};

/// Which session something comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub worker: WorkerId,
    pub session: SessionId,
}

/// Who has a session, and what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Classic,
    V1 {
        client: ClientId,
        permissions: Permissions,
    },
}

impl Peer {
    /// Who acts, where that is known.
    pub fn client(self) -> Option<ClientId> {
        match self {
            Self::Classic => None,
            Self::V1 { client, .. } => Some(client),
        }
    }

    pub fn dialect(self) -> Dialect {
        match self {
            Self::Classic => Dialect::Classic,
            Self::V1 { .. } => Dialect::V1,
        }
    }
}

/// Who hears what the room tells one worker.
#[derive(Clone)]
pub struct Listener {
    pub deliver: Recipient<Deliver>,
    pub gone: Recipient<OwnerGone>,
}

/// The sessions of one room.
pub struct Audience {
    owner: OwnerId,
    max_pending_bytes: usize,
    sessions: HashMap<SessionId, Member>,
    /// The one session of each client.
    clients: HashMap<ClientId, Origin>,
    workers: HashMap<WorkerId, Worker>,
}

/// A session that is in.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub worker: WorkerId,
    pub peer: Peer,
    /// Up to which of its client's numbers it was told that they are settled.
    pub acked: u64,
}

/// A worker that has sessions of the room.
struct Worker {
    listener: Listener,
    sessions: usize,
    /// What its mailbox had no place for.
    pending: VecDeque<Deliver>,
}

/// Which workers could not be told.
#[derive(Debug, Default)]
#[must_use]
pub struct Told {
    /// Their mailboxes are full: flush them later.
    pub busy: Vec<WorkerId>,
    /// A worker is gone, and its sessions with it.
    pub died: bool,
}

/// What single sessions are told, by worker.
#[derive(Default)]
pub struct Answers(HashMap<WorkerId, Deliver>);

impl Answers {
    pub fn add(&mut self, owner: OwnerId, worker: WorkerId, answer: Answer) {
        let news = self.0.entry(worker);
        news.or_insert_with(|| Deliver::new(owner)).answer(answer);
    }

    /// Leaves out what is said in JSON: the sessions only hear what is done with.
    pub fn silence(&mut self) {
        for news in self.0.values_mut() {
            for answer in &mut news.answers {
                answer.frames = Bytes::new();
            }
        }
    }
}

impl Audience {
    pub fn new(owner: OwnerId, max_pending_bytes: Option<usize>) -> Self {
        Self {
            owner,
            max_pending_bytes: max_pending_bytes.unwrap_or(usize::MAX),
            sessions: HashMap::new(),
            clients: HashMap::new(),
            workers: HashMap::new(),
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether somebody speaks it.
    pub fn speaks(&self, dialect: Dialect) -> bool {
        match dialect {
            Dialect::Classic => self.sessions.len() > self.clients.len(),
            Dialect::V1 => !self.clients.is_empty(),
        }
    }

    /// A session that is in, to take note of what it is told.
    pub fn member(&mut self, session: SessionId) -> Option<&mut Member> {
        self.sessions.get_mut(&session)
    }

    /// The sessions that speak `tallyroom.v1`.
    pub fn clients(&self) -> impl Iterator<Item = (Origin, Peer)> {
        let peer = |from: &Origin| Some((*from, self.sessions.get(&from.session)?.peer));
        self.clients.values().filter_map(peer)
    }

    /// Counts a session in; it hears nothing before it is welcomed. An older one of the same client
    /// is out, and told so. `acked` is what it will be told to be settled.
    pub fn add(&mut self, from: Origin, peer: Peer, acked: u64, listener: Listener) -> Told {
        let mut told = Told::default();
        if let Peer::V1 { client, .. } = peer
            && let Some(older) = self.clients.get(&client).copied()
        {
            let mut news = Deliver::new(self.owner);
            news.replaced.push(older.session);
            told = self.deliver(older.worker, news);
            self.leave(older);
        }
        if let Peer::V1 { client, .. } = peer {
            self.clients.insert(client, from);
        }
        let worker = from.worker;
        let member = Member {
            worker,
            peer,
            acked,
        };
        if self.sessions.insert(from.session, member).is_none() {
            let worker = self.workers.entry(worker).or_insert_with(|| Worker {
                listener,
                sessions: 0,
                pending: VecDeque::new(),
            });
            worker.sessions += 1;
        }
        told
    }

    /// Tells a session what a newcomer is told first; all that follows is for it, too.
    pub fn welcome(&mut self, from: Origin, entered: Entered) -> Told {
        let mut news = Deliver::new(self.owner);
        news.entered.push(entered);
        self.deliver(from.worker, news)
    }

    /// Takes a session out; false where it was not in.
    pub fn leave(&mut self, from: Origin) -> bool {
        let Some(member) = self.sessions.remove(&from.session) else {
            return false;
        };
        if let Peer::V1 { client, .. } = member.peer {
            self.clients.remove(&client);
        }
        if let Some(worker) = self.workers.get_mut(&from.worker) {
            worker.sessions -= 1;
        }
        self.forget_unused(from.worker);
        true
    }

    /// Tells single sessions their answers, those concerned the model's own messages, and all of them
    /// the states.
    pub fn tell(
        &mut self,
        mut answers: Answers,
        tells: &[TellFrame],
        states: Option<States>,
    ) -> Told {
        // Where one session alone is told something, its worker alone need hear of it.
        let workers: Vec<Option<WorkerId>> = tells
            .iter()
            .map(|tell| match tell.to {
                Whom::Only(session) => Some(self.sessions.get(&session)?.worker),
                _ => None,
            })
            .collect();
        self.tell_each(|owner, worker| {
            let mut news = answers.0.remove(&worker);
            let concerned = |(tell, of): (&TellFrame, &Option<WorkerId>)| match tell.to {
                Whom::Only(_) => (*of == Some(worker)).then(|| tell.clone()),
                _ => Some(tell.clone()),
            };
            let tells: Vec<_> = tells.iter().zip(&workers).filter_map(concerned).collect();
            if !tells.is_empty() {
                news.get_or_insert_with(|| Deliver::new(owner)).tells = tells;
            }
            if let Some(states) = &states {
                let news = news.get_or_insert_with(|| Deliver::new(owner));
                news.states = Some(states.clone());
            }
            news
        })
    }

    /// Tells all sessions how many there are.
    pub fn tell_users(&mut self, users: UsersFrame) -> Told {
        self.tell_each(|owner, _| {
            let mut news = Deliver::new(owner);
            news.users = Some(users.clone());
            Some(news)
        })
    }

    /// Tells all sessions that nothing more comes from this owner.
    pub fn tell_gone(&self) {
        for worker in self.workers.values() {
            let entered = worker.pending.iter().flat_map(|news| &news.entered);
            worker.listener.gone.do_send(OwnerGone {
                owner: self.owner,
                waiting: entered.map(|entered| entered.session).collect(),
            });
        }
    }

    fn tell_each(&mut self, mut news: impl FnMut(OwnerId, WorkerId) -> Option<Deliver>) -> Told {
        let workers: Vec<WorkerId> = self.workers.keys().copied().collect();
        let mut told = Told::default();
        for worker in workers {
            if let Some(news) = news(self.owner, worker) {
                told.add(self.deliver(worker, news));
            }
        }
        told
    }

    fn deliver(&mut self, to: WorkerId, news: Deliver) -> Told {
        let Some(worker) = self.workers.get_mut(&to) else {
            return Told::default();
        };
        let was_busy = !worker.pending.is_empty();
        let rest = match worker.pending.back_mut() {
            None => Some(news),
            Some(last) => last.merge(news, self.max_pending_bytes),
        };
        worker.pending.extend(rest);
        if was_busy {
            // It is flushed when its time has come.
            return Told::default();
        }
        self.flush(to)
    }

    /// Sends a worker what its mailbox has place for.
    pub fn flush(&mut self, to: WorkerId) -> Told {
        let mut told = Told::default();
        let Some(worker) = self.workers.get_mut(&to) else {
            return told;
        };
        while let Some(news) = worker.pending.pop_front() {
            match worker.listener.deliver.try_send(news) {
                Ok(()) => {}
                Err(SendError::Full(news)) => {
                    worker.pending.push_front(news);
                    told.busy.push(to);
                    break;
                }
                Err(SendError::Closed(_)) => {
                    self.workers.remove(&to);
                    self.sessions.retain(|_, member| member.worker != to);
                    self.clients.retain(|_, from| from.worker != to);
                    told.died = true;
                    return told;
                }
            }
        }
        self.forget_unused(to);
        told
    }

    /// A worker without sessions is told what still waits for it, and then no more.
    fn forget_unused(&mut self, id: WorkerId) {
        let unused = |worker: &Worker| worker.sessions == 0 && worker.pending.is_empty();
        if self.workers.get(&id).is_some_and(unused) {
            self.workers.remove(&id);
        }
    }
}

impl Told {
    pub fn add(&mut self, other: Self) {
        self.busy.extend(other.busy);
        self.died |= other.died;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use super::*;
    use crate::{
        deliver::Underway,
        limits::MAX_EVENTS_BEHIND,
        outbox::{StateFrames, Takes},
    };

    /// A worker with a mailbox that is full at once.
    struct Tight(Arc<Mutex<Vec<Deliver>>>);

    impl Actor for Tight {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(1);
        }
    }

    impl Handler<Deliver> for Tight {
        type Result = ();

        fn handle(&mut self, news: Deliver, _: &mut Self::Context) {
            self.0.lock().unwrap().push(news);
        }
    }

    impl Handler<OwnerGone> for Tight {
        type Result = ();

        fn handle(&mut self, _: OwnerGone, ctx: &mut Self::Context) {
            ctx.stop();
        }
    }

    const FROM: Origin = Origin {
        worker: WorkerId(1),
        session: SessionId(1),
    };

    fn state(number: u32) -> States {
        let frame = Bytes::copy_from_slice(&number.to_be_bytes());
        States {
            newest: Some(frame.clone()),
            every: Some(StateFrames {
                every: frame.clone(),
                newest: frame,
                events: 1,
            }),
        }
    }

    fn enter(audience: &mut Audience, from: Origin, listener: Listener) -> Told {
        let _ = audience.add(from, Peer::Classic, 0, listener);
        let entered = Entered {
            session: from.session,
            takes: Takes::Every,
            welcome: Bytes::new(),
            users: UsersFrame {
                count: audience.len(),
                frame: Bytes::new(),
            },
            state: Bytes::new(),
            next: 1,
        };
        audience.welcome(from, entered)
    }

    fn events(news: &[Deliver]) -> u64 {
        let states = news.iter().filter_map(|news| news.states.as_ref());
        let every = states.filter_map(|states| states.every.as_ref());
        every.map(|every| every.events).sum()
    }

    fn audience() -> (Audience, Arc<Mutex<Vec<Deliver>>>, Listener) {
        let heard = Arc::default();
        let worker = Tight(Arc::clone(&heard)).start();
        let listener = Listener {
            deliver: worker.clone().recipient(),
            gone: worker.recipient(),
        };
        (Audience::new(OwnerId(1), Some(1 << 20)), heard, listener)
    }

    async fn flush_all(audience: &mut Audience, heard: &Mutex<Vec<Deliver>>) {
        let mut settled = None;
        while settled != Some(heard.lock().unwrap().len()) {
            settled = Some(heard.lock().unwrap().len());
            let _ = audience.flush(FROM.worker);
            actix_web::rt::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(audience.flush(FROM.worker).busy.is_empty());
    }

    #[actix_web::test]
    async fn what_a_full_mailbox_has_no_place_for_is_merged_and_bounded() {
        let (mut audience, heard, listener) = audience();
        let mut busy = enter(&mut audience, FROM, listener).busy.len();
        let sent = MAX_EVENTS_BEHIND as u32 + 1000;
        for number in 1..=sent {
            let mut answers = Answers::default();
            let answer = Answer {
                session: FROM.session,
                done: Underway {
                    actions: 1,
                    bytes: 10,
                },
                frames: Bytes::new(),
                next: None,
            };
            answers.add(OwnerId(1), FROM.worker, answer);
            busy += audience.tell(answers, &[], Some(state(number))).busy.len();
        }
        assert_eq!(busy, 1, "one flush is due, however much waits");
        assert!(audience.workers[&FROM.worker].pending.len() <= 2);
        flush_all(&mut audience, &heard).await;
        let heard = heard.lock().unwrap();
        let answers = heard.iter().flat_map(|news| &news.answers);
        let answered: usize = answers.map(|answer| answer.done.actions).sum();
        assert_eq!(answered, sent as usize, "every action is answered");
        let newest = heard.iter().rev().find_map(|news| news.states.as_ref());
        assert_eq!(newest.unwrap().newest, state(sent).newest);
        assert!(
            events(&heard) <= MAX_EVENTS_BEHIND,
            "older states are dropped"
        );
    }

    #[actix_web::test]
    async fn who_enters_while_the_mailbox_is_full_hears_nothing_from_before() {
        let (mut audience, heard, listener) = audience();
        let _ = enter(&mut audience, FROM, listener.clone());
        for number in 1..=3 {
            let _ = audience.tell(Answers::default(), &[], Some(state(number)));
        }
        let later = Origin {
            session: SessionId(2),
            ..FROM
        };
        let _ = enter(&mut audience, later, listener);
        let _ = audience.tell(Answers::default(), &[], Some(state(4)));
        flush_all(&mut audience, &heard).await;
        let heard = heard.lock().unwrap();
        let enters = |news: &Deliver| {
            let mut entered = news.entered.iter();
            entered.any(|entered| entered.session == later.session)
        };
        let (before, after) = heard.split_at(heard.iter().position(enters).unwrap());
        assert_eq!((events(before), events(after)), (3, 1));
    }

    #[actix_web::test]
    async fn a_clients_new_session_replaces_its_older_one() {
        let (mut audience, heard, listener) = audience();
        let peer = Peer::V1 {
            client: ClientId(uuid::Uuid::from_u128(7)),
            permissions: Permissions { admin: false },
        };
        let _ = audience.add(FROM, peer, 0, listener.clone());
        let newer = Origin {
            session: SessionId(2),
            ..FROM
        };
        let _ = audience.add(newer, peer, 0, listener);
        flush_all(&mut audience, &heard).await;
        let replaced: Vec<_> = heard
            .lock()
            .unwrap()
            .iter()
            .flat_map(|news| news.replaced.clone())
            .collect();
        assert_eq!(replaced, [FROM.session]);
        assert_eq!((audience.len(), audience.leave(FROM)), (1, false));
        assert!(audience.speaks(Dialect::V1) && !audience.speaks(Dialect::Classic));
        assert!(audience.leave(newer) && !audience.speaks(Dialect::V1));
    }

    /// Notes who is said to wait for an owner that is gone.
    struct Bereaved(Arc<Mutex<Vec<SessionId>>>);

    impl Actor for Bereaved {
        type Context = Context<Self>;
    }

    impl Handler<OwnerGone> for Bereaved {
        type Result = ();

        fn handle(&mut self, gone: OwnerGone, _: &mut Self::Context) {
            self.0.lock().unwrap().extend(gone.waiting);
        }
    }

    #[actix_web::test]
    async fn sessions_that_were_not_told_that_they_are_in_hear_that_the_owner_is_gone() {
        let (mut audience, _, mut listener) = audience();
        let heard = Arc::new(Mutex::new(Vec::new()));
        listener.gone = Bereaved(heard.clone()).start().recipient();
        let sessions = (1..=100).map(SessionId);
        for session in sessions.clone() {
            let _ = enter(&mut audience, Origin { session, ..FROM }, listener.clone());
        }
        audience.tell_gone();
        let nobody = OwnerGone {
            owner: OwnerId(1),
            waiting: Vec::new(),
        };
        // It comes behind what was told before.
        listener.gone.send(nobody).await.unwrap();
        let heard = heard.lock().unwrap();
        let told_in_time = 100 - heard.len();
        assert!((1..100).contains(&told_in_time), "{told_in_time}");
        let waiting: Vec<_> = sessions.skip(told_in_time).collect();
        assert_eq!(*heard, waiting);
    }

    #[actix_web::test]
    async fn a_dead_worker_takes_its_sessions_along() {
        let (mut audience, _, listener) = audience();
        let _ = enter(&mut audience, FROM, listener);
        audience.tell_gone();
        while !audience.tell(Answers::default(), &[], Some(state(1))).died {
            actix_web::rt::time::sleep(Duration::from_millis(1)).await;
            let _ = audience.flush(FROM.worker);
        }
        assert_eq!(audience.len(), 0);
        assert!(!audience.leave(FROM));
    }
}
