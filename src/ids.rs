//! Names and numbers of the things a room is made of, checked once, when they are made.
//!
//! Knows nothing else of the program. A value of these types is valid wherever it turns up.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The name of a room: 1 to 64 characters of `A-Z a-z 0-9 _ -`, case-sensitive.
///
/// Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomName(Arc<str>);

impl RoomName {
    /// The most characters that a name may have.
    pub const MAX_LEN: usize = 64;

    /// The room that is meant where none is named.
    pub fn main() -> Self {
        Self("main".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoomName {
    type Err = InvalidRoomName;

    fn from_str(name: &str) -> Result<Self, InvalidRoomName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=Self::MAX_LEN).contains(&name.len()) && name.bytes().all(allowed) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidRoomName)
        }
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not the name of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a room's name has 1 to 64 characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidRoomName;

/// The name that a client bears in a room, as its URL gives it: 1 to 256 bytes of UTF-8 without control
/// characters. Several may bear the same.
///
/// Cloning shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The most bytes that a name may have.
    pub const MAX_LEN: usize = 256;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let fits = (1..=Self::MAX_LEN).contains(&name.len());
        match fits && !name.contains(char::is_control) {
            true => Ok(Self(name.into())),
            false => Err(InvalidName),
        }
    }
}

impl TryFrom<String> for Name {
    type Error = InvalidName;

    fn try_from(name: String) -> Result<Self, InvalidName> {
        name.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not the name of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a client's name has 1 to 256 bytes without control characters")]
pub struct InvalidName;

/// Who acts, across reconnects. A secret of that client: it stays out of logs and URLs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub Uuid);

impl ClientId {
    /// The client that a key of HTTP stands for, used once: its only number is 1.
    pub fn of_key(key: &str) -> Self {
        /// The namespace of the keys' UUIDs (RFC 9562, section 5.5).
        const KEYS: Uuid = Uuid::from_u128(0x6d0f_6e7e_5f1c_4b0c_9c54_8a3d_1f7b_2e90);
        Self(Uuid::new_v5(&KEYS, key.as_bytes()))
    }

    /// Whether it is remembered as a key is.
    pub fn is_key(self) -> bool {
        self.0.get_version_num() == 5
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientId(…)")
    }
}

/// One connection of one client, unique within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// One worker thread of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u64);

/// One life of a room's owner in this process: a room that was put to rest comes back as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerId(pub u64);

/// The number of the last entry applied, from 1; 0 before the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// One life of a room's journal: another one begins whenever something that was told may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(pub Uuid);

/// The largest number that a client may give an action: 2^53 − 1, which every JSON client holds.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// Names a batch, so that one whose outcome is unknown is recognised when it is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchId(pub Uuid);

/// A time: milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Millis(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names_have_1_to_64_plain_characters() {
        for good in ["a", "main", "Door_1-b", &"x".repeat(64)] {
            assert_eq!(good.parse::<RoomName>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "é", "a/b", "..", "a\0", &"x".repeat(65)] {
            assert_eq!(bad.parse::<RoomName>(), Err(InvalidRoomName), "{bad:?}");
        }
    }

    #[test]
    fn a_key_stands_for_one_client() {
        let client = ClientId::of_key("order 7");
        assert_eq!(client, ClientId::of_key("order 7"));
        assert_ne!(client, ClientId::of_key("order 8"));
        assert!(client.is_key() && !ClientId(Uuid::from_u128(7)).is_key());
    }

    #[test]
    fn a_client_id_is_not_printed() {
        let id = ClientId(Uuid::from_u128(7));
        assert!(!format!("{id:?}").contains('7'));
    }
}
