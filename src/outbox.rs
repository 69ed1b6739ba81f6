//! A session's place in its room's recent frames, and its own answers.
//!
//! The frames of a room are kept once per worker, in [`Recent`], and only while a session there is
//! behind. An [`Outbox`] is a place in them, so that a slow session costs a few bytes. Who falls
//! off the end goes on with the newest state. Nothing here waits, and everything is bounded.

mod frames;
mod recent;

use std::{collections::VecDeque, iter};

use bytes::{Buf, Bytes};

use self::recent::{Cursor, Piece};
pub use self::{
    frames::{Among, StateFrames, States, Takes, TellFrame, UsersFrame, Whom},
    recent::Recent,
};

use crate::ids::SessionId;

/// What a frame for one session alone takes beside its bytes: its place and its allocations.
const OWN_FRAME_BYTES: usize = 96;

/// What one session has yet to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    own: VecDeque<Bytes>,
    own_bytes: usize,
    /// The first of its own is the rest of a frame whose beginning is written: nothing comes before it.
    is_cut: bool,
    /// Where it is in what the room tells; `None` while it is not in.
    cursor: Option<Cursor>,
}

impl Outbox {
    /// Lets the session into the room: `users` and `state` first, which may be empty, then what comes
    /// after them.
    pub fn enter(
        &mut self,
        recent: &mut Recent,
        session: SessionId,
        takes: Takes,
        users: UsersFrame,
        state: Bytes,
    ) {
        for frame in [users.frame, state] {
            if !frame.is_empty() {
                self.push_own(frame);
            }
        }
        self.cursor = Some(recent.enter(session, takes, users.count));
    }

    /// Whether it is in a room and takes all that is told there.
    pub fn takes_every(&self) -> bool {
        self.cursor.as_ref().is_some_and(Cursor::takes_every)
    }

    /// Whether it fell off the end of messages that must not be left out.
    pub fn has_missed(&self, recent: &Recent) -> bool {
        let cursor = self.cursor.as_ref();
        cursor.is_some_and(|cursor| recent.has_missed(cursor))
    }

    /// Takes the session out of the room: nothing more of the room is for it.
    pub fn leave(&mut self, recent: &mut Recent) {
        if let Some(cursor) = self.cursor.take() {
            recent.leave(cursor);
        }
    }

    /// Adds frames for this session alone.
    pub fn push_own(&mut self, frame: Bytes) {
        self.own_bytes += frame.len() + OWN_FRAME_BYTES;
        self.own.push_back(frame);
    }

    /// Throws its own frames away, but for one that is cut.
    pub fn clear_own(&mut self) {
        let cut = self.pop_own().filter(|_| self.is_cut);
        self.own = VecDeque::new();
        self.own_bytes = 0;
        cut.into_iter().for_each(|cut| self.push_own(cut));
    }

    /// Bytes of frames for this session alone, and what it takes to keep them.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Whether something waits, of its own or of the room that it is in.
    pub fn is_behind(&self, recent: Option<&Recent>) -> bool {
        let in_room = self.cursor.as_ref().zip(recent);
        let behind = in_room.is_some_and(|(cursor, recent)| recent.is_behind(cursor));
        behind || !self.own.is_empty()
    }

    /// Takes the next frames: its own, then what the room tells everybody, in order.
    pub fn next(&mut self, recent: Option<&mut Recent>) -> Option<Bytes> {
        if let Some(frame) = self.pop_own() {
            return Some(frame);
        }
        let (cursor, recent) = self.cursor.as_mut().zip(recent)?;
        let before = *cursor;
        let frames = recent.next(cursor).map(Piece::to_bytes);
        recent.take(&before, cursor);
        frames
    }

    /// What [`Outbox::next`] would give, piece by piece; nothing is taken.
    pub fn upcoming<'a>(
        &'a self,
        recent: Option<&'a Recent>,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let mut in_room = self.cursor.zip(recent);
        let of_room = iter::from_fn(move || {
            let (cursor, recent) = in_room.as_mut()?;
            recent.next(cursor).map(|piece| piece.rest())
        });
        self.own.iter().map(|frame| &frame[..]).chain(of_room)
    }

    /// So many bytes of what is upcoming are written; 0 where nothing is.
    ///
    /// A frame that is cut by that is finished before anything else; what comes behind it may still be
    /// conflated.
    pub fn wrote(&mut self, recent: Option<&mut Recent>, mut bytes: usize) {
        while bytes > 0
            && let Some(mut frame) = self.pop_own()
        {
            let of_frame = bytes.min(frame.len());
            bytes -= of_frame;
            frame.advance(of_frame);
            self.is_cut = !frame.is_empty();
            if self.is_cut {
                self.own_bytes += frame.len() + OWN_FRAME_BYTES;
                self.own.push_front(frame);
            }
        }
        let cut = self.wrote_of_room(recent, bytes);
        if !cut.is_empty() {
            self.push_own(cut);
            self.is_cut = true;
        }
    }

    /// The same of what the room tells; gives the rest of the frame that is cut.
    fn wrote_of_room(&mut self, recent: Option<&mut Recent>, mut bytes: usize) -> Bytes {
        let mut cut = Bytes::new();
        let Some((cursor, recent)) = self.cursor.as_mut().zip(recent) else {
            return cut;
        };
        let before = *cursor;
        loop {
            let mut after = *cursor;
            match recent.next(&mut after) {
                // What need not be told is passed over, too.
                None => {
                    *cursor = after;
                    break;
                }
                Some(_) if bytes == 0 => break,
                Some(piece) => {
                    let len = piece.rest().len();
                    if bytes < len {
                        cut = after.cut(piece, bytes);
                    }
                    *cursor = after;
                    bytes = bytes.saturating_sub(len);
                }
            }
        }
        recent.take(&before, cursor);
        cut
    }

    fn pop_own(&mut self) -> Option<Bytes> {
        let frame = self.own.pop_front()?;
        self.own_bytes -= frame.len() + OWN_FRAME_BYTES;
        if self.own.is_empty() {
            // A session that has nothing to be told keeps no place for it.
            self.own = VecDeque::new();
        }
        Some(frame)
    }
}

#[cfg(test)]
#[path = "outbox/tests.rs"]
mod tests;
