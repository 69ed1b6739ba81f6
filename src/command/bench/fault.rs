//! What ends a run before it is done.

use super::plan::Dialect;
use crate::{
    client::{event, machine::Loss},
    rejection::Rejection,
};

/// How much of a message that was not understood is shown, in characters.
const SHOWN: usize = 120;

/// Why a run cannot go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    #[error("{}", lost(.0))]
    Lost(Loss),
    /// What came is no event of the dialect.
    #[error("this is no server of {dialect}: it said {text:?}")]
    Strange { text: String, dialect: Dialect },
    #[error("an action was refused: {} ({})", .0.message, .0.code)]
    Refused(Rejection),
    /// An error that is about no action.
    #[error("the server said: {} ({})", .0.message, .0.code)]
    Told(Rejection),
    /// What was said, or the way it was put.
    #[error("the server sent {0} that cannot be")]
    Breach(&'static str),
    #[error("the room began anew")]
    Anew,
    /// A client was told of more than what was sent.
    #[error(
        "somebody else acts in the room, or the server counts wrongly: {seen} actions were in effect when {sent} were sent"
    )]
    Beyond { seen: i64, sent: usize },
    #[error(
        "nothing more comes since the room went back: somebody else acts in it, or the server counts wrongly"
    )]
    Stuck,
}

impl Fault {
    pub fn strange(text: &str, dialect: Dialect) -> Self {
        let text = text.chars().take(SHOWN).collect();
        Self::Strange { text, dialect }
    }

    pub fn cut(why: impl ToString) -> Self {
        Self::Lost(Loss::Cut(why.to_string()))
    }

    pub fn closed(code: u16) -> Self {
        Self::Lost(Loss::Closed(code))
    }
}

impl From<event::Fault> for Fault {
    fn from(fault: event::Fault) -> Self {
        let why = Rejection::new(fault.code, fault.message);
        match fault.n {
            Some(_) => Self::Refused(why),
            None => Self::Told(why),
        }
    }
}

fn lost(loss: &Loss) -> String {
    match loss {
        Loss::Cut(why) => why.clone(),
        // It stands for a close frame without a code.
        Loss::Closed(1005) => "the server closed a connection without a code".to_owned(),
        Loss::Closed(code) => format!("the server closed a connection with {code}"),
        Loss::Denied(status) => format!("the server refused a connection with the status {status}"),
        Loss::Foreign => "the server does not speak tallyroom.v1; without --v1 it is measured in the classic dialect"
            .to_owned(),
    }
}
