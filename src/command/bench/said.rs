//! What a server says to a client of the run, read with as little work as can be: there are millions of states.

use std::borrow::Cow;

use serde::Deserialize;

use super::plan::Dialect;
use crate::{client::event::Event, rejection::Rejection};

/// One message of the server.
#[derive(Debug, PartialEq)]
pub enum Said {
    /// `place` is what counts the actions in effect: in `tallyroom.v1` the revision, else the value itself.
    State {
        place: i64,
        value: i64,
    },
    Users(u64),
    /// An action was refused, in the classic dialect.
    Refused(Rejection),
    /// Anything else of `tallyroom.v1`.
    Event(Box<Event>),
    /// What needs not be understood.
    Nothing,
}

/// A message is none of the dialect.
#[derive(Debug, PartialEq)]
pub struct Strange;

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    value: Option<i64>,
    rev: Option<i64>,
    count: Option<u64>,
}

#[derive(Deserialize)]
struct Error {
    code: String,
    message: String,
}

impl Said {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// It is no JSON object with a `type`, or it is an event of the dialect that lacks what it must have. A state must
    /// be a whole number.
    pub fn read(dialect: Dialect, text: &str) -> Result<Self, Strange> {
        if dialect == Dialect::Classic
            && let Some(value) = usual_state(text)
        {
            return Ok(Self::State {
                place: value,
                value,
            });
        }
        let Ok(fields) = serde_json::from_str::<Fields<'_>>(text) else {
            return Self::read_another(dialect, text);
        };
        match (
            dialect,
            &*fields.kind,
            fields.value,
            fields.rev,
            fields.count,
        ) {
            (Dialect::Classic, "state", Some(value), ..) => Ok(Self::State {
                place: value,
                value,
            }),
            (Dialect::V1, "state", Some(value), Some(place), _) => Ok(Self::State { place, value }),
            (_, "users", _, _, Some(count)) => Ok(Self::Users(count)),
            _ => Self::read_another(dialect, text),
        }
    }

    fn read_another(dialect: Dialect, text: &str) -> Result<Self, Strange> {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        let Typed { r#type } = serde_json::from_str(text).map_err(|_| Strange)?;
        match (dialect, &*r#type) {
            (_, "state" | "users") => Err(Strange),
            (Dialect::Classic, "error") => {
                let Error { code, message } = serde_json::from_str(text).map_err(|_| Strange)?;
                Ok(Self::Refused(Rejection::new(code, message)))
            }
            (Dialect::Classic, _) => Ok(Self::Nothing),
            (Dialect::V1, _) => match Event::read(text.as_bytes()) {
                Ok(Event::Unknown | Event::Beat | Event::Bye(_)) => Ok(Self::Nothing),
                Ok(event) => Ok(Self::Event(Box::new(event))),
                Err(_) => Err(Strange),
            },
        }
    }
}

/// Reads a state as servers usually write it. Where a server sends hundreds of states at once, this saves a fifth of all
/// that the program does.
fn usual_state(text: &str) -> Option<i64> {
    let value = text.strip_prefix(r#"{"type":"state","value":"#)?;
    let value = value.strip_suffix('}')?;
    // Else it is no JSON: `+1`, `007`.
    let is_plain = value.starts_with(|first: char| ('1'..='9').contains(&first));
    is_plain.then(|| value.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::event::Ack;
    use crate::ids::Revision;

    #[test]
    fn the_classic_dialect_is_read() {
        for (text, said) in [
            (
                r#"{"type":"state","value":-7}"#,
                Ok(Said::State {
                    place: -7,
                    value: -7,
                }),
            ),
            (
                r#"{"value":1, "rev":4, "type":"state"}"#,
                Ok(Said::State { place: 1, value: 1 }),
            ),
            (
                r#"{"type":"state","value":17}"#,
                Ok(Said::State {
                    place: 17,
                    value: 17,
                }),
            ),
            (r#"{"type":"state","value":+1}"#, Err(Strange)),
            (r#"{"type":"state","value":007}"#, Err(Strange)),
            (
                r#"{"type":"state","value":9223372036854775808}"#,
                Err(Strange),
            ),
            (r#"{"type":"state","value":1.5}"#, Err(Strange)),
            (r#"{"type":"users","count":3}"#, Ok(Said::Users(3))),
            (r#"{"type":"weather","value":"wet"}"#, Ok(Said::Nothing)),
            (
                r#"{"type":"error","code":"no","message":"because"}"#,
                Ok(Said::Refused(Rejection::new("no", "because"))),
            ),
            (r#"{"type":"state","value":"much"}"#, Err(Strange)),
            (r#"{"type":"state"}"#, Err(Strange)),
            (r#"{"type":"users","count":-1}"#, Err(Strange)),
            (r#"{"hello":"you"}"#, Err(Strange)),
            ("7", Err(Strange)),
            ("hello", Err(Strange)),
        ] {
            assert_eq!(Said::read(Dialect::Classic, text), said, "{text}");
        }
    }

    #[test]
    fn tallyroom_v1_is_read() {
        let ack = Event::Ack(Ack {
            n: 17,
            rev: Revision(42),
        });
        for (text, said) in [
            (
                r#"{"type":"state","epoch":"x","rev":42,"value":7}"#,
                Ok(Said::State {
                    place: 42,
                    value: 7,
                }),
            ),
            (
                r#"{"type":"users","count":3,"exact":false}"#,
                Ok(Said::Users(3)),
            ),
            (
                r#"{"type":"ack","n":17,"rev":42}"#,
                Ok(Said::Event(Box::new(ack))),
            ),
            (r#"{"type":"beat"}"#, Ok(Said::Nothing)),
            (r#"{"type":"state","value":7}"#, Err(Strange)),
            (r#"{"type":"ack"}"#, Err(Strange)),
        ] {
            assert_eq!(Said::read(Dialect::V1, text), said, "{text}");
        }
    }
}
