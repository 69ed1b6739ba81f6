//! A store that fails, or dies, or is overtaken, at each append in turn: numbered actions are applied
//! once all the same, and nothing that was told is taken back.

mod support;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
};

use support::{
    PATIENCE, await_that,
    faulty::{Fault, Faulty, OPEN},
    in_process::InProcess,
    kept::Kept,
    ledger::{Ledger, Planned, Said, verify},
    numbered::{Ended, Numbered},
};
use tallyroom::{journal::memory::MemoryJournal, limits::Limits, model::counter::Counter};
use uuid::Uuid;

const ROUNDS: usize = 5;

/// How many cases go on at once; most of their time they wait for a retry's.
const AT_ONCE: usize = 24;

/// Two clients act in turns while the appends fail as they are told to.
fn act(faults: &[Fault]) {
    let journal = Faulty::new(faults);
    let server = InProcess::start(Counter, journal.clone(), Limits::default());
    let mut clients = [Acting::new(), Acting::new()];
    for round in 0..ROUNDS {
        for client in &mut clients {
            client.send(server.port(), round);
        }
        for client in &mut clients {
            client.settle(server.port());
        }
    }
    assert!(
        journal.appends.lock().unwrap().is_empty(),
        "{faults:?} did not all happen"
    );
    let other = journal.other.lock().unwrap().clone();
    let ledgers = [&clients[0].ledger, &clients[1].ledger, &other];
    let kept = Kept::by_http(server.port(), "main");
    let value = verify(&ledgers, &kept);
    assert_eq!(server.client().first(), value);
    for client in &clients {
        assert_eq!(client.ledger.settled(), client.ledger.last());
    }
}

struct Acting {
    ledger: Ledger,
    session: Option<Numbered>,
}

impl Acting {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(Uuid::new_v4()),
            session: None,
        }
    }

    fn session(&mut self, port: u16) -> Result<&mut Numbered, Ended> {
        if self.session.is_none() {
            let session = Numbered::enter(port, "main", &mut self.ledger);
            self.session = Some(session.map_err(|_| Ended(None))?);
        }
        Ok(self.session.as_mut().unwrap())
    }

    fn send(&mut self, port: u16, round: usize) {
        let first = self.ledger.last() + 1;
        for action in [Planned::plus(3), Planned::wrong(round), Planned::plus(-1)] {
            self.ledger.plan(action);
        }
        let ledger = self.ledger.clone();
        let sent = self
            .session(port)
            .and_then(|session| session.send_numbers(&ledger, first..=ledger.last()));
        if sent.is_err() {
            self.session = None;
        }
    }

    /// Comes back as often as it must.
    fn settle(&mut self, port: u16) {
        loop {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => match self.come_back(port) {
                    Ok(session) => session,
                    Err(_) => continue,
                },
            };
            if session.settle_all(&mut self.ledger).is_ok() {
                self.session = Some(session);
                return;
            }
        }
    }

    fn come_back(&mut self, port: u16) -> Result<Numbered, Ended> {
        let session = Numbered::enter(port, "main", &mut self.ledger);
        let mut session = session.map_err(|_| Ended(None))?;
        let unsettled = self.ledger.settled() + 1..=self.ledger.last();
        session.send_numbers(&self.ledger, unsettled)?;
        Ok(session)
    }
}

/// Runs all cases, some at once; the first that fails fails the test.
fn all(cases: Vec<Vec<Fault>>) {
    let cases = Mutex::new(VecDeque::from(cases));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let next = || cases.lock().unwrap().pop_front();
                while let Some(faults) = next() {
                    let named = Named(&faults);
                    act(&faults);
                    std::mem::forget(named);
                }
            });
        }
    });
}

/// Says which case failed.
struct Named<'a>(&'a [Fault]);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        eprintln!("with {:?}", self.0);
    }
}

#[test]
fn a_store_may_fail_at_any_append() {
    let at = |position, fault| {
        let mut faults = vec![Fault::None; position];
        faults.push(fault);
        faults
    };
    let positions = 0..ROUNDS;
    let cases = positions.flat_map(|position| Fault::ALL.map(|fault| at(position, fault)));
    all(cases.collect());
}

#[test]
fn a_store_may_fail_twice_in_a_row() {
    let pairs = Fault::ALL
        .into_iter()
        .flat_map(|first| Fault::ALL.map(|second| vec![Fault::None, first, second]));
    all(pairs.collect());
}

/// The room has an owner on two nodes: one of them sleeps in its append while the other goes on.
#[test]
fn an_owner_that_wakes_up_late_takes_nothing_twice() {
    let shared = Arc::new(MemoryJournal::new());
    let asleep = Faulty::on(shared.clone(), &[]);
    let start = |journal| InProcess::start(Counter, journal, Limits::default());
    let (late, early) = (start(asleep.clone()), start(Faulty::on(shared, &[])));
    let mut ledger = Ledger::new(Uuid::new_v4());
    let mut old = Numbered::enter(late.port(), "main", &mut ledger).unwrap();
    for action in [Planned::plus(1), Planned::wrong(1), Planned::plus(5)] {
        ledger.plan(action);
    }
    old.send_numbers(&ledger, 1..=1).unwrap();
    while ledger.settled() < 1 {
        old.hear(&mut ledger, PATIENCE).unwrap();
    }
    asleep.gate.forget_permits(OPEN);
    old.send_numbers(&ledger, 2..=3).unwrap();
    await_that("the append begins", || {
        asleep.begun.load(Ordering::SeqCst) == 2
    });

    let mut new = Numbered::enter(early.port(), "main", &mut ledger).unwrap();
    ledger.plan(Planned::plus(7));
    new.send_numbers(&ledger, 2..=4).unwrap();
    new.settle_all(&mut ledger).unwrap();

    asleep.gate.add_permits(OPEN);
    old.hearing.late = true;
    loop {
        let said = old.hear(&mut ledger, PATIENCE).unwrap();
        if matches!(said, Some(Said::State { value: 13, .. })) {
            break;
        }
    }
    for server in [&late, &early] {
        let kept = Kept::by_http(server.port(), "main");
        assert_eq!(verify(&[&ledger], &kept), 13);
    }
}
