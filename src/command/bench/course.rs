//! The course of a run: what was sent when, what each client saw of it, and what is to be sent now. It is told what
//! happened and the time, and knows neither socket nor clock.

mod outcome;

use std::time::{Duration, Instant};

use bytestring::ByteString;

use super::{
    fault::Fault,
    latency::Latency,
    plan::{Dialect, Part, Plan},
    said::Said,
    seen::{Seen, State, Step, Told, missing},
    writer::Writer,
};
use crate::client::{event::Event, machine::Loss, moment::Moment};

/// After a state that went back, so much silence means that the rest will not come.
const STUCK_AFTER: Duration = Duration::from_secs(2);

/// With this code a server drops who takes nothing.
const TOO_SLOW: u16 = 1013;

/// One run.
pub struct Course {
    plan: Plan,
    parts: Vec<Part>,
    clients: Vec<Seen>,
    writers: Vec<Writer>,
    stage: Stage,
    told: Told,
    latency: Latency,
    /// When each action was sent, or where a rate says so was due, counted from the start.
    sent_at: Vec<Duration>,
    /// How many actions the rate has let go.
    allotted: usize,
    /// How many of those that read all the time have seen the last state.
    arrived: usize,
    /// How many actions were acknowledged, in `tallyroom.v1`.
    accepted: usize,
    last_state_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Clients come in.
    Gathering,
    Running(Start),
    /// The last client has seen the last state. What still comes is for stalled ones, or wrong.
    Over(Start, Duration),
}

/// Where the room was when the run began.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Start {
    at: Instant,
    state: State,
}

impl Course {
    pub fn new(plan: Plan) -> Self {
        let clients = vec![Seen::default(); plan.clients()];
        let writers = (0..plan.writers)
            .map(|_| Writer::new(plan.dialect))
            .collect();
        Self {
            parts: plan.parts(),
            plan,
            clients,
            writers,
            stage: Stage::Gathering,
            told: Told::default(),
            latency: Latency::default(),
            sent_at: Vec::new(),
            allotted: 0,
            arrived: 0,
            accepted: 0,
            last_state_at: None,
        }
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What each client does.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Why it cannot begin yet.
    pub fn missing(&self) -> Option<String> {
        missing(&self.clients)
    }

    /// Begins, where all clients are.
    pub fn begin(&mut self, now: Instant) {
        let state = self.clients.first().and_then(|client| client.state);
        self.stage = Stage::Running(Start {
            at: now,
            state: state.unwrap_or_default(),
        });
    }

    /// Whether all but stalled clients have seen the last state, and each action is acknowledged where that is done.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over(..))
    }

    /// For how long no state has come.
    pub fn silence(&self, now: Instant) -> Duration {
        let last = self.last_state_at.unwrap_or(now);
        now.saturating_duration_since(last)
    }

    /// Whether there is no hope for what is missing: the room is not where it would be by our actions alone.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.told.back > 0 && !self.is_over() && self.silence(now) >= STUCK_AFTER
    }

    /// Lets go of what is due by now.
    pub fn allot(&mut self, now: Instant) {
        let Stage::Running(start) = self.stage else {
            return;
        };
        let due = self.plan.due_by(now.saturating_duration_since(start.at));
        for action in self.allotted..due {
            self.writers[action % self.plan.writers].allotted += 1;
        }
        self.allotted = self.allotted.max(due);
    }

    /// Takes a message of the server to a client.
    ///
    /// # Errors
    ///
    /// The run cannot go on.
    pub fn hear(&mut self, client: usize, now: Moment, text: &str) -> Result<(), Fault> {
        let said = Said::read(self.plan.dialect, text);
        match said.map_err(|_| Fault::strange(text, self.plan.dialect))? {
            Said::State { place, value } => {
                self.saw(client, now.monotonic, State { place, value })?
            }
            Said::Users(count) => self.clients[client].users = Some(count),
            Said::Refused(why) if self.parts[client].writer.is_some() => {
                return Err(Fault::Refused(why));
            }
            Said::Refused(why) => return Err(Fault::Told(why)),
            Said::Event(event) => self.hear_event(client, now, *event)?,
            Said::Nothing => {}
        }
        Ok(())
    }

    /// A client has lost its connection. It is no fault where the server dropped one that read nothing; then the close
    /// frame may not have got through to it.
    ///
    /// # Errors
    ///
    /// The run cannot go on.
    pub fn lose(&mut self, client: usize, why: Fault) -> Result<(), Fault> {
        let begun = self.stage != Stage::Gathering;
        match why {
            Fault::Lost(Loss::Cut(_) | Loss::Closed(TOO_SLOW))
                if begun && self.parts[client].stalled =>
            {
                self.clients[client].dropped = true;
                Ok(())
            }
            why => Err(why),
        }
    }

    /// The next message for a client to send.
    pub fn next_message(&mut self, client: usize, now: Moment) -> Option<ByteString> {
        let writer = self.parts[client].writer?;
        if let Stage::Running(start) = self.stage {
            self.begin_actions(writer, now.monotonic.saturating_duration_since(start.at));
        }
        self.writers[writer].next_message(now)
    }

    /// When a client has to be asked again for a message.
    pub fn resumes_at(&self, client: usize) -> Option<Instant> {
        self.writers[self.parts[client].writer?].resumes_at()
    }

    fn begin_actions(&mut self, writer: usize, gone: Duration) {
        let Self {
            plan,
            writers,
            sent_at,
            ..
        } = self;
        let writer = &mut writers[writer];
        let mut room = writer
            .room(plan.max_unanswered())
            .min(plan.actions - sent_at.len());
        if plan.rate.is_some() {
            room = room.min(writer.allotted);
            writer.allotted -= room;
        }
        for _ in 0..room {
            sent_at.push(plan.due(sent_at.len()).unwrap_or(gone));
            writer.begin(sent_at.len());
        }
    }

    fn hear_event(&mut self, client: usize, now: Moment, event: Event) -> Result<(), Fault> {
        if matches!(event, Event::Welcome(_))
            && std::mem::replace(&mut self.clients[client].welcomed, true)
        {
            return Err(Fault::Anew);
        }
        match (self.parts[client].writer, event) {
            (Some(writer), event) => self.accepted += self.writers[writer].hear(event, now)?,
            (None, Event::Error(fault)) => return Err(fault.into()),
            (None, _) => {}
        }
        self.end_if_done(now.monotonic);
        Ok(())
    }

    fn saw(&mut self, client: usize, now: Instant, state: State) -> Result<(), Fault> {
        self.last_state_at = Some(now);
        let before = self.clients[client].state.replace(state);
        let (Stage::Running(start) | Stage::Over(start, _)) = self.stage else {
            return Ok(());
        };
        let stalled = self.parts[client].stalled;
        if !stalled && !self.is_over() {
            self.told.events += 1;
        }
        let in_effect = state.place.saturating_sub(start.state.place);
        let seen_before = before.map_or(0, |before| before.place.saturating_sub(start.state.place));
        match Step::between(before.unwrap_or_default(), state) {
            // Who reads nothing is told the newest.
            Step::Forward(_) if stalled => {}
            step => self.told.count(step),
        }
        if in_effect > self.sent_at.len() as i64 {
            return Err(Fault::Beyond {
                seen: in_effect,
                sent: self.sent_at.len(),
            });
        }
        if self.parts[client].measured {
            self.measure(
                now.saturating_duration_since(start.at),
                seen_before,
                in_effect,
            );
        }
        if let Some(writer) = self.parts[client].writer {
            self.writers[writer].saw(in_effect);
        }
        if !stalled
            && in_effect >= self.plan.actions as i64
            && !std::mem::replace(&mut self.clients[client].arrived, true)
        {
            self.arrived += 1;
            self.end_if_done(now);
        }
        Ok(())
    }

    /// A client learns of several actions at once where states were left out.
    fn measure(&mut self, gone: Duration, before: i64, after: i64) {
        let index = |count: i64| usize::try_from(count).unwrap_or(0);
        for sent_at in self
            .sent_at
            .get(index(before)..index(after))
            .unwrap_or_default()
        {
            self.latency.record(gone.saturating_sub(*sent_at));
        }
    }

    fn end_if_done(&mut self, now: Instant) {
        let Stage::Running(start) = self.stage else {
            return;
        };
        let settled = self.plan.dialect == Dialect::Classic || self.accepted == self.plan.actions;
        if settled && self.arrived == self.plan.active() {
            self.stage = Stage::Over(start, now.saturating_duration_since(start.at));
        }
    }
}

#[cfg(test)]
mod tests;
