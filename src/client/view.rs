//! What a client knows of its room, for whoever shows it.

use std::sync::Arc;

use crate::client::event::{State, Users};

/// Why a client does not come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// By this program itself.
    #[error("the client was closed")]
    Closed,
    /// The server closed the connection with a code that says so; what it said before, if anything.
    #[error("the server closed the connection with {code}: {}", told(*.code, .message.as_deref()))]
    ByServer { code: u16, message: Option<String> },
    /// The handshake was answered with this HTTP status.
    #[error("the server refused the connection with the status {0}")]
    Denied(u16),
    #[error("the server does not speak tallyroom.v1")]
    Foreign,
}

/// How the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The first try, or another one, is underway.
    Connecting,
    /// What is shown is current.
    Live,
    /// It is lost for this reason and will be tried again.
    Lost(Arc<str>),
    /// It will not be tried again.
    Ended(End),
}

/// What a client knows of its room: the newest of everything.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub connection: Connection,
    /// The last state that was told; `None` before the first.
    pub state: Option<State>,
    /// The last count that was told; `None` before the first.
    pub users: Option<Users>,
}

fn told(code: u16, message: Option<&str>) -> String {
    let meaning = match code {
        1000 => "it is done",
        1002 => "this client broke the protocol",
        1007 => "a message was not UTF-8",
        1009 => "a message was too large",
        4401 => "a token is missing or expired",
        4403 => "this is not allowed",
        4404 => "the room was deleted",
        4409 => "a newer session of this client took its place",
        _ => "it gives no reason",
    };
    message.unwrap_or(meaning).to_owned()
}
