//! What a server that speaks `tallyroom.v1` tells a client. Fields and events that are not known here are passed
//! over, so that a later server may tell more.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::{
    ids::{ClientId, Epoch, Revision},
    rejection::Rejection,
};

/// One message of the server, as it came.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    Welcome(Welcome),
    State(State),
    Users(Users),
    Ack(Ack),
    Error(Fault),
    Retry(Retry),
    Beat,
    Bye(Bye),
    /// Of a later server.
    #[serde(other)]
    Unknown,
}

/// `{"type":"welcome","client":"…","epoch":"…","rev":41,"n":16,"window":1024,"refused":[…],"beat_ms":20000,…}`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Welcome {
    pub client: ClientId,
    pub epoch: Epoch,
    pub rev: Revision,
    /// The last number of this client that is settled; 0: none.
    pub n: u64,
    /// How many numbers the client may keep unsettled.
    pub window: u64,
    /// Those of its last `window` numbers that were refused.
    #[serde(default)]
    pub refused: Vec<Refused>,
    /// After so much silence the server says something; `None` or 0: it need not.
    #[serde(default)]
    pub beat_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Refused {
    pub n: u64,
    pub code: String,
    #[serde(default)]
    pub message: String,
}

/// What a room holds, at a revision: `{"type":"state","epoch":"…","rev":42,"value":7}`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct State {
    /// Which life of the room's journal; revisions of two epochs cannot be compared.
    pub epoch: Epoch,
    pub rev: Revision,
    /// Whatever the room's model shows; a counter's is a whole number.
    #[serde(deserialize_with = "shared")]
    pub value: Arc<Value>,
}

/// How many are in the room: `{"type":"users","count":3}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Users {
    pub count: u64,
    /// `false` while a part of the server is out of reach, which may have more.
    #[serde(default = "yes")]
    pub exact: bool,
}

/// `{"type":"ack","n":17,"rev":42}`: everything up to `n` is settled, and in effect at `rev`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Ack {
    pub n: u64,
    pub rev: Revision,
}

/// `{"type":"error","code":"out_of_range","message":"…","n":17}`: that action was refused. Without
/// `n`: something else was wrong.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Fault {
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub n: Option<u64>,
}

/// `{"type":"retry","n":18,"expected":17,"code":"rate_limited","message":"…","after_ms":300}`
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Retry {
    pub n: u64,
    pub expected: u64,
    pub code: String,
    #[serde(default)]
    pub message: String,
    pub after_ms: u64,
}

/// `{"type":"bye","code":1012,"reconnect_after_ms":1840}`, before a close that the server wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Bye {
    #[serde(default)]
    pub reconnect_after_ms: Option<u64>,
}

impl Event {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// An event of a known type lacks what it must have. Whatever else a message is, it is passed over as
    /// [`Event::Unknown`].
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _type: String,
        }
        match serde_json::from_slice(text) {
            Ok(event) => Ok(event),
            Err(err) if serde_json::from_slice::<Typed>(text).is_ok() => Err(err),
            Err(_) => Ok(Self::Unknown),
        }
    }
}

impl Welcome {
    pub fn beat(&self) -> Option<Duration> {
        let beat = self.beat_ms.filter(|millis| *millis > 0);
        beat.map(Duration::from_millis)
    }
}

impl Refused {
    pub fn to_rejection(&self) -> Rejection {
        Rejection::new(self.code.clone(), self.message.clone())
    }
}

fn yes() -> bool {
    true
}

fn shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Value>, D::Error> {
    Value::deserialize(deserializer).map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Event {
        Event::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_welcome_is_read_with_what_later_servers_add() {
        let text = r#"{"type":"welcome","server":"0.1.0","room":"main","client":"00000000-0000-0000-0000-000000000007",
            "epoch":"00000000-0000-0000-0000-000000000001","rev":41,"n":16,"window":1024,
            "refused":[{"n":16,"code":"out_of_range","message":"no"}],"durability":"disk",
            "permissions":["read","write"],"beat_ms":20000,"more":{"to":"come"}}"#;
        let Event::Welcome(welcome) = read(text) else {
            panic!("no welcome");
        };
        assert_eq!(
            (welcome.rev, welcome.n, welcome.window),
            (Revision(41), 16, 1024)
        );
        assert_eq!(welcome.refused[0].n, 16);
        assert_eq!(welcome.beat(), Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_server_without_beats_says_none_or_zero() {
        for beat in ["", r#","beat_ms":null"#, r#","beat_ms":0"#] {
            let text = format!(
                r#"{{"type":"welcome","client":"{id}","epoch":"{id}","rev":0,"n":0,"window":1{beat}}}"#,
                id = uuid::Uuid::nil()
            );
            let Event::Welcome(welcome) = read(&text) else {
                panic!("no welcome");
            };
            assert_eq!(welcome.beat(), None);
        }
    }

    #[test]
    fn what_is_not_known_is_passed_over() {
        for text in [
            r#"{"type":"weather","sky":"blue"}"#,
            r#"{"action":"plus"}"#,
            r#"{"type":7}"#,
            "[1]",
            "7",
            "{",
            "",
        ] {
            assert_eq!(read(text), Event::Unknown, "{text}");
        }
        assert_eq!(read(r#"{"type":"beat","late":true}"#), Event::Beat);
        let users = Users {
            count: 3,
            exact: true,
        };
        assert_eq!(
            read(r#"{"type":"users","count":3,"x":[]}"#),
            Event::Users(users)
        );
    }

    #[test]
    fn an_event_that_lacks_what_it_must_have_is_an_error() {
        for text in [
            r#"{"type":"ack","n":1}"#,
            r#"{"type":"ack","n":-1,"rev":2}"#,
            r#"{"type":"state","rev":2,"value":7}"#,
            r#"{"type":"welcome"}"#,
            r#"{"type":"retry","n":2}"#,
        ] {
            assert!(Event::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
