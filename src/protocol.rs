//! What clients and the server say to each other; nothing here knows of sockets.
//!
//! A dialect turns events into JSON; [`read_action`] turns what a client sent into an action of
//! the model. Each event is encoded once per batch and shared by all sessions.

pub mod classic;
pub mod v1;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{fields::Fields, ids::ClientId, model::Model, rejection::Rejection};

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The well-known counter example's, of a client without a subprotocol.
    Classic,
    /// [`v1::SUBPROTOCOL`].
    V1,
}

/// What a handshake settles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Negotiated {
    pub dialect: Dialect,
    /// Who acts; `None` where the client did not say, or speaks the classic dialect.
    pub client: Option<ClientId>,
}

/// Chooses among the subprotocols that a client offers (RFC 6455, section 11.3.4): the values of its
/// `Sec-WebSocket-Protocol` headers.
///
/// Where none is known, none is chosen, and the session is classic.
///
/// # Errors
///
/// `bad_field` where `client.` is not followed by a UUID, or stands twice.
pub fn negotiate<'a>(offered: impl Iterator<Item = &'a str>) -> Result<Negotiated, Rejection> {
    let tokens = offered.flat_map(|value| value.split(',')).map(str::trim);
    let tokens: Vec<&str> = tokens.collect();
    if !tokens.contains(&v1::SUBPROTOCOL) {
        let dialect = Dialect::Classic;
        return Ok(Negotiated {
            dialect,
            client: None,
        });
    }
    let mut clients = tokens
        .iter()
        .filter_map(|token| token.strip_prefix("client."));
    let client = match (clients.next(), clients.next()) {
        (None, _) => None,
        (Some(id), None) => Some(v1::client_id(id)?),
        (Some(_), Some(_)) => return Err(v1::bad_client()),
    };
    let dialect = Dialect::V1;
    Ok(Negotiated { dialect, client })
}

/// Reads the action that a client's message asks for.
///
/// # Errors
///
/// What the client is told: `not_json`, `not_an_object`, `missing_field`, `bad_field`,
/// `unknown_action`, or `internal` where the model's code panics.
pub fn read_action<M: Model>(text: &str) -> Result<M::Action, Rejection> {
    action_of::<M>(&Fields::parse(text)?)
}

/// Makes an action of a client's JSON object.
///
/// # Errors
///
/// As [`read_action`].
pub fn action_of<M: Model>(fields: &Fields<'_>) -> Result<M::Action, Rejection> {
    // Reading changes nothing, so there is nothing that a panic could leave half done.
    catch_unwind(AssertUnwindSafe(|| M::parse(fields)))
        .unwrap_or_else(|_| Err(Rejection::internal()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6F9619FF-8B86-D011-B42D-00C04FC964FF";

    #[test]
    fn v1_is_chosen_among_others_with_its_client() {
        let v1 = |offered: &[&str]| negotiate(offered.iter().copied()).unwrap();
        for offered in [
            &["tallyroom.v1"][..],
            &["chat, tallyroom.v1"],
            &["chat", "tallyroom.v1 , x"],
        ] {
            let expected = Negotiated {
                dialect: Dialect::V1,
                client: None,
            };
            assert_eq!(v1(offered), expected);
        }
        let with_client = v1(&[&format!("client.{ID}, tallyroom.v1")]);
        assert_eq!(with_client.client, Some(ClientId(ID.parse().unwrap())));
        for offered in [
            &[][..],
            &["chat"],
            &["client.x"],
            &["TALLYROOM.V1"],
            &["tallyroom.v2"],
        ] {
            assert_eq!(v1(offered).dialect, Dialect::Classic, "{offered:?}");
        }
    }

    #[test]
    fn a_client_that_is_no_uuid_or_two_is_refused() {
        let bare = ID.replace('-', "");
        for token in [
            String::new(),
            "x".to_owned(),
            bare,
            format!("{{{ID}}}"),
            format!("{ID}, client.{ID}"),
        ] {
            let offered = format!("tallyroom.v1, client.{token}");
            let refused = negotiate(std::iter::once(&*offered)).unwrap_err();
            assert_eq!(refused.code, "bad_field", "{token}");
        }
    }
}
