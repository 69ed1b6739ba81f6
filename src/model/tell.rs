//! What others hear of an action beside the state that it made.

use super::edge::Message;
use crate::ids::Name;

/// A message of the model's own, and to whom it goes.
///
/// It is a moment: told once when the action is committed, to those who are there, and neither kept nor
/// told again when the action is asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tell {
    pub to: To,
    pub message: Message,
}

/// Some of a room's sessions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum To {
    Everyone,
    /// The session that asked.
    Sender,
    Others,
    /// All who bear the name.
    Named(Name),
    /// All who do not.
    AllBut(Name),
}

impl Tell {
    pub fn new(to: To, message: impl Into<Message>) -> Self {
        let message = message.into();
        Self { to, message }
    }

    pub fn everyone(message: impl Into<Message>) -> Self {
        Self::new(To::Everyone, message)
    }
}
