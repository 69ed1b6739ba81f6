//! Every limit by its name, its unit and its default, and what happens past it.
//!
//! `None` means that a limit is switched off. Flags and variables are read in `config`.

use std::time::Duration;

/// How many events a session that gets every state may be behind before it gets only the newest.
pub const MAX_EVENTS_BEHIND: u64 = 4096;

/// How many actions of one session may be on their way through the room before the session stops
/// reading its socket.
pub const MAX_ACTIONS_UNDERWAY: usize = 1024;

/// How many bytes of messages of one session may be on their way through the room.
pub const MAX_BYTES_UNDERWAY: usize = 64 * 1024;

/// How many actions may wait in all rooms for their batches, and how many bytes of messages asked
/// for them; past it sessions stop reading their sockets, and a request is `overloaded`.
pub const MAX_WAITING_ACTIONS: usize = 256 * 1024;
pub const MAX_WAITING_BYTES: usize = 128 * 1024 * 1024;

/// How many bytes of answers for one session alone may wait before it stops reading its socket.
pub const MAX_OWN_BYTES: usize = 64 * 1024;

/// How many bytes of a model's own messages may wait for one session that takes only the newest state;
/// past it, it closes with 1013.
pub const MAX_TOLD_BYTES: usize = 1024 * 1024;

/// How many actions one batch holds at most.
pub const MAX_BATCH_ACTIONS: usize = 4096;

/// How many of its numbers a client may have unsettled, and among how many of its last ones a room
/// remembers what it refused.
pub const WINDOW: u64 = 1024;

/// How many bytes of refusals one room remembers; past it those go whose client may be forgotten, and
/// where there are none, what would be refused is not taken but `overloaded`.
pub const MAX_REFUSED_BYTES: usize = 16 * 1024 * 1024;

/// How many bytes of a value are remembered with the number that made it.
pub const MAX_MADE_BYTES: usize = 1024;

/// How long a client is remembered after its last action, by the journal's time.
pub const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long it is remembered at least, however many others there are; and a key of HTTP.
pub const REMEMBER_AT_LEAST: Duration = Duration::from_secs(3600);
pub const REMEMBER_KEY_AT_LEAST: Duration = Duration::from_secs(24 * 3600);

/// How many bytes an import may have: it is read whole before it changes anything.
pub const MAX_IMPORT_BYTES: usize = 64 * 1024 * 1024;

/// How many journals and exports one worker tells at a time; past it `overloaded`.
pub const MAX_READINGS: usize = 64;

/// How long a session that may not submit more leaves its socket unread; after that it reads on
/// and answers each further action with `overloaded`.
pub const MAX_READ_PAUSE: Duration = Duration::from_secs(5);

/// How long a closing handshake may take before the connection is cut.
pub const MAX_CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How many bytes are read and thrown away after a breach, so that a client that was still sending
/// gets to read why it is closed.
pub const MAX_DISCARDED: usize = 256 * 1024;

/// How long a stopping server waits for the actions underway, and then for each session to take what
/// is its own. With [`MAX_GOODBYE`] it stays within the 10 s that a stop may take.
pub const MAX_SETTLE: Duration = Duration::from_secs(3);
pub const MAX_FLUSH: Duration = Duration::from_secs(1);

/// How long it waits for all sessions to end once they are told to: for what each of them may take, and
/// for the sweeps that tell the time.
pub const MAX_GOODBYE: Duration = Duration::from_millis(4_200);

/// The limits that whoever runs a server may set.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one message from a client; past it the session closes with 1009.
    pub max_message_bytes: Option<usize>,
    /// Bytes of a room's state as JSON; an action that would pass it is refused with `too_large`.
    pub max_state_bytes: Option<usize>,
    /// Clients of a room whose numbers are remembered; past it the oldest goes whose time has come,
    /// and where there is none, a new one is `overloaded`. Switched off, refusals are unbounded, too.
    pub max_clients_per_room: Option<usize>,
    /// Sessions in all; past it a handshake is answered with 503.
    pub max_connections: Option<usize>,
    /// How long a request's head may take; past it the connection is cut.
    pub handshake_timeout: Option<Duration>,
    /// How long a request's body may take; past it the connection is cut.
    pub body_timeout: Option<Duration>,
    /// Actions a second of one session, with a burst of as many; past it `rate_limited`.
    pub session_rate: Option<u32>,
    /// Rooms in memory; past it `overloaded`.
    pub max_rooms: Option<usize>,
    /// Bytes of recent frames of one room kept on one worker for sessions that are behind; a
    /// session that is further behind gets only the newest state.
    pub backlog_bytes: Option<usize>,
    /// How long a session may take nothing of what waits for it; past it, it closes with 1013.
    pub slow_timeout: Option<Duration>,
    /// A ping after this much silence of a client; gone after as much again.
    pub heartbeat: Option<Duration>,
    /// How long a room stays in memory after the last session left it.
    pub room_idle: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: Some(64 * 1024),
            max_state_bytes: Some(1024 * 1024),
            max_clients_per_room: Some(1_000_000),
            max_connections: None,
            handshake_timeout: Some(Duration::from_secs(10)),
            body_timeout: Some(Duration::from_secs(30)),
            session_rate: Some(10_000),
            max_rooms: Some(100_000),
            backlog_bytes: Some(256 * 1024),
            slow_timeout: Some(Duration::from_secs(30)),
            heartbeat: Some(Duration::from_secs(20)),
            room_idle: Some(Duration::from_secs(60)),
        }
    }
}
