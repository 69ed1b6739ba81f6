//! What everybody sees of a room now, as it goes on the wire: encoded once for each dialect that
//! somebody speaks, and shared by all.

use std::cell::OnceCell;

use actix_web::web::{Bytes, BytesMut};

use crate::{
    entry::Position,
    framing,
    ids::SessionId,
    model::{Tell, To},
    outbox::{StateFrames, TellFrame, UsersFrame, Whom},
    protocol::{classic, v1},
};

/// The value at a position.
pub struct Shown {
    position: Position,
    /// As JSON.
    view: Vec<u8>,
    classic: OnceCell<Bytes>,
    v1: OnceCell<Bytes>,
}

impl Shown {
    pub fn new(position: Position, view: Vec<u8>) -> Self {
        Self {
            position,
            view,
            classic: OnceCell::new(),
            v1: OnceCell::new(),
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn view(&self) -> &[u8] {
        &self.view
    }

    /// How many bytes an event of the classic dialect has, more or less.
    pub fn classic_len(&self) -> usize {
        /// What stands around the value.
        const AROUND: usize = 32;
        self.view.len() + AROUND
    }

    /// The state event of the classic dialect.
    pub fn classic(&self) -> Bytes {
        let encode = || every_state(std::iter::once(&self.view[..])).newest;
        self.classic.get_or_init(encode).clone()
    }

    /// The state event of `tallyroom.v1`.
    pub fn v1(&self) -> Bytes {
        let encode = || {
            let Position { epoch, rev, .. } = self.position;
            let json = v1::state(epoch, rev, &self.view);
            let mut wire = BytesMut::with_capacity(json.len() + 4);
            framing::push_text(&json, &mut wire);
            wire.freeze()
        };
        self.v1.get_or_init(encode).clone()
    }
}

/// A count of sessions, the same in both dialects.
pub fn users_frame(count: usize) -> UsersFrame {
    let frame = framing::text(&classic::users(count));
    UsersFrame { count, frame }
}

/// One classic `state` event for each view, which is JSON, in order.
pub fn every_state<'a>(views: impl Iterator<Item = &'a [u8]>) -> StateFrames {
    let mut wire = BytesMut::new();
    let mut json = Vec::new();
    let mut events = 0;
    let mut last = 0;
    for view in views {
        json.clear();
        classic::state(view, &mut json);
        last = wire.len();
        framing::push_text(&json, &mut wire);
        events += 1;
    }
    let every = wire.freeze();
    StateFrames {
        // Not a slice, so that it keeps no whole batch alive.
        newest: Bytes::copy_from_slice(&every[last..]),
        every,
        events,
    }
}

/// A message of the model's own, which that session asked for; `None` where it is for nobody here.
pub fn tell_frame((asker, tell): &(Option<SessionId>, Tell)) -> Option<TellFrame> {
    let to = match &tell.to {
        To::Everyone => Whom::Everyone,
        To::Sender => Whom::Only((*asker)?),
        To::Others => asker.map_or(Whom::Everyone, Whom::AllBut),
        To::Named(name) => Whom::Named(name.clone()),
        To::AllBut(name) => Whom::NotNamed(name.clone()),
    };
    let frame = framing::message(&tell.message);
    Some(TellFrame { to, frame })
}
