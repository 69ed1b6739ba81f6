//! Where a model meets its clients: what they send before it is an action, and what they alone are told.
//!
//! All of it runs on the thread of the session and never in the room: it has no order, reaches no other
//! node and is not kept.

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    ids::{ClientId, Name, RoomName},
    rejection::Rejection,
};

/// A WebSocket message, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Text(ByteString),
    Binary(Bytes),
}

impl Message {
    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Message {
    /// Its text.
    ///
    /// # Errors
    ///
    /// `text_only`, where it is binary.
    pub fn into_text(self) -> Result<String, Rejection> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::Binary(_) => Err(Rejection::new("text_only", "send text, not binary")),
        }
    }
}

impl From<ByteString> for Message {
    fn from(text: ByteString) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// Where a handshake's URL leads: to a room, perhaps under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub room: RoomName,
    pub name: Option<Name>,
}

impl Seat {
    /// The rooms as the server has them: `/` is room `main`, `/r/NAME` any other.
    pub fn room(path: &str) -> Option<Self> {
        let room = match path {
            "/" => RoomName::main(),
            path => path.strip_prefix("/r/")?.parse().ok()?,
        };
        Some(room.into())
    }

    /// The room that a text stands for, whichever characters it has: that of the same name where it is one,
    /// else one of its own. `None` where it is empty or longer than any that somebody would choose.
    pub fn named_like(text: &str) -> Option<Self> {
        /// The namespace of the texts' UUIDs (RFC 9562, section 5.5).
        const TEXTS: Uuid = Uuid::from_u128(0x0b5e_2f0d_94c1_4d57_8a6a_5d0c_6a2f_31c7);
        const MAX_LEN: usize = 1024;
        let lawful = text.parse::<RoomName>();
        let made = || Uuid::new_v5(&TEXTS, text.as_bytes()).simple().to_string();
        match lawful {
            Ok(room) => Some(room.into()),
            Err(_) if (1..=MAX_LEN).contains(&text.len()) => {
                Some(made().parse::<RoomName>().ok()?.into())
            }
            Err(_) => None,
        }
    }

    /// Room `main`, under each of some paths.
    pub fn main_at(path: &str, paths: &[&str]) -> Option<Self> {
        paths.contains(&path).then(|| RoomName::main().into())
    }
}

impl From<RoomName> for Seat {
    fn from(room: RoomName) -> Self {
        Self { room, name: None }
    }
}

/// The action of a model that has none: all of it is replies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Never {}

/// Whose session it is.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// `None` where the client did not say who it is.
    pub client: Option<ClientId>,
    /// As [`Model::seat`](super::Model::seat) gave it.
    pub name: Option<&'a Name>,
}

/// What a session makes of something.
#[derive(Clone, Debug)]
pub enum Received<A> {
    /// The room is asked for it: others hear what it does.
    Act(A),
    /// The sender alone hears something, or nobody.
    Reply(Reply),
    /// It is wrong. Where the model's events are JSON the sender is told so.
    Refuse(Rejection),
}

impl<A> Received<A> {
    /// Nothing comes of it.
    pub fn nothing() -> Self {
        Self::Reply(Reply::default())
    }

    /// The sender alone is told that.
    pub fn reply(message: impl Into<Message>) -> Self {
        Self::Reply(Reply::of(message))
    }
}

impl<A> From<Result<A, Rejection>> for Received<A> {
    fn from(asked: Result<A, Rejection>) -> Self {
        match asked {
            Ok(action) => Self::Act(action),
            Err(why) => Self::Refuse(why),
        }
    }
}

/// What one session alone is told, and whether it is closed then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub messages: Vec<Message>,
    /// With this code (RFC 6455, section 7.4), such as 1000.
    pub close: Option<u16>,
}

impl Reply {
    /// One message.
    pub fn of(message: impl Into<Message>) -> Self {
        Self {
            messages: vec![message.into()],
            close: None,
        }
    }

    /// No message, and the session is closed.
    pub fn close(code: u16) -> Self {
        Self::default().and_close(code)
    }

    /// After the messages the session is closed.
    #[must_use]
    pub fn and_close(self, code: u16) -> Self {
        Self {
            close: Some(code),
            ..self
        }
    }
}

/// What a model may know at a beat, and what it may draw lots by.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// The time, in microseconds since the Unix epoch.
    pub micros: u64,
    /// Another number at each beat of each session, equally distributed.
    pub random: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_names_a_room_and_the_same_one_each_time() {
        let room = |text: &str| Seat::named_like(text).map(|seat| seat.room.to_string());
        assert_eq!(room("door-1"), Some("door-1".to_owned()));
        assert!(room("客厅").is_some_and(|name| name.len() == 32));
        assert_eq!(room("客厅"), room("客厅"));
        assert_ne!(room("客厅"), room("厨房"));
        assert_eq!(room(&"x".repeat(65)).map(|name| name.len()), Some(32));
        assert_eq!((room(""), room(&"x".repeat(1025))), (None, None));
    }
}
