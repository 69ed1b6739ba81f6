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
    /// How many bytes of a sentence are kept and sent where it goes on for longer.
    pub const MAX_MESSAGE: usize = 500;
    pub const MAX_CODE: usize = 64;

    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }

    /// Cuts a code and a sentence that are longer than anybody would read, and leaves control
    /// characters out, each of which would be six bytes of JSON.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        if self.message.contains(char::is_control) {
            self.message = self.message.replace(char::is_control, " ");
        }
        if self.message.len() > Self::MAX_MESSAGE {
            self.message = format!("{}…", beginning(&self.message, Self::MAX_MESSAGE));
        }
        if self.code.len() > Self::MAX_CODE {
            self.code = beginning(&self.code, Self::MAX_CODE).to_owned().into();
        }
        self
    }

    /// The answer to a binary message where JSON is taken.
    pub fn binary_not_allowed() -> Self {
        let message = "send the JSON as a text message, not as a binary one";
        Self::new("binary_not_allowed", message)
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

/// As many bytes of a text as there are whole characters in.
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let short = Rejection::new("no", "because");
        assert_eq!(short.clone().shortened(), short);
        let long = Rejection::new("c".repeat(100), "é".repeat(400)).shortened();
        assert_eq!(long.code.len(), Rejection::MAX_CODE);
        assert_eq!(long.message, format!("{}…", "é".repeat(250)));
        let odd = Rejection::new("no", "a\u{1}b\nc").shortened();
        assert_eq!(odd.message, "a b c");
    }
}
