//! Clients that act on a watched server, and note how long the log was when they heard something.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use fastrand::Rng;
use uuid::Uuid;

use super::layer::{Switch, Watched};
use crate::support::{
    Event, PATIENCE, Server, await_that,
    ledger::{Hearing, Ledger, Planned, Said},
    numbered::{Ended, Hold, Numbered},
};

/// The room of clients without numbers.
pub const CLASSIC: &str = "classic";

/// A numbered client, and all that it did and heard.
pub struct Witness {
    pub room: &'static str,
    ledger: Ledger,
    notes: Vec<(u64, Note)>,
}

enum Note {
    Planned(Planned),
    Heard(Said),
}

impl Witness {
    fn new(room: &'static str, rng: &mut Rng) -> Self {
        Self {
            room,
            ledger: Ledger::new(Uuid::from_u128(rng.u128(..))),
            notes: Vec::new(),
        }
    }

    /// What it had asked for and heard when the log was so long.
    pub fn ledger(&self, until: u64) -> Ledger {
        let mut ledger = Ledger::new(self.ledger.client);
        let mut hearing = Hearing::default();
        for (_, note) in self.notes.iter().take_while(|(at, _)| *at <= until) {
            match note {
                Note::Planned(action) => drop(ledger.plan(action.clone())),
                Note::Heard(said) => {
                    if matches!(said, Said::Welcome { .. }) {
                        hearing = Hearing::default();
                    }
                    ledger.hear(&mut hearing, said);
                }
            }
        }
        ledger
    }

    fn hear(
        &mut self,
        session: &mut Numbered,
        watched: &Watched,
        patience: Duration,
    ) -> Result<Option<Said>, Ended> {
        let said = session.hear(&mut self.ledger, patience)?;
        if let Some(said) = &said {
            self.notes.push((watched.now(), Note::Heard(said.clone())));
        }
        Ok(said)
    }

    fn plan(&mut self, rng: &mut Rng, watched: &Watched) {
        let action = match rng.u8(..10) {
            0 => Planned::wrong(rng.usize(..5)),
            _ => Planned::plus(rng.i64(-5..=5) * 2 + 1),
        };
        self.notes
            .push((watched.now(), Note::Planned(action.clone())));
        self.ledger.plan(action);
    }

    /// Acts in groups of random size until the server is gone.
    fn act(&mut self, port: u16, watched: &Watched, acked: &AtomicU64, rng: &mut Rng) -> Ended {
        let Ok(mut session) = Numbered::open(port, self.room, self.ledger.client) else {
            return Ended(None);
        };
        let mut go_on = || -> Result<(), Ended> {
            while !session.hearing.welcomed {
                self.hear(&mut session, watched, PATIENCE)?;
            }
            let unsettled = self.ledger.settled() + 1..=self.ledger.last();
            session.send_numbers(&self.ledger, unsettled)?;
            loop {
                let first = self.ledger.last() + 1;
                for _ in 0..rng.u64(1..=60).min(self.ledger.room()) {
                    self.plan(rng, watched);
                }
                session.send_numbers(&self.ledger, first..=self.ledger.last())?;
                self.await_most(&mut session, watched, acked, rng)?;
            }
        };
        go_on().unwrap_err()
    }

    /// Hears on until only some of the numbers are unsettled.
    fn await_most(
        &mut self,
        session: &mut Numbered,
        watched: &Watched,
        acked: &AtomicU64,
        rng: &mut Rng,
    ) -> Result<(), Ended> {
        let left = rng.u64(..40);
        let mut hold = Hold::default();
        while hold.is_on() || self.ledger.last() - self.ledger.settled() > left {
            if let Some(from) = hold.due() {
                let from = from.max(self.ledger.settled() + 1);
                session.send_numbers(&self.ledger, from..=self.ledger.last())?;
            }
            let before = self.ledger.settled();
            let said = self.hear(session, watched, hold.left())?;
            if let Some(said) = &said {
                hold.heed(said);
            }
            assert!(
                said.is_some() || hold.is_on(),
                "nothing was told: {:?}",
                self.ledger
            );
            acked.fetch_add(self.ledger.settled() - before, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// All that happened to a watched folder.
pub struct Story {
    pub watched: Watched,
    pub witnesses: Vec<Witness>,
    /// What a classic client was shown, and by when; and how much it asked for in all.
    pub shown: Vec<(u64, i64)>,
    pub sent: i64,
    rng: Rng,
}

/// How a server ends.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Killed,
    Stopped,
}

impl Story {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let rooms = ["main", "main", "main", "other"];
        Self {
            watched: Watched::new(),
            witnesses: rooms.map(|room| Witness::new(room, &mut rng)).into(),
            shown: Vec::new(),
            sent: 0,
            rng,
        }
    }

    /// A life of the server, which ends so when `done` says it.
    pub fn live(&mut self, flags: &[&str], end: End, mut done: impl FnMut(&Watched, u64) -> bool) {
        let server = self.watched.start(flags);
        let acked = AtomicU64::new(0);
        let (watched, port) = (&self.watched, server.port());
        thread::scope(|scope| {
            // Killed where this fails, so that nobody is left who waits for it.
            let mut server = server;
            for witness in &mut self.witnesses {
                let mut rng = self.rng.fork();
                let acked = &acked;
                scope.spawn(move || witness.act(port, watched, acked, &mut rng));
            }
            let (shown, sent) = (&mut self.shown, &mut self.sent);
            let mut rng = self.rng.fork();
            let classic = server.client_in(&format!("/r/{CLASSIC}"));
            scope.spawn(move || act_without_numbers(classic, watched, shown, sent, &mut rng));
            await_that("there was enough", || {
                done(watched, acked.load(Ordering::Relaxed))
            });
            match end {
                End::Killed => watched.set(Switch::Die, 1),
                End::Stopped => server.signal("TERM"),
            }
            server.await_exit();
        });
    }
}

fn act_without_numbers(
    mut client: crate::support::Client,
    watched: &Watched,
    shown: &mut Vec<(u64, i64)>,
    sent: &mut i64,
    rng: &mut Rng,
) {
    let mut value = client.first();
    shown.push((watched.now(), value));
    *sent = (*sent).max(value);
    loop {
        let more = rng.i64(1..20);
        *sent += more;
        client.send_often_or_end(crate::support::PLUS, more as usize);
        let mut until = value + more;
        while value < until {
            match client.next() {
                Event::State(next) => {
                    assert_eq!(next, value + 1, "a state was left out");
                    value = next;
                    shown.push((watched.now(), value));
                }
                Event::Users(_) => {}
                Event::Error(code) if ["store_full", "unavailable"].contains(&code.as_str()) => {
                    until -= 1;
                }
                Event::Closed(_) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// The server under test, after the power is back.
pub fn after_power_loss(server: &Server, witnesses: &[Witness], until: u64) -> Vec<Ledger> {
    let heard = |witness: &Witness| {
        let mut ledger = witness.ledger(until);
        let mut session = Numbered::enter(server.port(), witness.room, &mut ledger).unwrap();
        let unsettled = ledger.settled() + 1..=ledger.last();
        session.send_numbers(&ledger, unsettled).unwrap();
        session.settle_all(&mut ledger).unwrap();
        ledger
    };
    witnesses.iter().map(heard).collect()
}
