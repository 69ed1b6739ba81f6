//! The fields of one JSON object that a client sent.

use std::{borrow::Cow, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

use crate::rejection::Rejection;

/// A JSON object as a client sent it; of fields that stand twice the last counts, as in browsers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Value)>);

impl<'a> Fields<'a> {
    /// Reads one JSON object.
    ///
    /// # Errors
    ///
    /// `not_json` where the text is not JSON, `not_an_object` where it is another JSON value.
    pub fn parse(text: &'a str) -> Result<Self, Rejection> {
        let err = match serde_json::from_str(text) {
            Ok(fields) => return Ok(fields),
            Err(err) => err,
        };
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) if err.is_data() => Err(Rejection::new(
                "not_an_object",
                "the message must be a JSON object, such as {\"action\":\"plus\"}",
            )),
            Ok(_) => Err(not_json(&err)),
            Err(err) => Err(not_json(&err)),
        }
    }

    /// The field's value, or `None` where it is missing.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .rev()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Takes a field out, so that what reads the rest does not see it.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        let value = self.get(name).cloned();
        self.0.retain(|(key, _)| key != name);
        value
    }

    /// The text of a field that must be there.
    ///
    /// # Errors
    ///
    /// `missing_field`, or `bad_field` where it is not a string.
    pub fn text(&self, name: &str) -> Result<&str, Rejection> {
        match self.get(name) {
            None => Err(Rejection::missing_field(name)),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Rejection::bad_field(name, "a string")),
        }
    }

    /// A whole number within `range`, or `None` where the field is missing.
    ///
    /// # Errors
    ///
    /// `bad_field` for anything else, `null` and fractions such as `1.0` among it.
    pub fn integer(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, Rejection> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_i64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(not_within(name, &range, "")),
        }
    }

    /// As [`Fields::integer`], but `null` is allowed and comes back as `Some(None)`.
    ///
    /// # Errors
    ///
    /// `bad_field` for anything that is neither `null` nor a whole number within `range`.
    pub fn integer_or_null(
        &self,
        name: &str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<Option<i64>>, Rejection> {
        match self.get(name) {
            Some(Value::Null) => Ok(Some(None)),
            _ => self
                .integer(name, range.clone())
                .map(|number| number.map(Some))
                .map_err(|_| not_within(name, &range, " or null")),
        }
    }

    /// The whole object as an action that derives `Deserialize`; fields it lacks are ignored.
    ///
    /// # Errors
    ///
    /// `missing_field`, `unknown_action` or `bad_field`, with what serde says.
    pub fn to_action<A: DeserializeOwned>(&self) -> Result<A, Rejection> {
        let object = self
            .0
            .iter()
            .map(|(key, value)| (key.to_string(), value.clone()))
            .collect();
        serde_json::from_value(Value::Object(object)).map_err(|err| not_an_action(&err.to_string()))
    }
}

/// The code for what serde says, which it tells by the beginning of its sentence alone.
fn not_an_action(said: &str) -> Rejection {
    let code = match said {
        said if said.starts_with("missing field") => "missing_field",
        said if said.starts_with("unknown variant") => "unknown_action",
        _ => "bad_field",
    };
    Rejection::new(code, said)
}

fn not_json(err: &serde_json::Error) -> Rejection {
    Rejection::new("not_json", format!("the message is not JSON: {err}"))
}

fn not_within(name: &str, range: &RangeInclusive<i64>, or: &str) -> Rejection {
    let (low, high) = (range.start(), range.end());
    Rejection::bad_field(name, &format!("a whole number from {low} to {high}{or}"))
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::with_capacity(2);
                while let Some(Key(key)) = map.next_key()? {
                    fields.push((key, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A key that is borrowed from the message where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Fields::parse(text).unwrap_err().code.into_owned()
    }

    #[test]
    fn what_is_no_object_is_told_apart_from_what_is_no_json() {
        for text in ["[]", "7", "null", "\"plus\"", "true", " [1,2] "] {
            assert_eq!(code(text), "not_an_object", "{text}");
        }
        let deep = "[".repeat(200);
        for text in [
            "",
            "plus",
            "{",
            "{}x",
            "[1,2",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":\"\\ud800\"}",
            &deep,
        ] {
            assert_eq!(code(text), "not_json", "{text}");
        }
    }

    #[test]
    fn integers_are_whole_and_within_their_range() {
        let within = |text: &str| Fields::parse(text).unwrap().integer("by", 1..=5);
        assert_eq!(within("{}"), Ok(None));
        assert_eq!(within("{\"by\":5}"), Ok(Some(5)));
        assert_eq!(within("{\"\\u0062y\":5}"), Ok(Some(5)));
        assert_eq!(within("{\"by\":9,\"by\":2}"), Ok(Some(2)));
        for bad in [
            "0",
            "6",
            "1.5",
            "2.0",
            "1e0",
            "null",
            "\"3\"",
            "[3]",
            "true",
            "99999999999999999999",
        ] {
            let refused = within(&format!("{{\"by\":{bad}}}")).unwrap_err();
            assert_eq!(refused.code, "bad_field", "{bad}");
            assert!(
                refused
                    .message
                    .contains("\"by\" must be a whole number from 1 to 5")
            );
        }
    }

    #[test]
    fn an_action_that_derives_deserialize_is_read_whole() {
        #[derive(Debug, Deserialize, PartialEq)]
        #[serde(tag = "action", rename_all = "lowercase")]
        enum Move {
            Left { by: u8 },
        }
        let read = |text: &str| Fields::parse(text).unwrap().to_action::<Move>();
        assert_eq!(
            read(r#"{"by":3,"action":"left","more":1}"#),
            Ok(Move::Left { by: 3 })
        );
        for (text, code) in [
            (r#"{"by":3}"#, "missing_field"),
            (r#"{"action":"left"}"#, "missing_field"),
            (r#"{"action":"up"}"#, "unknown_action"),
            (r#"{"action":"left","by":"far"}"#, "bad_field"),
        ] {
            assert_eq!(read(text).unwrap_err().code, code, "{text}");
        }
    }
}
