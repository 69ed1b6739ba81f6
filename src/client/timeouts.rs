//! How long the callers of a client wait. It is told the time.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use crate::client::numbers::Ticket;

/// Until when callers wait for their actions, earliest first.
#[derive(Debug, Default)]
pub struct Timeouts {
    by_time: BTreeSet<(Instant, Ticket)>,
    by_ticket: HashMap<Ticket, Instant>,
}

impl Timeouts {
    /// An action is waited for until then.
    pub fn set(&mut self, ticket: Ticket, at: Instant) {
        self.by_time.insert((at, ticket));
        self.by_ticket.insert(ticket, at);
    }

    /// It is no longer waited for.
    pub fn remove(&mut self, ticket: Ticket) {
        if let Some(at) = self.by_ticket.remove(&ticket) {
            self.by_time.remove(&(at, ticket));
        }
    }

    /// When the next wait is over.
    pub fn first(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the next whose wait is over by now.
    pub fn next_by(&mut self, now: Instant) -> Option<Ticket> {
        let (_, ticket) = self.by_time.first().filter(|(at, _)| *at <= now).copied()?;
        self.remove(ticket);
        Some(ticket)
    }
}
