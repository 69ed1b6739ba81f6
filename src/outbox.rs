//! A session's place in its room's recent frames, and its own answers.
//!
//! The frames of a room are kept once per worker, in [`Recent`], and only while a session there is
//! behind. An [`Outbox`] is a place in them, so that a slow session costs a few bytes. Who falls
//! off the end goes on with the newest state. Nothing here waits, and everything is bounded.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{limits::MAX_EVENTS_BEHIND, presence::TELL_AT_ONCE};

/// What a frame for one session alone takes beside its bytes: its place and its allocations.
const OWN_FRAME_BYTES: usize = 96;

/// Which states a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Each of them, in order, until it falls too far behind.
    Every,
    /// The newest: one that it has not been sent yet is replaced by the next.
    Newest,
}

/// What one batch has for everybody: its `state` events as they go on the wire, for those who take
/// every one and for those who take the newest; `None` where there is nobody of the kind.
#[derive(Clone, Debug, Default)]
pub struct States {
    pub every: Option<StateFrames>,
    pub newest: Option<Bytes>,
}

impl States {
    /// Goes on with a later batch's.
    pub fn append(&mut self, later: States, max_bytes: usize) {
        self.newest = later.newest.or(self.newest.take());
        match (&mut self.every, later.every) {
            (Some(every), Some(later)) => every.append(later, max_bytes),
            (every, Some(later)) => *every = Some(later),
            (_, None) => {}
        }
    }
}

/// The `state` events of one batch, for those who take every one.
#[derive(Clone, Debug)]
pub struct StateFrames {
    /// All of them, oldest first.
    pub every: Bytes,
    /// The last of them alone.
    pub newest: Bytes,
    /// How many there are in `every`.
    pub events: u64,
}

impl StateFrames {
    /// Goes on with a later batch's; past the limits of [`Recent`] only the newest is kept.
    pub fn append(&mut self, later: StateFrames, max_bytes: usize) {
        let bytes = self.every.len() + later.every.len();
        if self.events + later.events > MAX_EVENTS_BEHIND || bytes > max_bytes {
            *self = later;
        } else {
            self.every = [&self.every[..], &later.every[..]].concat().into();
            self.newest = later.newest;
            self.events += later.events;
        }
    }
}

/// How many sessions there are, as it goes on the wire.
#[derive(Clone, Debug)]
pub struct UsersFrame {
    pub count: usize,
    pub frame: Bytes,
}

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
}

/// What every session is told in this order, and none is left out.
#[derive(Debug)]
struct Chunk {
    frames: Bytes,
    events: u64,
    /// The count and its version, where that is what the chunk tells.
    users: Option<(usize, u64)>,
    /// How many sessions have yet to take it.
    waiting: usize,
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
                waiting: self.take_every,
            });
        }
        self.users = Some(users);
    }

    /// Whether nobody is behind, so that nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
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
            self.pop_front();
        }
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

    /// One session needs none of the chunks from `place` on.
    fn pass(&mut self, place: u64) {
        let from = place.saturating_sub(self.first) as usize;
        for chunk in self.chunks.iter_mut().skip(from) {
            chunk.waiting -= 1;
        }
        self.drop_taken();
    }

    /// One session takes the chunk at `place`.
    fn take(&mut self, place: u64) -> Option<(Bytes, Option<(usize, u64)>)> {
        let index = usize::try_from(place.checked_sub(self.first)?).ok()?;
        let chunk = self.chunks.get_mut(index)?;
        chunk.waiting -= 1;
        let taken = (chunk.frames.clone(), chunk.users);
        self.drop_taken();
        Some(taken)
    }

    fn drop_taken(&mut self) {
        while self.chunks.front().is_some_and(|chunk| chunk.waiting == 0) {
            self.pop_front();
        }
    }
}

/// What one session has yet to be sent.
#[derive(Debug, Default)]
pub struct Outbox {
    own: VecDeque<Bytes>,
    own_bytes: usize,
    /// Where it is in what the room tells; `None` while it is not in.
    place: Option<Place>,
    users_told: Option<usize>,
    users_version: u64,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// The next chunk.
    Every(u64),
    /// The version of the newest state that it was given.
    Newest(u64),
}

impl Outbox {
    /// Lets the session into the room: `users` and `state` first, then what comes after them.
    pub fn enter(&mut self, recent: &mut Recent, takes: Takes, users: UsersFrame, state: Bytes) {
        self.users_told = Some(users.count);
        self.users_version = recent.users_version;
        self.push_own(users.frame);
        self.push_own(state);
        self.place = Some(match takes {
            Takes::Every => {
                recent.take_every += 1;
                Place::Every(recent.end())
            }
            Takes::Newest => Place::Newest(recent.conflated_version),
        });
    }

    /// Takes the session out of the room: nothing more of the room is for it.
    pub fn leave(&mut self, recent: &mut Recent) {
        if let Some(Place::Every(place)) = self.place.take() {
            recent.take_every -= 1;
            recent.pass(place);
        }
    }

    /// Adds frames for this session alone.
    pub fn push_own(&mut self, frame: Bytes) {
        self.own_bytes += frame.len() + OWN_FRAME_BYTES;
        self.own.push_back(frame);
    }

    /// Throws its own frames away.
    pub fn clear_own(&mut self) {
        self.own.clear();
        self.own_bytes = 0;
    }

    /// Bytes of frames for this session alone, and what it takes to keep them.
    pub fn own_bytes(&self) -> usize {
        self.own_bytes
    }

    /// Whether [`Outbox::next`] may give something.
    pub fn is_behind(&self, recent: &Recent) -> bool {
        let behind = match self.place {
            None => false,
            Some(Place::Every(place)) => place < recent.end(),
            Some(Place::Newest(version)) => version < recent.conflated_version,
        };
        !self.own.is_empty() || behind || self.users_due(recent)
    }

    /// Takes the next frames: its own, then what the room tells everybody, in order.
    ///
    /// A session that fell off the end of the recent frames is given the newest state alone, and
    /// then the newest count. Nobody is told the same count twice in a row.
    pub fn next(&mut self, recent: &mut Recent) -> Option<Bytes> {
        if let Some(frame) = self.next_own() {
            return Some(frame);
        }
        let frames = match self.place? {
            Place::Every(place) => self.next_of_every(place, recent),
            Place::Newest(version) => self.next_conflated(version, recent),
        };
        frames.or_else(|| self.next_users(recent))
    }

    fn next_of_every(&mut self, mut place: u64, recent: &mut Recent) -> Option<Bytes> {
        if place < recent.first {
            recent.pass(place);
            place = recent.end();
            self.place = Some(Place::Every(place));
            if !recent.newest.is_empty() {
                return Some(recent.newest.clone());
            }
        }
        while let Some((frames, users)) = recent.take(place) {
            place += 1;
            self.place = Some(Place::Every(place));
            match users {
                Some((count, version)) => {
                    self.users_version = version;
                    if self.users_told.replace(count) != Some(count) {
                        return Some(frames);
                    }
                }
                None => return Some(frames),
            }
        }
        None
    }

    fn next_conflated(&mut self, version: u64, recent: &Recent) -> Option<Bytes> {
        if version == recent.conflated_version {
            return None;
        }
        self.place = Some(Place::Newest(recent.conflated_version));
        Some(recent.conflated.clone())
    }

    /// Takes the next of its own frames.
    pub fn next_own(&mut self) -> Option<Bytes> {
        let frame = self.own.pop_front()?;
        self.own_bytes -= frame.len() + OWN_FRAME_BYTES;
        Some(frame)
    }

    fn next_users(&mut self, recent: &Recent) -> Option<Bytes> {
        if !self.users_due(recent) {
            return None;
        }
        let users = recent.users.as_ref()?;
        self.users_told = Some(users.count);
        self.users_version = recent.users_version;
        Some(users.frame.clone())
    }

    fn users_due(&self, recent: &Recent) -> bool {
        let other = |users: &UsersFrame| self.users_told != Some(users.count);
        let newer = self.users_version < recent.users_version;
        self.place.is_some() && newer && recent.users.as_ref().is_some_and(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states(numbers: std::ops::Range<u32>) -> StateFrames {
        let every: Vec<u8> = numbers.clone().flat_map(u32::to_be_bytes).collect();
        StateFrames {
            newest: Bytes::copy_from_slice(&every[every.len() - 4..]),
            every: every.into(),
            events: u64::from(numbers.end - numbers.start),
        }
    }

    /// As one batch has them for all kinds of sessions.
    fn all(every: StateFrames) -> States {
        States {
            newest: Some(every.newest.clone()),
            every: Some(every),
        }
    }

    fn users(count: usize) -> UsersFrame {
        let frame = format!("users {count}").into();
        UsersFrame { count, frame }
    }

    fn enter(recent: &mut Recent) -> Outbox {
        enter_as(Takes::Every, recent)
    }

    fn enter_as(takes: Takes, recent: &mut Recent) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.enter(recent, takes, users(0), Bytes::new());
        outbox.clear_own();
        outbox
    }

    fn drain(outbox: &mut Outbox, recent: &mut Recent) -> Vec<u32> {
        let mut numbers = Vec::new();
        while let Some(frames) = outbox.next(recent) {
            if frames.starts_with(b"users") {
                continue;
            }
            let words = frames.chunks_exact(4);
            numbers.extend(words.map(|word| u32::from_be_bytes(word.try_into().unwrap())));
        }
        numbers
    }

    #[test]
    fn a_newcomer_gets_users_and_then_the_state_and_no_count_twice() {
        let mut recent = Recent::new(None);
        recent.push_users(users(1));
        let mut outbox = Outbox::default();
        assert!(outbox.next(&mut recent).is_none(), "it is not let in yet");
        outbox.enter(&mut recent, Takes::Every, users(2), "state".into());
        assert!(!outbox.users_due(&recent), "the count from before it came");
        recent.push_users(users(2));
        assert_eq!(outbox.next(&mut recent).unwrap(), "users 2");
        assert_eq!(outbox.next(&mut recent).unwrap(), "state");
        assert!(outbox.next(&mut recent).is_none());
        assert!(!outbox.is_behind(&recent));
    }

    #[test]
    fn tiny_frames_of_its_own_count_with_what_it_takes_to_keep_them() {
        let mut outbox = Outbox::default();
        for _ in 0..1000 {
            outbox.push_own(Bytes::from_static(b"\x8a\0"));
        }
        assert!(outbox.own_bytes() > 50_000, "{}", outbox.own_bytes());
        while outbox.next_own().is_some() {}
        assert_eq!(outbox.own_bytes(), 0);
    }

    #[test]
    fn every_count_of_a_small_room_is_told_and_of_a_crowded_one_the_newest() {
        let mut recent = Recent::new(None);
        let mut outbox = enter(&mut recent);
        for count in [2, 1, TELL_AT_ONCE] {
            recent.push_users(users(count));
        }
        let mut told = || outbox.next(&mut recent);
        assert_eq!(told().unwrap(), "users 2");
        assert_eq!(told().unwrap(), "users 1");
        assert_eq!(told().unwrap(), "users 50");
        assert_eq!(told(), None);
        for count in [51, 52, 51] {
            recent.push_users(users(count));
        }
        assert_eq!(outbox.next(&mut recent).unwrap(), "users 51");
        assert_eq!(outbox.next(&mut recent), None);
        recent.push_users(users(52));
        recent.push_users(users(51));
        assert_eq!(outbox.next(&mut recent), None, "it was told that last");
    }

    #[test]
    fn who_fell_off_the_end_is_told_the_newest_state_and_then_the_newest_count() {
        let mut recent = Recent::new(Some(40));
        let mut outbox = enter(&mut recent);
        recent.push_users(users(3));
        recent.push_states(all(states(0..20)));
        assert_eq!(outbox.next(&mut recent).unwrap(), states(19..20).every);
        assert_eq!(outbox.next(&mut recent).unwrap(), "users 3");
        assert_eq!(outbox.next(&mut recent), None);
        assert!(recent.is_empty());
    }

    #[test]
    fn who_keeps_up_gets_every_state_and_nothing_stays_behind() {
        let mut recent = Recent::new(Some(64));
        let mut outboxes = [enter(&mut recent), enter(&mut recent)];
        for number in 0..100 {
            recent.push_states(all(states(number..number + 1)));
            for outbox in &mut outboxes {
                assert_eq!(drain(outbox, &mut recent), [number]);
            }
            assert!(recent.is_empty());
        }
    }

    #[test]
    fn who_takes_the_newest_state_is_told_it_once_and_costs_nothing_meanwhile() {
        let mut recent = Recent::new(None);
        let mut outbox = enter_as(Takes::Newest, &mut recent);
        assert!(!outbox.is_behind(&recent));
        for number in 0..10_000 {
            recent.push_states(all(states(number..number + 1)));
        }
        recent.push_users(users(2));
        recent.push_users(users(3));
        assert!(recent.is_empty() && outbox.is_behind(&recent));
        assert_eq!(
            outbox.next(&mut recent).unwrap(),
            states(9999..10_000).every
        );
        assert_eq!(outbox.next(&mut recent).unwrap(), "users 3");
        assert_eq!(outbox.next(&mut recent), None);
        let mut newcomer = enter_as(Takes::Newest, &mut recent);
        assert_eq!(newcomer.next(&mut recent), None, "from before it came");
    }

    #[test]
    fn who_is_4096_events_behind_gets_them_all_and_who_is_further_only_the_newest() {
        let mut recent = Recent::new(None);
        let (mut slow, mut slower) = (enter(&mut recent), enter(&mut recent));
        recent.push_states(all(states(0..1)));
        assert_eq!(slow.next(&mut recent).unwrap().len(), 4);
        for number in 1..=4096 {
            recent.push_states(all(states(number..number + 1)));
        }
        assert_eq!(drain(&mut slower, &mut recent), [4096]);
        assert_eq!(
            drain(&mut slow, &mut recent),
            (1..=4096).collect::<Vec<_>>()
        );
        assert!(recent.is_empty());
    }

    #[test]
    fn the_backlog_is_bounded_in_bytes_and_the_newest_chunk_is_always_kept() {
        let mut recent = Recent::new(Some(100));
        let mut outbox = enter(&mut recent);
        recent.push_states(all(states(0..1000)));
        assert_eq!(drain(&mut outbox, &mut recent).len(), 1000);
        for number in 0..1000 {
            recent.push_states(all(states(number..number + 1)));
            assert!(recent.bytes <= 100);
        }
        assert_eq!(drain(&mut outbox, &mut recent), [999]);
    }

    #[test]
    fn merged_frames_keep_every_state_or_the_newest() {
        let mut merged = states(0..2);
        merged.append(states(2..4), 16);
        assert_eq!((merged.events, merged.every.len()), (4, 16));
        assert_eq!(merged.newest, states(3..4).every);
        merged.append(states(4..6), 16);
        assert_eq!((merged.events, merged.every.len()), (2, 8));
    }

    proptest! {
        /// Whatever happens in whatever order: states only rise, the newest always comes, nothing
        /// is kept that nobody waits for, and nobody waits for what is gone.
        #[test]
        fn any_interleaving_ends_at_the_newest_state(steps in prop::collection::vec((0..6u8, 0..4usize, 1..9u32), 1..200)) {
            let mut recent = Recent::new(Some(40));
            let mut sessions: Vec<Option<(Outbox, i64)>> = (0..4).map(|_| None).collect();
            let mut last = -1;
            for (step, who, events) in steps {
                match (step, &mut sessions[who]) {
                    (0, slot @ None) => {
                        let takes = [Takes::Every, Takes::Newest][who % 2];
                        *slot = Some((enter_as(takes, &mut recent), last));
                    }
                    (1, slot @ Some(_)) => slot.take().unwrap().0.leave(&mut recent),
                    (2 | 3, _) => {
                        let from = (last + 1) as u32;
                        recent.push_states(all(states(from..from + events)));
                        last += i64::from(events);
                    }
                    (4, _) => recent.push_users(users(45 + events as usize)),
                    (_, Some((outbox, seen))) => for number in drain(outbox, &mut recent) {
                        prop_assert!(i64::from(number) > *seen);
                        *seen = i64::from(number);
                    },
                    _ => {}
                }
            }
            for (outbox, seen) in sessions.iter_mut().flatten() {
                for number in drain(outbox, &mut recent) {
                    prop_assert!(i64::from(number) > *seen);
                    *seen = i64::from(number);
                }
                prop_assert_eq!(*seen, last);
                prop_assert!(!outbox.is_behind(&recent));
            }
            prop_assert!(recent.is_empty());
            prop_assert_eq!((recent.bytes, recent.events), (0, 0));
        }
    }
}
