//! How a room begins a new epoch with a state from elsewhere: when nothing is in flight, and durably
//! before anybody is told.

use actix::prelude::*;
use uuid::Uuid;

use super::{
    Room,
    audience::Answers,
    messages::{ImportError, WaitingImport},
    now,
};
use crate::{
    entry::{Position, Snapshot},
    ids::Epoch,
    journal::AppendError,
    model::Model,
    rejection::Rejection,
    replica::{Changes, Declined, Replica, Views},
};

impl<M: Model> Room<M> {
    /// Begins a new epoch. Nothing is in flight.
    pub(super) fn import(&mut self, waiting: WaitingImport<M>, ctx: &mut Context<Self>) {
        let WaitingImport { state, reply } = waiting;
        let start = Position::start(Epoch(Uuid::new_v4()));
        let begun = Replica::<M>::begin(start, now(), state, self.limits.clone());
        let snapshot = match begun.snapshot() {
            Ok(snapshot) => snapshot,
            Err(err) => {
                let _ = reply.send(Err(ImportError::Refused(err.to_string())));
                return self.commit_soon(ctx);
            }
        };
        self.importing = true;
        let restart = self.restart_journal(snapshot).into_actor(self);
        ctx.spawn(restart.map(move |outcome, room, ctx| {
            room.importing = false;
            let outcome = room.imported(begun, outcome, ctx);
            let _ = reply.send(outcome);
            room.commit_soon(ctx);
            room.settled(ctx);
        }));
    }

    fn restart_journal(
        &self,
        snapshot: Snapshot,
    ) -> impl Future<Output = Result<Position, AppendError>> + use<M> {
        let (journal, name) = (self.journal.clone(), self.name.clone());
        let after = self.replica.position();
        async move { journal.restart(&name, after, snapshot).await }
    }

    fn imported(
        &mut self,
        begun: Replica<M>,
        outcome: Result<Position, AppendError>,
        ctx: &mut Context<Self>,
    ) -> Result<(), ImportError> {
        match outcome {
            Ok(_) => {}
            Err(err @ AppendError::Unknown(_)) => {
                self.give_up(&err, ctx);
                return Err(ImportError::Unknown(err.to_string()));
            }
            // After the restart the new epoch may be there.
            Err(err @ AppendError::Failed(_)) => return Err(ImportError::Unknown(err.to_string())),
            Err(err) => {
                if let AppendError::Conflict { .. } = err {
                    self.give_up(&err, ctx);
                }
                return Err(ImportError::Refused(err.to_string()));
            }
        }
        match begun.view() {
            Ok(view) => {
                self.begin_epoch(begun, view, ctx);
                Ok(())
            }
            Err(why) => {
                self.give_up(&why, ctx);
                Err(ImportError::Unknown(why.to_string()))
            }
        }
    }

    /// Everybody goes on in the new epoch.
    fn begin_epoch(&mut self, begun: Replica<M>, view: Vec<u8>, ctx: &mut Context<Self>) {
        log::info!("room {}: imported; a new epoch begins", self.name);
        self.replica = begun;
        self.unsaved = 0;
        let views = Views::one(view);
        self.moved_on(&views);
        // What was numbered in the old epoch is not meant for the new one.
        for queued in self.queue.iter_mut() {
            if queued.asked.number.is_some() {
                let message = "the room began anew; its numbers start at 1 again";
                let why = Rejection::new("gap", message);
                queued.asked.action = Err(Declined::NotTaken(why));
            }
        }
        let mut answers = Answers::default();
        let sessions: Vec<_> = self.audience.clients().collect();
        for (from, peer) in sessions {
            answers.add(self.id, from.worker, self.welcome_again(from, peer));
        }
        let changes = Changes {
            views,
            tells: Vec::new(),
        };
        self.tell(answers, &changes, ctx);
    }
}
