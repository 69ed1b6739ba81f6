//! Why something was not done: a stable code for programs and a sentence for people.

use std::borrow::Cow;

/// The final no to an action or a message.
///
/// A model may have codes of its own (`[a-z][a-z0-9_]*`) beside the ones made here. The sentence
/// names the field, the limit and the way out; it goes to the client as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Rejection {
    pub code: Cow<'static, str>,
    pub message: String,
}

impl Rejection {
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    pub fn missing_field(name: &str) -> Self {
        Self::new("missing_field", format!("the field {name:?} is missing"))
    }

    /// `allowed` goes on after "must be", such as "a whole number from 1 to 5".
    pub fn bad_field(name: &str, allowed: &str) -> Self {
        Self::new("bad_field", format!("the field {name:?} must be {allowed}"))
    }

    pub fn unknown_action(action: &str, known: &[&str]) -> Self {
        let shown: String = action.chars().take(40).collect();
        let known = known.join(", ");
        let message = format!("there is no action {shown:?} here; there are {known}");
        Self::new("unknown_action", message)
    }

    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new("out_of_range", message)
    }

    /// A fault of ours or of a model's code, whose cause is in the log and not in the answer.
    pub fn internal() -> Self {
        Self::new("internal", "the server made a mistake; nothing was changed")
    }
}
