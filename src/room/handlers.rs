//! What the owner does when it is asked: a few lines each.

use actix::prelude::*;
use actix_web::web::Bytes;
use tokio::sync::oneshot;

use super::{
    Room,
    answers::{Asker, Queued},
    audience::Peer,
    messages::{
        Act, Gone, Import, ImportError, Join, Leave, Look, Outcome, Rest, Seen, Settle, Submit,
        WaitingImport,
    },
    shown::users_frame,
};
use crate::{
    deliver::Entered,
    entry::Position,
    framing,
    model::{Events, Model},
    outbox::{Takes, UsersFrame},
};

impl<M: Model> Handler<Join> for Room<M> {
    type Result = ();

    fn handle(&mut self, mut join: Join, ctx: &mut Self::Context) {
        let Join { from, peer, .. } = join;
        let listener = join.heard();
        let settled = match peer {
            Peer::Classic => 0,
            Peer::V1 { client, .. } => self.replica.settled().last(client),
        };
        // The others first: what is told to everybody is not for a newcomer that is told it anyway.
        let mut told = self.audience.add(from, peer, settled, listener);
        self.presence_changed(ctx);
        let (takes, welcome, state) = match peer {
            Peer::Classic => (Takes::Every, Bytes::new(), self.shown.classic()),
            Peer::V1 { .. } => {
                let welcome = framing::text(&self.welcome(peer));
                (Takes::Newest, welcome, self.shown.v1())
            }
        };
        let count = self.audience.len();
        let (users, state) = match M::EVENTS {
            Events::Json => (users_frame(count), state),
            Events::None => {
                let frame = Bytes::new();
                (UsersFrame { count, frame }, Bytes::new())
            }
        };
        let entered = Entered {
            session: from.session,
            takes,
            welcome,
            users,
            state,
            next: settled + 1,
        };
        told.add(self.audience.welcome(from, entered));
        self.told(told, ctx);
    }
}

impl<M: Model> Handler<Leave> for Room<M> {
    type Result = ();

    fn handle(&mut self, Leave(from): Leave, ctx: &mut Self::Context) {
        self.gone(from.session);
        if self.audience.leave(from) {
            self.presence_changed(ctx);
        }
    }
}

impl<M: Model> Handler<Submit<M>> for Room<M> {
    type Result = ();

    fn handle(&mut self, submit: Submit<M>, ctx: &mut Self::Context) {
        let Submit {
            from,
            actions,
            waits,
        } = submit;
        let queued = actions.into_iter().map(|(asked, bytes)| Queued {
            from: Asker::Session(from),
            bytes,
            asked,
        });
        self.queue.push(queued, waits);
        self.commit_soon(ctx);
    }
}

impl<M: Model> Handler<Act<M>> for Room<M> {
    type Result = ResponseFuture<Result<Outcome, Gone>>;

    fn handle(&mut self, act: Act<M>, ctx: &mut Self::Context) -> Self::Result {
        let Act {
            asked,
            bytes,
            waits,
        } = act;
        let (reply, outcome) = oneshot::channel();
        let queued = Queued {
            from: Asker::Request(reply),
            bytes,
            asked,
        };
        self.queue.push([queued], waits);
        self.commit_soon(ctx);
        Box::pin(async { outcome.await.map_err(|_| Gone) })
    }
}

impl<M: Model> Handler<Look> for Room<M> {
    type Result = MessageResult<Look>;

    fn handle(&mut self, _: Look, _: &mut Self::Context) -> Self::Result {
        let Position { epoch, rev, .. } = self.shown.position();
        let value = self.shown.view().to_vec();
        MessageResult((Seen { epoch, rev, value }, self.audience.len()))
    }
}

impl<M: Model> Handler<Settle> for Room<M> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Settle, ctx: &mut Self::Context) -> Self::Result {
        let (settled, wait) = oneshot::channel();
        self.settling.push(settled);
        self.settled(ctx);
        Box::pin(async {
            // An owner that died has nothing underway.
            let _ = wait.await;
        })
    }
}

impl<M: Model> Handler<Rest> for Room<M> {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Rest, ctx: &mut Self::Context) -> Self::Result {
        let (rested, wait) = oneshot::channel();
        self.resting = Some(rested);
        self.settled(ctx);
        Box::pin(async {
            // An owner that died is at rest too.
            let _ = wait.await;
        })
    }
}

impl<M: Model> Handler<Import<M>> for Room<M> {
    type Result = ResponseFuture<Result<(), ImportError>>;

    fn handle(&mut self, Import(state): Import<M>, ctx: &mut Self::Context) -> Self::Result {
        let (reply, imported) = oneshot::channel();
        self.imports.push_back(WaitingImport { state, reply });
        self.commit_soon(ctx);
        Box::pin(async {
            let died = |_| ImportError::Unknown("the room failed".to_owned());
            imported.await.map_err(died)?
        })
    }
}
