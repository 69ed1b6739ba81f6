//! What a session asks of its model's own code, and what it does with the answers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use actix::prelude::*;
use actix_ws::CloseCode;

use super::{Phase, Session, dialogue};
use crate::{
    framing,
    limits::MAX_OWN_BYTES,
    model::{Beat, Events, Message, Model, Received, Reply, Who},
    rejection::Rejection,
    rooms::leases::Leases,
};

/// Beats of a session are at least so far apart.
const SHORTEST_BEAT: Duration = Duration::from_millis(1);

impl<M: Model> Session<M> {
    /// Takes a message in that the model reads in its own way.
    pub(super) fn hear_message(&mut self, message: Message, now: Instant) {
        self.dialogue.count(now);
        let bytes = message.len();
        let received = self.ask(|model, who| model.receive(message, who));
        self.obey(received, bytes);
    }

    /// Asks the model's code, whose panic is `internal`.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&M, Who<'_>) -> T) -> Result<T, Rejection> {
        let who = Who {
            client: self.dialogue.peer().client(),
            name: self.link.name(),
        };
        let leases = self.worker.kept::<Leases<M>>();
        let leases = leases.ok_or_else(Rejection::internal)?;
        // It changes nothing of its own, so there is nothing that a panic could leave half done.
        let asked = catch_unwind(AssertUnwindSafe(|| ask(leases.model(), who)));
        asked.map_err(|_| {
            let (room, model) = (self.room(), M::NAME);
            log::error!("{room}: the model {model:?} failed on a session");
            Rejection::internal()
        })
    }

    pub(super) fn obey(&mut self, received: Result<Received<M::Action>, Rejection>, bytes: usize) {
        match received {
            Ok(Received::Act(action)) => self.push_read(dialogue::asked(action), bytes),
            Ok(Received::Reply(reply)) => self.reply(reply),
            Ok(Received::Refuse(why)) if M::EVENTS == Events::Json => self.tell(&why),
            Ok(Received::Refuse(why)) => {
                log::debug!("{}: a message is refused: {why}", self.room())
            }
            Err(why) if M::EVENTS == Events::Json => self.tell(&why),
            Err(_) => self.close(CloseCode::Error),
        }
    }

    fn reply(&mut self, Reply { messages, close }: Reply) {
        for message in messages {
            self.link.push(framing::message(&message));
        }
        if let Some(code) = close {
            self.close(code.into());
        }
    }

    /// Tells what comes by the clock, now and again after each wait.
    pub(super) fn beat(&mut self, ctx: &mut Context<Self>) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let micros = since_epoch.unwrap_or_default().as_micros();
        let beat = Beat {
            micros: u64::try_from(micros).unwrap_or(u64::MAX),
            random: fastrand::u64(..),
        };
        let Ok(Some((reply, wait))) = self.ask(|model, who| model.beat(who, beat)) else {
            return;
        };
        // Whoever takes nothing is told no more.
        if self.link.own_bytes() < MAX_OWN_BYTES {
            self.reply(reply);
            self.link.flush(self.worker.tick(Instant::now()));
        }
        let wait = wait.max(SHORTEST_BEAT);
        ctx.run_later(wait, |session, ctx| {
            if session.phase == Phase::Live {
                session.beat(ctx);
            }
        });
    }
}
