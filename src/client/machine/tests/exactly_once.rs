//! Any interleaving of cuts, late and doubled messages, crashes, retries, timeouts, wiped rooms and rooms that forget by
//! age against a model of a room: what the client tells of an action is what the room did, once.

use std::collections::{BTreeMap, HashMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::limits::REMEMBER_AT_LEAST;

const WINDOW: u64 = 4;

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        patience: Option<u64>,
    },
    /// The client puts at most so many messages on its wire.
    Send(usize),
    Open,
    Unreachable,
    /// The room takes the next message of one of its sessions, of one that is cut, too.
    Take(usize),
    Commit,
    /// The client hears the next event.
    Hear,
    Cut,
    /// What was not committed is gone, and the connection.
    Crash,
    /// Everything is gone but, if `alive`, the connection.
    Wipe {
        alive: bool,
    },
    Limit(bool),
    Pass(u64),
    /// So much time that a crowded room forgets everybody, and as many milliseconds more.
    Age(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let patience = prop::option::weighted(0.2, 0_u64..5_000);
    let step = prop_oneof![
        4 => patience.prop_map(|patience| Step::Submit { patience }),
        6 => (1_usize..6).prop_map(Step::Send),
        3 => Just(Step::Open),
        1 => Just(Step::Unreachable),
        10 => (0_usize..8).prop_map(Step::Take),
        4 => Just(Step::Commit),
        10 => Just(Step::Hear),
        2 => Just(Step::Cut),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(|alive| Step::Wipe { alive }),
        1 => any::<bool>().prop_map(Step::Limit),
        4 => (0_u64..3_000).prop_map(Step::Pass),
        1 => (0_u64..3_600_000).prop_map(Step::Age),
    ];
    prop::collection::vec(step, 0..300)
}

/// What a room remembers of a client.
struct Known {
    n: u64,
    at: Instant,
    refused: Vec<u64>,
}

struct Session {
    client: ClientId,
    inbox: VecDeque<String>,
    outbox: VecDeque<Value>,
}

/// An action that is taken but not committed.
struct Underway {
    client: ClientId,
    n: u64,
    id: u64,
}

#[derive(Default)]
struct Room {
    life: u128,
    /// The ids of accepted actions, of each life.
    journals: BTreeMap<u128, Vec<u64>>,
    known: HashMap<ClientId, Known>,
    underway: Vec<Underway>,
    sessions: Vec<Session>,
    limited: bool,
}

impl Room {
    fn journal(&mut self) -> &mut Vec<u64> {
        self.journals.entry(self.life).or_default()
    }

    fn rev(&mut self) -> u64 {
        self.journal().len() as u64
    }

    fn settled(&self, client: ClientId) -> u64 {
        self.known.get(&client).map_or(0, |known| known.n)
    }

    fn state(&mut self) -> Value {
        let rev = self.rev();
        json!({"type": "state", "epoch": epoch(self.life), "rev": rev, "value": rev})
    }

    fn greet(&mut self, session: usize) {
        let client = self.sessions[session].client;
        let mut welcome = welcome(client, self.life, self.settled(client));
        let known = self.known.get(&client);
        let refused = known.into_iter().flat_map(|known| &known.refused);
        let refused = refused.map(|n| json!({"n": n, "code": "out_of_range", "message": "no"}));
        welcome["refused"] = refused.collect();
        welcome["rev"] = self.rev().into();
        welcome["window"] = WINDOW.into();
        welcome["beat_ms"] = Value::Null;
        let state = self.state();
        self.sessions[session].outbox.extend([welcome, state]);
    }

    fn take(&mut self, session: usize) {
        let Some(text) = self.sessions[session].inbox.pop_front() else {
            return;
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        let [n, id] = ["n", "id"].map(|field| message[field].as_u64().unwrap());
        let client = self.sessions[session].client;
        let settled = self.settled(client);
        let underway = self.underway.iter().filter(|one| one.client == client);
        let expected = settled + underway.count() as u64 + 1;
        if n <= settled {
            self.answer(session, settled);
        } else if n == expected && !self.limited {
            self.underway.push(Underway { client, n, id });
        } else if n >= expected {
            let code = if n > expected { "gap" } else { "rate_limited" };
            let retry = json!({"type": "retry", "n": n, "expected": expected, "code": code, "after_ms": 100});
            self.sessions[session].outbox.push_back(retry);
        }
    }

    /// Tells a session the verdicts of its client up to a number.
    fn answer(&mut self, session: usize, n: u64) {
        let rev = self.rev();
        let session = &mut self.sessions[session];
        for n in &self.known[&session.client].refused {
            let error = json!({"type": "error", "n": n, "code": "out_of_range", "message": "no"});
            session.outbox.push_back(error);
        }
        let ack = json!({"type": "ack", "n": n, "rev": rev});
        session.outbox.push_back(ack);
    }

    fn commit(&mut self, at: Instant) {
        for Underway { client, n, id } in std::mem::take(&mut self.underway) {
            let refused = Vec::new();
            let known = self.known.entry(client);
            let known = known.or_insert(Known { n, at, refused });
            (known.n, known.at) = (n, at);
            known.refused.retain(|refused| refused + WINDOW > n);
            if id.is_multiple_of(5) {
                known.refused.push(n);
            } else {
                self.journal().push(id);
            }
        }
        let state = self.state();
        for session in 0..self.sessions.len() {
            let settled = self.settled(self.sessions[session].client);
            if settled > 0 {
                self.answer(session, settled);
            }
            self.sessions[session].outbox.push_back(state.clone());
        }
    }

    /// Nothing is on its way for as long as it takes to forget: what is by then is taken, or never comes in.
    fn bring_in(&mut self, current: Option<usize>, now: Instant) {
        for session in 0..self.sessions.len() {
            while current == Some(session) && !self.sessions[session].inbox.is_empty() {
                self.take(session);
            }
            self.sessions[session].inbox.clear();
        }
        self.commit(now);
    }

    fn forget_old(&mut self, now: Instant) {
        self.known
            .retain(|_, known| now < known.at + REMEMBER_AT_LEAST);
    }

    fn wipe(&mut self, current: Option<usize>) {
        self.life += 1;
        self.known.clear();
        self.underway.clear();
        if let Some(session) = current {
            self.greet(session);
        }
    }
}

struct World {
    now: Instant,
    machine: Machine,
    room: Room,
    /// Which of the room's sessions the client has; the others it has left.
    current: Option<usize>,
    opening: Option<ClientId>,
    submitted: u64,
    outcomes: BTreeMap<u64, Outcome>,
    /// Clients were forgotten, in whatever way.
    forgot: bool,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            now,
            machine: machine(now),
            room: Room::default(),
            current: None,
            opening: None,
            submitted: 0,
            outcomes: BTreeMap::new(),
            forgot: false,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Submit { patience } => self.submit(patience),
            Step::Send(most) => self.send(most),
            Step::Open => self.open(),
            Step::Unreachable if self.opening.take().is_some() => self.lose(),
            Step::Unreachable => {}
            Step::Take(_) if self.room.sessions.is_empty() => {}
            Step::Take(which) => self.room.take(which % self.room.sessions.len()),
            Step::Commit => self.room.commit(self.now),
            Step::Hear => self.hear(),
            Step::Cut => self.cut(),
            Step::Crash => {
                self.room.underway.clear();
                self.cut();
            }
            Step::Wipe { alive } => {
                self.forgot = true;
                if !alive {
                    self.cut();
                }
                self.room.wipe(self.current);
            }
            Step::Limit(limited) => self.room.limited = limited,
            Step::Pass(millis) => self.now += Duration::from_millis(millis),
            Step::Age(millis) => {
                self.forgot = true;
                self.room.bring_in(self.current, self.now);
                self.now += REMEMBER_AT_LEAST + Duration::from_millis(millis);
                self.room.forget_old(self.now);
            }
        }
        self.machine.due(self.now);
        self.obey();
    }

    fn submit(&mut self, patience: Option<u64>) {
        self.submitted += 1;
        let action = Action::new(&json!({"action": "plus", "id": self.submitted})).unwrap();
        let give_up_at = patience.map(|millis| self.now + Duration::from_millis(millis));
        let ticket = Ticket(self.submitted);
        self.machine.submit(ticket, action, give_up_at);
    }

    fn send(&mut self, most: usize) {
        let Some(session) = self.current else { return };
        for _ in 0..most {
            let Some(message) = self.machine.next_message(moment(self.now)) else {
                return;
            };
            self.room.sessions[session].inbox.push_back(message);
        }
    }

    fn open(&mut self) {
        let Some(client) = self.opening.take() else {
            return;
        };
        let (inbox, outbox) = Default::default();
        let session = Session {
            client,
            inbox,
            outbox,
        };
        self.room.sessions.push(session);
        let session = self.room.sessions.len() - 1;
        self.current = Some(session);
        self.machine.opened(self.now);
        self.room.greet(session);
    }

    fn hear(&mut self) {
        let Some(session) = self.current else { return };
        if let Some(event) = self.room.sessions[session].outbox.pop_front() {
            let now = moment(self.now);
            self.machine.heard(now, event.to_string().as_bytes());
        }
    }

    /// The client loses its connection; what it sent by it may still come in.
    fn cut(&mut self) {
        if self.current.take().is_some() {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.machine.lost(self.now, Loss::Cut(String::new()));
    }

    fn obey(&mut self) {
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Open(id) => self.opening = Some(id),
                Effect::HangUp => (self.opening, self.current) = (None, None),
                Effect::Tell(Ticket(id), outcome) => {
                    let before = self.outcomes.insert(id, outcome);
                    assert_eq!(before, None, "{id} is told twice");
                }
            }
        }
    }

    /// From now on nothing goes wrong, until everything is settled.
    fn heal(&mut self) {
        self.room.limited = false;
        for _ in 0..2_000 {
            if self.machine.waiting() == 0 {
                return;
            }
            let session = self.current.unwrap_or(0);
            let mut round = vec![
                Step::Open,
                Step::Send(1),
                Step::Take(session),
                Step::Commit,
                Step::Pass(50),
            ];
            round.extend([const { Step::Hear }; 10]);
            for step in &round {
                self.step(step);
            }
        }
        panic!("{} actions are never settled", self.machine.waiting());
    }

    fn check(&self) {
        for (life, journal) in &self.room.journals {
            let once: HashSet<_> = journal.iter().collect();
            assert_eq!(once.len(), journal.len(), "doubled: {journal:?}");
            let told = journal.iter().filter(|id| self.is_accepted(**id, *life));
            assert!(told.is_sorted(), "out of order: {journal:?}");
        }
        for id in 1..=self.submitted {
            let outcome = self.outcomes.get(&id);
            let outcome = outcome.unwrap_or_else(|| panic!("nobody is told of {id}"));
            let right = self.is_right(id, outcome);
            assert!(right, "{id} is told {outcome:?}; {:?}", self.room.journals);
        }
    }

    /// Whether it is known to be in this life. What nobody is sure of may come late, and between others.
    fn is_accepted(&self, id: u64, life: u128) -> bool {
        let outcome = self.outcomes.get(&id);
        matches!(outcome, Some(Outcome::Judged(Verdict::Accepted { epoch: told, .. })) if *told == epoch(life))
    }

    fn is_right(&self, id: u64, outcome: &Outcome) -> bool {
        let mut lives = self.room.journals.iter();
        match outcome {
            Outcome::Judged(Verdict::Accepted { epoch: life, rev }) => {
                let journal = lives.find(|(number, _)| epoch(**number) == *life);
                let place =
                    journal.and_then(|(_, journal)| journal.iter().position(|at| *at == id));
                place.is_some_and(|place| place < rev.0 as usize)
            }
            Outcome::Judged(Verdict::Refused(_)) => id.is_multiple_of(5),
            Outcome::Judged(Verdict::Unsure) => self.forgot,
            Outcome::TimedOut { sent: true } => true,
            Outcome::TimedOut { sent: false } => lives.all(|(_, journal)| !journal.contains(&id)),
            Outcome::Ended { .. } => false,
        }
    }
}

/// A session that lives on for an hour after its client was asked to send again: what came in before was settled and
/// is forgotten, which the client has yet to hear.
#[test]
fn what_may_be_settled_and_forgotten_is_not_sent_again_on_a_session_that_lives() {
    let mut world = World::new();
    for step in [
        Step::Submit { patience: None },
        Step::Submit { patience: None },
        Step::Open,
        Step::Hear,
        Step::Hear,
        Step::Limit(true),
        Step::Send(2),
        Step::Take(0),
        Step::Hear,
        Step::Pass(2_100),
        Step::Send(2),
        Step::Take(0),
        Step::Limit(false),
        Step::Hear,
        Step::Age(0),
        Step::Send(2),
    ] {
        world.step(&step);
    }
    world.heal();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_told_of_an_action_is_what_the_room_did(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.heal();
        world.check();
    }

    #[test]
    fn where_nothing_is_forgotten_and_nobody_tires_every_action_is_settled(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            match step {
                Step::Wipe { .. } | Step::Age(_) => {}
                Step::Submit { .. } => world.step(&Step::Submit { patience: None }),
                step => world.step(step),
            }
        }
        world.heal();
        world.check();
        let all: Vec<u64> = (1..=world.submitted).filter(|id| !id.is_multiple_of(5)).collect();
        prop_assert_eq!(&*world.room.journal(), &all);
    }
}
