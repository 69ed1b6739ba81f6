//! Clients that do all that a client may do with its numbers, in any order.

use std::{collections::VecDeque, io::Write, net::TcpStream, ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use tallyroom::ids::ClientId;
use uuid::Uuid;

use super::site::Site;
use crate::support::{
    ledger::{Ledger, Planned, Said},
    numbered::{Ended, Hold, Numbered},
    posts::{Posted, post},
};

/// The close code of a session whose client has a newer one.
const REPLACED: u16 = 4409;

/// One who acts by sockets, as one client after the other.
pub struct Acting {
    room: &'static str,
    rng: Rng,
    ledger: Ledger,
    /// Clients that never came back.
    given_up: Vec<Ledger>,
    /// Sockets that are open and not read.
    hung: Vec<Numbered>,
    /// Others' sockets, which are never read.
    deaf: VecDeque<TcpStream>,
}

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Doing {
    InOrder,
    Shuffled,
    Twice,
    OldOnes,
    Posting,
    OnTwoSockets,
}

impl Acting {
    pub fn new(room: &'static str, mut rng: Rng) -> Self {
        Self {
            room,
            ledger: Ledger::new(Uuid::from_u128(rng.u128(..))),
            rng,
            given_up: Vec::new(),
            hung: Vec::new(),
            deaf: VecDeque::new(),
        }
    }

    /// Acts until the last server has settled everything.
    pub fn act(mut self, site: &Site) -> Vec<Ledger> {
        loop {
            let (port, last) = site.find();
            if last && self.finish(port).is_ok() {
                break;
            }
            let went_on = match self.rng.u8(..16) {
                0 => self.leave_at_once(port),
                1 => self.hang(port, site),
                2 => self.send_without_hearing(port),
                3 => {
                    self.come_back_as_another();
                    Ok(())
                }
                4 => self.listen_without_reading(port, site),
                _ => self.converse(port, site),
            };
            if went_on.is_err() {
                site.lost(port);
            }
        }
        self.given_up.push(self.ledger);
        self.given_up
    }

    fn open(&self, port: u16) -> Result<Numbered, Ended> {
        Numbered::open(port, self.room, self.ledger.client).map_err(|_| Ended(None))
    }

    fn finish(&mut self, port: u16) -> Result<(), Ended> {
        let mut session = self.open(port)?;
        session.send_numbers(&self.ledger, self.unsettled())?;
        session.settle_all(&mut self.ledger)
    }

    fn unsettled(&self) -> RangeInclusive<u64> {
        self.ledger.settled() + 1..=self.ledger.last()
    }

    /// Plans some actions, as many as the window has room for, and gives their numbers.
    fn plan(&mut self, most: u64) -> Vec<u64> {
        let count = self.rng.u64(..=most).min(self.ledger.room());
        let plan = |_| {
            let rng = &mut self.rng;
            let action = match rng.u8(..12) {
                0 => Planned::wrong(rng.usize(..5)),
                // Twice 0 and more: seldom refused, and not the same twice in a row.
                _ => Planned::plus([-7, -3, -1, 1, 3, 7][rng.usize(..6)]),
            };
            self.ledger.plan(action)
        };
        (0..count).map(plan).collect()
    }

    fn leave_at_once(&mut self, port: u16) -> Result<(), Ended> {
        self.open(port).map(drop)
    }

    /// Sends, and then neither reads nor closes.
    fn hang(&mut self, port: u16, site: &Site) -> Result<(), Ended> {
        let mut session = self.open(port)?;
        self.plan(50);
        let sent = session.send_numbers(&self.ledger, self.unsettled());
        session.hearing.late = true;
        self.hung.push(session);
        if self.hung.len() > 3 {
            let mut oldest = self.hung.remove(0);
            // What it says when it is read at last is as true as it was.
            while let Ok(Some(_)) = oldest.hear(&mut self.ledger, Duration::ZERO) {
                site.meets("read late");
            }
        }
        sent
    }

    /// Somebody else comes, who is told everything and reads nothing of it.
    fn listen_without_reading(&mut self, port: u16, site: &Site) -> Result<(), Ended> {
        let handshake = format!(
            "GET /r/{} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            self.room
        );
        let listener = TcpStream::connect(("127.0.0.1", port)).and_then(|mut socket| {
            socket.write_all(handshake.as_bytes())?;
            Ok(socket)
        });
        self.deaf.push_back(listener.map_err(|_| Ended(None))?);
        if self.deaf.len() > 3 {
            self.deaf.pop_front();
        }
        site.meets("deaf");
        Ok(())
    }

    /// Sends before it has heard anything, and goes when it has heard a little.
    fn send_without_hearing(&mut self, port: u16) -> Result<(), Ended> {
        let mut session = self.open(port)?;
        self.plan(20);
        session.send_numbers(&self.ledger, self.unsettled())?;
        for _ in 0..self.rng.u8(..6) {
            session.hear(&mut self.ledger, Duration::from_millis(2))?;
        }
        Ok(())
    }

    /// What the old one sent may be in or not, but never twice.
    fn come_back_as_another(&mut self) {
        if self.rng.u8(..4) == 0 {
            let new = Ledger::new(Uuid::from_u128(self.rng.u128(..)));
            self.given_up.push(std::mem::replace(&mut self.ledger, new));
            self.hung.clear();
        }
    }

    /// A session that does several things.
    fn converse(&mut self, port: u16, site: &Site) -> Result<(), Ended> {
        let mut session = self.open(port)?;
        let mut hold = Hold::default();
        while !session.hearing.welcomed {
            self.hear(&mut session, &mut hold, Duration::from_secs(60), site)?;
        }
        if !self.unsettled().is_empty() {
            site.meets("resent");
        }
        session.send_numbers(&self.ledger, self.unsettled())?;
        for _ in 0..self.rng.u8(1..40) {
            let doing = match self.rng.u8(..16) {
                0 => Doing::Shuffled,
                1 => Doing::Twice,
                2 => Doing::OldOnes,
                3 => Doing::Posting,
                4 => Doing::OnTwoSockets,
                _ => Doing::InOrder,
            };
            self.go_on(&mut session, &mut hold, doing, port, site)?;
            let patience = Duration::from_millis(self.rng.u64(..8));
            while self.hear(&mut session, &mut hold, patience, site)? {}
            if let Some(from) = hold.due() {
                let from = from.max(self.ledger.settled() + 1);
                session.send_numbers(&self.ledger, from..=self.ledger.last())?;
            }
        }
        Ok(())
    }

    /// False where nothing was told for so long.
    fn hear(
        &mut self,
        session: &mut Numbered,
        hold: &mut Hold,
        patience: Duration,
        site: &Site,
    ) -> Result<bool, Ended> {
        let said = session.hear(&mut self.ledger, patience)?;
        let Some(said) = said else {
            return Ok(false);
        };
        site.told();
        match &said {
            Said::Retry { code, .. } => site.meets(code),
            Said::Error { .. } => site.meets("refused"),
            _ => {}
        }
        hold.heed(&said);
        Ok(!matches!(said, Said::Retry { .. }))
    }

    fn go_on(
        &mut self,
        session: &mut Numbered,
        hold: &mut Hold,
        doing: Doing,
        port: u16,
        site: &Site,
    ) -> Result<(), Ended> {
        match doing {
            // Whoever was asked to wait, waits.
            _ if hold.is_on() => Ok(()),
            Doing::InOrder => {
                let numbers = self.plan(40);
                session.send_numbers(&self.ledger, numbers)
            }
            Doing::Shuffled => {
                let mut numbers = self.plan(10);
                self.rng.shuffle(&mut numbers);
                session.send_numbers(&self.ledger, numbers)
            }
            Doing::Twice => {
                let numbers = self.plan(10).into_iter().flat_map(|n| [n, n]);
                session.send_numbers(&self.ledger, numbers)
            }
            Doing::OldOnes => {
                let last = self.ledger.last();
                let from = self.rng.u64(last.saturating_sub(2000)..=last).max(1);
                session.send_numbers(&self.ledger, from..=(from + 20).min(last))
            }
            Doing::Posting => self.post(port, site),
            Doing::OnTwoSockets => self.take_over(session, port, site),
        }
    }

    /// Posts the first number that may be unsettled, while a socket may have sent it, too.
    fn post(&mut self, port: u16, site: &Site) -> Result<(), Ended> {
        self.plan(2);
        let n = self.ledger.settled() + 1;
        if n > self.ledger.last() {
            return Ok(());
        }
        let key = format!("{}:{n}", self.ledger.client);
        let posted = post(port, self.room, &key, &mut self.ledger, n);
        if let Ok(Posted::Repeated) = posted {
            site.meets("posted again");
        }
        posted.map(drop).map_err(|_| Ended(None))
    }

    /// Opens another socket, and sends by both; the older one is told that it is replaced.
    fn take_over(&mut self, session: &mut Numbered, port: u16, site: &Site) -> Result<(), Ended> {
        let newer = self.open(port)?;
        let mut older = std::mem::replace(session, newer);
        let numbers = self.plan(20);
        // It may be closed already.
        let _ = older.send_numbers(&self.ledger, numbers.iter().copied());
        session.send_numbers(&self.ledger, self.unsettled())?;
        older.hearing.late = true;
        let ended = loop {
            if let Err(ended) = older.hear(&mut self.ledger, Duration::from_secs(60)) {
                break ended;
            }
        };
        assert!(
            [Ended(Some(REPLACED)), Ended(None)].contains(&ended),
            "{ended:?}"
        );
        if ended == Ended(Some(REPLACED)) {
            site.meets("replaced");
        }
        // What is settled otherwise from now on is later than the newer one's welcome.
        while !session.hearing.welcomed {
            session.hear(&mut self.ledger, Duration::from_secs(60))?;
        }
        Ok(())
    }
}

/// Posts one action after the other, each with a key of its own, until the last server has answered.
pub fn post_with_keys(site: &Site, room: &'static str, mut rng: Rng) -> Vec<Ledger> {
    let mut ledgers = Vec::new();
    if room == "narrow" {
        let limits = Planned::new(r#""action":"limits","max":30,"min":-30"#);
        ledgers.push(post_until_settled(site, room, &mut rng, limits).0);
    }
    loop {
        let action = match rng.u8(..8) {
            0 => Planned::wrong(rng.usize(..5)),
            _ => Planned::plus([-5, -1, 1, 5][rng.usize(..4)]),
        };
        let (ledger, last) = post_until_settled(site, room, &mut rng, action);
        ledgers.push(ledger);
        if last {
            return ledgers;
        }
    }
}

fn post_until_settled(site: &Site, room: &str, rng: &mut Rng, action: Planned) -> (Ledger, bool) {
    let key = format!("order-{:x}", rng.u128(..));
    let mut ledger = Ledger::new(ClientId::of_key(&key).0);
    let n = ledger.plan(action);
    loop {
        let (port, last) = site.find();
        let posted = post(port, room, &key, &mut ledger, n);
        if let Ok(Posted::Repeated) = posted {
            site.meets("posted again");
        }
        match posted {
            Ok(Posted::Settled | Posted::Repeated) if rng.u8(..4) > 0 => return (ledger, last),
            // It is asked again and answered as before.
            Ok(_) => {}
            Err(_) => site.lost(port),
        }
        site.told();
    }
}
