//! The recent frames of a room, kept while somebody is behind, and a session's place in them.

use std::collections::VecDeque;

use bytes::Bytes;

use super::frames::{Among, States, Takes, UsersFrame};
use crate::{ids::SessionId, limits::MAX_EVENTS_BEHIND, presence::TELL_AT_ONCE};

/// The recent frames of one room on one worker.
#[derive(Debug)]
pub struct Recent {
    /// For those who take every state.
    chunks: VecDeque<Chunk>,
    /// The number of the oldest chunk kept.
    first: u64,
    events: u64,
    bytes: usize,
    max_bytes: usize,
    newest: Bytes,
    /// For those who take the newest state, and how many there were.
    conflated: Bytes,
    conflated_version: u64,
    users: Option<UsersFrame>,
    /// Rises with every count, so that a newcomer is not told one from before it came.
    users_version: u64,
    /// How many sessions take every state.
    take_every: usize,
    /// Whoever is before this chunk fell off the end of messages that must not be left out.
    missed: u64,
}

/// What every session is told in this order, and none is left out.
#[derive(Debug)]
struct Chunk {
    frames: Bytes,
    events: u64,
    /// The count and its version, where that is what the chunk tells.
    users: Option<(usize, u64)>,
    /// For whom it is, where it is a message of the model's own.
    told: Option<Among>,
    /// How many sessions have yet to take it.
    waiting: usize,
}

/// Where a session is in what its room tells.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    session: SessionId,
    place: Place,
    /// The count that it was told last, and the version up to which it knows.
    users_told: usize,
    users_version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The next chunk, and how many bytes of it are taken.
    Every { chunk: u64, taken: u32 },
    /// The version of the newest state that it was given.
    Newest(u64),
}

/// What a session is told next.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    frames: &'a Bytes,
    /// How much of it is taken.
    taken: usize,
    /// Whether what is left of it stays where it is, to be taken later.
    lasts: bool,
}

impl<'a> Piece<'a> {
    /// What is not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.frames[self.taken..]
    }

    /// The same, shared.
    pub fn to_bytes(self) -> Bytes {
        self.frames.slice(self.taken..)
    }
}

impl Recent {
    pub fn new(max_bytes: Option<usize>) -> Self {
        Self {
            chunks: VecDeque::new(),
            first: 0,
            events: 0,
            bytes: 0,
            max_bytes: max_bytes.unwrap_or(usize::MAX),
            newest: Bytes::new(),
            conflated: Bytes::new(),
            conflated_version: 0,
            users: None,
            users_version: 0,
            take_every: 0,
            missed: 0,
        }
    }

    /// Lets a session in that was told this count: what comes from now on is for it.
    pub fn enter(&mut self, session: SessionId, takes: Takes, users_told: usize) -> Cursor {
        let place = match takes {
            Takes::Every => {
                self.take_every += 1;
                Place::Every {
                    chunk: self.end(),
                    taken: 0,
                }
            }
            Takes::Newest => Place::Newest(self.conflated_version),
        };
        Cursor {
            session,
            place,
            users_told,
            users_version: self.users_version,
        }
    }

    /// A session needs nothing any more.
    pub fn leave(&mut self, cursor: Cursor) {
        if let Place::Every { chunk, .. } = cursor.place {
            self.take_every -= 1;
            self.pass(chunk, self.end());
        }
    }

    /// Adds states for all sessions.
    pub fn push_states(&mut self, states: States) {
        if let Some(newest) = states.newest {
            self.conflated = newest;
            self.conflated_version += 1;
        }
        if let Some(states) = states.every {
            self.newest = states.newest;
            self.push(Chunk {
                frames: states.every,
                events: states.events,
                users: None,
                told: None,
                waiting: self.take_every,
            });
        }
    }

    /// Adds a count for all sessions.
    ///
    /// In a crowded room, and to those who take the newest state, only the newest count is told to
    /// those who are behind.
    pub fn push_users(&mut self, users: UsersFrame) {
        self.users_version += 1;
        if users.count <= TELL_AT_ONCE {
            self.push(Chunk {
                frames: users.frame.clone(),
                events: 1,
                users: Some((users.count, self.users_version)),
                told: None,
                waiting: self.take_every,
            });
        }
        self.users = Some(users);
    }

    /// Adds a message of the model's own, for those who take every state: the others are to be given it
    /// as their own.
    pub fn push_told(&mut self, to: Among, frame: Bytes) {
        self.push(Chunk {
            frames: frame,
            events: 1,
            users: None,
            told: Some(to),
            waiting: self.take_every,
        });
    }

    /// Whether a session fell off the end of messages that must not be left out.
    pub fn has_missed(&self, cursor: &Cursor) -> bool {
        matches!(cursor.place, Place::Every { chunk, .. } if chunk < self.missed)
    }

    /// Whether nobody is behind, so that nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether a session has yet to be told something.
    pub fn is_behind(&self, cursor: &Cursor) -> bool {
        self.next(&mut cursor.clone()).is_some()
    }

    /// What a session is told next, past which its cursor goes; nothing is taken before
    /// [`Recent::take`] is called.
    ///
    /// A session that fell off the end of the recent frames is given the newest state alone, and
    /// then the newest count. Nobody is told the same count twice in a row.
    pub fn next(&self, cursor: &mut Cursor) -> Option<Piece<'_>> {
        let piece = match cursor.place {
            Place::Every { chunk, taken } => self.next_of_every(chunk, taken, cursor),
            Place::Newest(version) => self.next_conflated(version, cursor),
        };
        piece.or_else(|| self.next_users(cursor))
    }

    fn next_of_every(&self, mut chunk: u64, taken: u32, cursor: &mut Cursor) -> Option<Piece<'_>> {
        let mut taken = taken;
        if chunk < self.first {
            (chunk, taken) = (self.end(), 0);
            cursor.place = Place::Every { chunk, taken };
            if !self.newest.is_empty() {
                return Some(whole(&self.newest));
            }
        }
        while let Some(next) = self.chunk(chunk) {
            chunk += 1;
            cursor.place = Place::Every { chunk, taken: 0 };
            let taken = std::mem::take(&mut taken);
            if let Some((count, version)) = next.users {
                cursor.users_version = version;
                if std::mem::replace(&mut cursor.users_told, count) == count {
                    continue;
                }
            }
            if let Some(to) = &next.told
                && !to.includes(cursor.session)
            {
                continue;
            }
            return Some(Piece {
                frames: &next.frames,
                taken: taken as usize,
                lasts: true,
            });
        }
        None
    }

    fn next_conflated(&self, version: u64, cursor: &mut Cursor) -> Option<Piece<'_>> {
        if version == self.conflated_version {
            return None;
        }
        cursor.place = Place::Newest(self.conflated_version);
        Some(whole(&self.conflated))
    }

    fn next_users(&self, cursor: &mut Cursor) -> Option<Piece<'_>> {
        let users = self.users_due(cursor)?;
        cursor.users_told = users.count;
        cursor.users_version = self.users_version;
        Some(whole(&users.frame))
    }

    fn users_due(&self, cursor: &Cursor) -> Option<&UsersFrame> {
        let newer = cursor.users_version < self.users_version;
        let users = self.users.as_ref().filter(|_| newer);
        users.filter(|users| users.count != cursor.users_told)
    }

    /// A session took what lay between two of its cursors.
    pub fn take(&mut self, from: &Cursor, to: &Cursor) {
        if let (Place::Every { chunk: from, .. }, Place::Every { chunk: to, .. }) =
            (from.place, to.place)
        {
            self.pass(from, to);
        }
    }

    /// One session needs none of these chunks any more.
    fn pass(&mut self, from: u64, to: u64) {
        let index = |chunk: u64| chunk.saturating_sub(self.first) as usize;
        let (from, to) = (index(from), index(to));
        for chunk in self.chunks.range_mut(from..to) {
            chunk.waiting -= 1;
        }
        while self.chunks.front().is_some_and(|chunk| chunk.waiting == 0) {
            self.pop_front();
        }
    }

    /// The newest chunk is always kept, whatever its size: it is bounded by the batch.
    fn push(&mut self, chunk: Chunk) {
        if chunk.waiting == 0 {
            return;
        }
        self.events += chunk.events;
        self.bytes += chunk.frames.len();
        self.chunks.push_back(chunk);
        while let Some(oldest) = self.chunks.front()
            && self.chunks.len() > 1
        {
            let events_after = self.events - oldest.events;
            if events_after < MAX_EVENTS_BEHIND && self.bytes <= self.max_bytes {
                break;
            }
            if oldest.told.is_some() {
                self.missed = self.first + 1;
            }
            self.pop_front();
        }
    }

    fn chunk(&self, number: u64) -> Option<&Chunk> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.chunks.get(index)
    }

    fn end(&self) -> u64 {
        self.first + self.chunks.len() as u64
    }

    fn pop_front(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.first += 1;
            self.events -= chunk.events;
            self.bytes -= chunk.frames.len();
        }
    }

    /// How many bytes are kept for those who take every state.
    #[cfg(test)]
    pub fn kept(&self) -> (usize, u64) {
        (self.bytes, self.events)
    }
}

impl Cursor {
    pub fn takes_every(&self) -> bool {
        matches!(self.place, Place::Every { .. })
    }

    /// Takes a piece that it has just gone past, but for what lies behind `written` bytes of it; gives
    /// the rest of the frame that was cut there.
    ///
    /// Frames of a chunk that are whole stay where they are, so that they may be passed over; the rest
    /// of the one that is cut is not the chunk's any more, so that it keeps nothing else alive.
    pub fn cut(&mut self, piece: Piece<'_>, written: usize) -> Bytes {
        let rest = piece.rest();
        let end = frame_end(rest, written);
        if piece.taken == 0 && end == rest.len() && frame_end(rest, 1) == end {
            // The piece is one frame.
            return piece.frames.slice(written..);
        }
        let Place::Every { chunk, .. } = self.place else {
            return Bytes::copy_from_slice(&rest[written..]);
        };
        match u32::try_from(piece.taken + end) {
            Ok(taken) if piece.lasts && end < rest.len() => {
                let chunk = chunk - 1;
                self.place = Place::Every { chunk, taken };
                Bytes::copy_from_slice(&rest[written..end])
            }
            _ => Bytes::copy_from_slice(&rest[written..]),
        }
    }
}

fn whole(frames: &Bytes) -> Piece<'_> {
    Piece {
        frames,
        taken: 0,
        lasts: false,
    }
}

/// Where the frame ends, in a row of a server's frames, that the byte before `at` belongs to (RFC
/// 6455, section 5.2).
fn frame_end(frames: &[u8], at: usize) -> usize {
    let mut end = 0;
    while end < at && end < frames.len() {
        end = (end + frame_len(&frames[end..])).min(frames.len());
    }
    end
}

fn frame_len(frame: &[u8]) -> usize {
    match frame {
        [_, 126, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        [_, 127, long @ ..] => match long.first_chunk() {
            Some(long) => usize::try_from(u64::from_be_bytes(*long))
                .map_or(usize::MAX, |len| len.saturating_add(10)),
            None => frame.len(),
        },
        [_, short, ..] => 2 + usize::from(short & 0x7f),
        _ => frame.len(),
    }
}
