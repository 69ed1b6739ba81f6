//! The placeholders of the conversations in `docs/protocol/`: texts that begin with `$` and stand for
//! values that are known only when a conversation is held.

use std::collections::HashMap;

use serde_json::Value;
use uuid::Uuid;

/// What the placeholders of one conversation stand for.
#[derive(Clone, Debug)]
pub struct Names {
    bound: HashMap<String, Value>,
    /// The delay that was named last, in milliseconds.
    pub delay: u64,
}

/// What a placeholder may stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// A UUID; other names are other values.
    Id,
    /// Any text; other names are other values.
    Text,
    Number,
    AnyText,
    AnyTime,
    AnyDelay,
    AnySeconds,
    AnyPermissions,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name.trim_end_matches(|end: char| end.is_ascii_digit()) {
            "message" | "server" => Self::AnyText,
            "permissions" => Self::AnyPermissions,
            "at" => Self::AnyTime,
            "ms" => Self::AnyDelay,
            "seconds" => Self::AnySeconds,
            "rev" => Self::Number,
            "alias" | "etag" | "room" => Self::Text,
            _ => Self::Id,
        }
    }

    fn fits(self, value: &Value) -> bool {
        let text = value.as_str();
        match self {
            Self::Id => text.is_some_and(|text| Uuid::try_parse(text).is_ok()),
            Self::Text | Self::AnyText => text.is_some_and(|text| !text.is_empty()),
            Self::Number | Self::AnyDelay => value.is_u64(),
            Self::AnyTime => text.is_some_and(is_time),
            Self::AnySeconds => text
                .and_then(|text| text.parse().ok())
                .is_some_and(|seconds: u32| seconds > 0),
            Self::AnyPermissions => value.as_array().is_some_and(|list| {
                list.iter().all(Value::is_string)
                    && ["read", "write"]
                        .iter()
                        .all(|&one| list.contains(&one.into()))
            }),
        }
    }

    fn is_bound(self) -> bool {
        matches!(self, Self::Id | Self::Text | Self::Number)
    }

    fn is_distinct(self) -> bool {
        matches!(self, Self::Id | Self::Text)
    }
}

/// Whether it is a time such as `2026-11-21T07:20:01.123Z`.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000Z";
    let fits = |(byte, form): (u8, &u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => byte == *form,
    };
    text.len() == FORM.len() && text.bytes().zip(FORM).all(fits)
}

impl Names {
    /// What the runner knows from the beginning: the room, and what the server's store gives.
    pub fn new(room: &str, durability: &str) -> Self {
        let known = [("room", room), ("durability", durability)];
        Self {
            bound: known
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into(),
            delay: 0,
        }
    }

    /// The text with what its placeholders stand for; a client's id that is new is made up.
    pub fn fill(&mut self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            filled.push_str(before);
            let end = after.find(|next: char| !next.is_ascii_alphanumeric());
            let (name, after) = after.split_at(end.unwrap_or(after.len()));
            let value = self.bound.entry(name.to_owned()).or_insert_with(|| {
                assert_eq!(Kind::of(name), Kind::Id, "${name} is not known yet");
                Uuid::new_v4().to_string().into()
            });
            filled.push_str(value.as_str().unwrap());
            rest = after;
        }
        filled + rest
    }

    /// The same for each text of a JSON value.
    pub fn fill_json(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill(text).into(),
            Value::Array(list) => list.iter().map(|item| self.fill_json(item)).collect(),
            Value::Object(fields) => {
                let fields = fields.iter();
                let fill = |(name, value): (&String, _)| (name.clone(), self.fill_json(value));
                Value::Object(fields.map(fill).collect())
            }
            other => other.clone(),
        }
    }

    /// Compares a value, whole, with what is expected. Only where they agree is anything bound.
    pub fn matches(&mut self, expected: &Value, value: &Value) -> bool {
        let mut names = self.clone();
        let agree = names.agree(expected, value);
        if agree {
            *self = names;
        }
        agree
    }

    fn agree(&mut self, expected: &Value, value: &Value) -> bool {
        match (expected, value) {
            (Value::String(text), value) => self.agree_text(text, value),
            (Value::Array(expected), Value::Array(list)) => {
                let mut pairs = expected.iter().zip(list);
                expected.len() == list.len() && pairs.all(|(one, other)| self.agree(one, other))
            }
            (Value::Object(expected), Value::Object(fields)) => {
                let mut pairs = expected.iter();
                expected.len() == fields.len()
                    && pairs.all(|(name, one)| {
                        fields.get(name).is_some_and(|other| self.agree(one, other))
                    })
            }
            (expected, value) => expected == value,
        }
    }

    fn agree_text(&mut self, text: &str, value: &Value) -> bool {
        let name = text.strip_prefix('$').filter(|name| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        let Some(name) = name else {
            return value.as_str() == Some(&self.fill(text));
        };
        if let Some(bound) = self.bound.get(name) {
            return bound == value;
        }
        let kind = Kind::of(name);
        if !kind.fits(value) || (kind.is_distinct() && self.stands_for_another(value)) {
            return false;
        }
        if kind == Kind::AnyDelay {
            self.delay = value.as_u64().unwrap();
        }
        if kind.is_bound() {
            self.bound.insert(name.to_owned(), value.clone());
        }
        true
    }

    fn stands_for_another(&self, value: &Value) -> bool {
        self.bound.values().any(|bound| bound == value)
    }
}
