//! `tallyroom.v1`: what the page and the client libraries speak. `docs/protocol.md` tells it whole.
//!
//! A client numbers its actions, `{"action":"plus","n":17}`, from 1 and without gaps, and learns
//! what became of each: so that an action is applied once, however often it is sent.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    entry::Refused,
    fields::Fields,
    ids::{ClientId, Epoch, MAX_NUMBER, Revision},
    limits::WINDOW,
    rejection::Rejection,
};

/// The name by which a client chooses this dialect.
pub const SUBPROTOCOL: &str = "tallyroom.v1";

/// What a client is told first, and again when the epoch changes.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    pub room: &'a str,
    pub client: ClientId,
    pub epoch: Epoch,
    pub rev: Revision,
    /// The last number of this client that is settled; 0: none.
    pub n: u64,
    /// The refusals among its last [`WINDOW`] numbers, oldest first.
    pub refused: &'a [Refused],
    pub durability: &'a str,
    pub permissions: &'a [&'static str],
    /// How long nothing may be heard of the server; `None`: for ever.
    pub beat: Option<Duration>,
}

/// `{"type":"welcome","server":"…","room":"main","client":"…","epoch":"…","rev":41,"n":16,…}`
pub fn welcome(welcome: &Welcome<'_>) -> String {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        server: &'a str,
        room: &'a str,
        client: ClientId,
        epoch: Epoch,
        rev: Revision,
        n: u64,
        window: u64,
        refused: &'a [Refused],
        durability: &'a str,
        permissions: &'a [&'static str],
        beat_ms: u64,
    }
    json(&Event {
        r#type: "welcome",
        server: env!("CARGO_PKG_VERSION"),
        room: welcome.room,
        client: welcome.client,
        epoch: welcome.epoch,
        rev: welcome.rev,
        n: welcome.n,
        window: WINDOW,
        refused: welcome.refused,
        durability: welcome.durability,
        permissions: welcome.permissions,
        beat_ms: welcome.beat.map_or(0, as_millis),
    })
}

/// `{"type":"state","epoch":"…","rev":42,"value":7}`, where `view` is the value as JSON.
pub fn state(epoch: Epoch, rev: Revision, view: &[u8]) -> Vec<u8> {
    let head = format!(
        r#"{{"type":"state","epoch":"{}","rev":{},"value":"#,
        epoch.0, rev.0
    );
    [head.as_bytes(), view, b"}"].concat()
}

/// `{"type":"ack","n":17,"rev":42}`
pub fn ack(n: u64, rev: Revision) -> String {
    format!(r#"{{"type":"ack","n":{n},"rev":{}}}"#, rev.0)
}

/// `{"type":"error","code":"…","message":"…","n":17}`; without `n` nothing is settled by it.
pub fn error(refused: &Rejection, n: Option<u64>) -> String {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        code: &'a str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        n: Option<u64>,
    }
    json(&Event {
        r#type: "error",
        code: &refused.code,
        message: &refused.message,
        n,
    })
}

/// `{"type":"retry","n":18,"expected":17,"code":"rate_limited","message":"…","after_ms":300}`
pub fn retry(n: u64, expected: u64, why: &Rejection, after: Duration) -> String {
    #[derive(Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        n: u64,
        expected: u64,
        code: &'a str,
        message: &'a str,
        after_ms: u64,
    }
    json(&Event {
        r#type: "retry",
        n,
        expected,
        code: &why.code,
        message: &why.message,
        after_ms: as_millis(after),
    })
}

/// `{"type":"beat"}`
pub const BEAT: &str = r#"{"type":"beat"}"#;

/// `{"type":"bye","code":1012,"reconnect_after_ms":1840}`
pub fn bye(code: u16, reconnect_after: Duration) -> String {
    let after = as_millis(reconnect_after);
    format!(r#"{{"type":"bye","code":{code},"reconnect_after_ms":{after}}}"#)
}

/// Takes the number out of a client's message.
///
/// # Errors
///
/// `missing_field`, or `bad_field` where it is not a whole number from 1 to [`MAX_NUMBER`]: then the
/// message is no numbered action, and settles nothing.
pub fn take_number(fields: &mut Fields<'_>) -> Result<u64, Rejection> {
    let n = fields.take("n");
    let n = n.ok_or_else(|| Rejection::missing_field("n"))?;
    n.as_u64()
        .filter(|n| (1..=MAX_NUMBER).contains(n))
        .ok_or_else(bad_number)
}

fn bad_number() -> Rejection {
    Rejection::bad_field("n", &format!("a whole number from 1 to {MAX_NUMBER}"))
}

/// Reads the id of a client, a UUID with its hyphens.
///
/// # Errors
///
/// `bad_field`
pub fn client_id(text: &str) -> Result<ClientId, Rejection> {
    let hyphenated = text.len() == uuid::fmt::Hyphenated::LENGTH;
    let id = hyphenated.then(|| Uuid::try_parse(text).ok()).flatten();
    id.map(ClientId).ok_or_else(bad_client)
}

/// The answer to a handshake that does not name one client by a UUID.
pub fn bad_client() -> Rejection {
    Rejection::bad_field(
        "Sec-WebSocket-Protocol",
        "a list with client.<uuid> in it once at most, the UUID with its hyphens",
    )
}

fn as_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn json(event: &impl Serialize) -> String {
    serde_json::to_string(event).expect("an event is made of strings and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u64, String> {
        let mut fields = Fields::parse(text).unwrap();
        take_number(&mut fields).map_err(|refused| refused.code.into_owned())
    }

    #[test]
    fn events_are_as_the_protocol_has_them() {
        let epoch = Epoch(Uuid::nil());
        let nil = "00000000-0000-0000-0000-000000000000";
        assert_eq!(
            state(epoch, Revision(42), b"-7"),
            format!(r#"{{"type":"state","epoch":"{nil}","rev":42,"value":-7}}"#).as_bytes()
        );
        assert_eq!(ack(17, Revision(42)), r#"{"type":"ack","n":17,"rev":42}"#);
        let why = Rejection::new("gap", "no");
        assert_eq!(
            error(&why, Some(3)),
            r#"{"type":"error","code":"gap","message":"no","n":3}"#
        );
        assert_eq!(
            error(&why, None),
            r#"{"type":"error","code":"gap","message":"no"}"#
        );
        assert_eq!(
            retry(18, 17, &why, Duration::from_millis(300)),
            r#"{"type":"retry","n":18,"expected":17,"code":"gap","message":"no","after_ms":300}"#
        );
        assert_eq!(
            bye(1012, Duration::from_millis(5)),
            r#"{"type":"bye","code":1012,"reconnect_after_ms":5}"#
        );
    }

    #[test]
    fn a_number_is_a_whole_one_that_every_json_client_holds() {
        assert_eq!(number(r#"{"n":1}"#), Ok(1));
        assert_eq!(number(r#"{"n":9007199254740991}"#), Ok(MAX_NUMBER));
        assert_eq!(number("{}"), Err("missing_field".to_owned()));
        for bad in [
            "0",
            "-1",
            "1.0",
            "9007199254740992",
            "\"1\"",
            "null",
            "true",
            "[1]",
        ] {
            let text = format!(r#"{{"n":{bad}}}"#);
            assert_eq!(number(&text), Err("bad_field".to_owned()), "{bad}");
        }
    }

    #[test]
    fn of_a_number_that_stands_twice_the_last_counts_and_none_is_left() {
        let mut fields = Fields::parse(r#"{"n":1,"action":"plus","n":2}"#).unwrap();
        assert_eq!(take_number(&mut fields), Ok(2));
        assert!(fields.get("n").is_none() && fields.get("action").is_some());
    }
}
