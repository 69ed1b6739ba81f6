//! What a room tells everybody, as it goes on the wire: encoded once, shared by all.

use actix_web::web::{Bytes, BytesMut};

use crate::{
    framing,
    outbox::{StateFrames, UsersFrame},
    protocol::classic,
};

/// A count of sessions.
pub fn users_frame(count: usize) -> UsersFrame {
    let frame = framing::text(&classic::users(count));
    UsersFrame { count, frame }
}

/// One `state` event for each view, which is JSON, in order.
pub fn state_frames<'a>(views: impl Iterator<Item = &'a [u8]>) -> StateFrames {
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
