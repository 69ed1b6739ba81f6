//! The counter: one whole number that anybody may raise and lower.
//!
//! Actions: `plus` and `minus` with an optional `by` (1 to 1 000 000), `set` with `value`, `reset`
//! to 0, and `limits` with `min` and/or `max` (`null`: none; one not named stays).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{By, Model};
use crate::{fields::Fields, rejection::Rejection};

/// The largest whole number that every JSON client holds exactly: 2^53 − 1 (RFC 8259, section 6).
pub const MAX_VALUE: i64 = (1 << 53) - 1;

/// The most that one `plus` or `minus` may add or take.
pub const MAX_STEP: i64 = 1_000_000;

/// The model of a shared counter.
#[derive(Clone, Copy, Debug)]
pub struct Counter;

/// The value and the limits that it stays within; always within ±[`MAX_VALUE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterState {
    pub value: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

/// What a client may ask of a counter, in the form that it is stored in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum CounterAction {
    Plus {
        #[serde(default = "one", skip_serializing_if = "is_one")]
        by: i64,
    },
    Minus {
        #[serde(default = "one", skip_serializing_if = "is_one")]
        by: i64,
    },
    Set {
        value: i64,
    },
    Reset,
    /// `None`: this limit stays as it is; `Some(None)`: none any more.
    Limits {
        #[serde(default, skip_serializing_if = "Option::is_none", with = "stated")]
        min: Option<Option<i64>>,
        #[serde(default, skip_serializing_if = "Option::is_none", with = "stated")]
        max: Option<Option<i64>>,
    },
}

impl Model for Counter {
    const NAME: &'static str = "counter";
    const JOURNAL_VALUE: bool = true;
    type State = CounterState;
    type Action = CounterAction;

    fn parse(fields: &Fields<'_>) -> Result<CounterAction, Rejection> {
        let any = i64::MIN..=i64::MAX;
        let by = || Ok(fields.integer("by", 1..=MAX_STEP)?.unwrap_or(1));
        match fields.text("action")? {
            "plus" => Ok(CounterAction::Plus { by: by()? }),
            "minus" => Ok(CounterAction::Minus { by: by()? }),
            "set" => match fields.integer("value", any).map_err(|_| not_a_value())? {
                Some(value) => Ok(CounterAction::Set { value }),
                None => Err(Rejection::missing_field("value")),
            },
            "reset" => Ok(CounterAction::Reset),
            "limits" => {
                let within = -MAX_VALUE..=MAX_VALUE;
                let min = fields.integer_or_null("min", within.clone())?;
                let max = fields.integer_or_null("max", within)?;
                if min.is_none() && max.is_none() {
                    let message = "the action \"limits\" needs \"min\" or \"max\" or both";
                    return Err(Rejection::new("missing_field", message));
                }
                Ok(CounterAction::Limits { min, max })
            }
            other => Err(Rejection::unknown_action(
                other,
                &["plus", "minus", "set", "reset", "limits"],
            )),
        }
    }

    fn apply(state: &mut CounterState, action: &CounterAction, _: &By) -> Result<(), Rejection> {
        match *action {
            CounterAction::Plus { by } => state.value = state.value.saturating_add(by),
            CounterAction::Minus { by } => state.value = state.value.saturating_sub(by),
            CounterAction::Set { value } => state.value = value,
            CounterAction::Reset => state.value = 0,
            CounterAction::Limits { min, max } => {
                state.min = min.unwrap_or(state.min);
                state.max = max.unwrap_or(state.max);
            }
        }
        state.check()
    }

    fn view(state: &CounterState) -> impl Serialize + '_ {
        state.value
    }

    fn export(state: &CounterState) -> serde_json::Result<Map<String, Value>> {
        match serde_json::to_value(state)? {
            Value::Object(fields) => Ok(fields),
            other => Ok(Map::from_iter([("value".to_owned(), other)])),
        }
    }

    fn import(fields: &Fields<'_>) -> Result<CounterState, Rejection> {
        let within = -MAX_VALUE..=MAX_VALUE;
        let value = fields.integer("value", within.clone())?;
        let state = CounterState {
            value: value.ok_or_else(|| Rejection::missing_field("value"))?,
            min: fields.integer_or_null("min", within.clone())?.flatten(),
            max: fields.integer_or_null("max", within)?.flatten(),
        };
        state.check()?;
        Ok(state)
    }
}

impl CounterState {
    fn check(&self) -> Result<(), Rejection> {
        let low = self.min.unwrap_or(-MAX_VALUE);
        let high = self.max.unwrap_or(MAX_VALUE);
        if (low..=high).contains(&self.value) {
            return Ok(());
        }
        let value = self.value;
        Err(Rejection::out_of_range(format!(
            "the value would be {value}, outside {low} to {high}; nothing was changed"
        )))
    }
}

fn not_a_value() -> Rejection {
    let allowed = format!("a whole number from {} to {MAX_VALUE}", -MAX_VALUE);
    Rejection::bad_field("value", &allowed)
}

fn one() -> i64 {
    1
}

fn is_one(by: &i64) -> bool {
    *by == 1
}

/// Keeps a field that is `null` apart from one that is missing.
mod stated {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        limit: &Option<Option<i64>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        limit.flatten().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Option<i64>>, D::Error> {
        Option::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Millis, Revision};

    fn parse(text: &str) -> Result<CounterAction, Rejection> {
        Counter::parse(&Fields::parse(text)?)
    }

    fn run(actions: &[&str]) -> (CounterState, Vec<String>) {
        let by = By {
            client: None,
            name: None,
            ordinal: None,
            rev: Revision(1),
            at: Millis(0),
        };
        let mut state = CounterState::default();
        let mut codes = Vec::new();
        for text in actions {
            let mut copy = state.clone();
            match parse(text).and_then(|action| Counter::apply(&mut copy, &action, &by)) {
                Ok(()) => state = copy,
                Err(refused) => codes.push(refused.code.into_owned()),
            }
        }
        (state, codes)
    }

    #[test]
    fn each_action_does_what_it_says() {
        let (state, refused) = run(&[
            r#"{"action":"plus"}"#,
            r#"{"action":"plus","by":41}"#,
            r#"{"action":"minus","by":2,"unknown":true}"#,
        ]);
        assert_eq!((state.value, refused.len()), (40, 0));
        assert_eq!(run(&[r#"{"action":"set","value":-7}"#]).0.value, -7);
        assert_eq!(
            run(&[r#"{"action":"plus"}"#, r#"{"action":"reset"}"#])
                .0
                .value,
            0
        );
    }

    #[test]
    fn the_value_stays_where_every_json_client_can_hold_it() {
        let (state, refused) = run(&[
            r#"{"action":"set","value":9007199254740991}"#,
            r#"{"action":"plus"}"#,
            r#"{"action":"set","value":9007199254740992}"#,
            r#"{"action":"set","value":-9223372036854775808}"#,
        ]);
        assert_eq!(state.value, MAX_VALUE);
        assert_eq!(refused, ["out_of_range"; 3]);
    }

    #[test]
    fn limits_hold_until_they_are_lifted_and_never_shut_out_the_value() {
        let (state, refused) = run(&[
            r#"{"action":"limits","min":0,"max":2}"#,
            r#"{"action":"plus","by":3}"#,
            r#"{"action":"minus"}"#,
            r#"{"action":"limits","min":1}"#,
            r#"{"action":"plus","by":2}"#,
            r#"{"action":"limits","max":null}"#,
            r#"{"action":"plus"}"#,
            r#"{"action":"set","value":-1}"#,
        ]);
        assert_eq!(
            state,
            CounterState {
                value: 3,
                min: Some(0),
                max: None
            }
        );
        assert_eq!(refused, ["out_of_range"; 4]);
    }

    #[test]
    fn what_is_wrong_with_an_action_is_named() {
        for (text, code, named) in [
            (r#"{}"#, "missing_field", "\"action\""),
            (r#"{"action":7}"#, "bad_field", "\"action\""),
            (r#"{"action":"Plus"}"#, "unknown_action", "plus, minus, set"),
            (r#"{"action":"plus","by":0}"#, "bad_field", "1 to 1000000"),
            (r#"{"action":"plus","by":1000001}"#, "bad_field", "\"by\""),
            (r#"{"action":"set"}"#, "missing_field", "\"value\""),
            (
                r#"{"action":"set","value":null}"#,
                "bad_field",
                "-9007199254740991 to",
            ),
            (r#"{"action":"limits"}"#, "missing_field", "\"min\""),
            (r#"{"action":"limits","min":"0"}"#, "bad_field", "or null"),
        ] {
            let refused = parse(text).unwrap_err();
            assert_eq!(refused.code, code, "{text}");
            assert!(
                refused.message.contains(named),
                "{text}: {}",
                refused.message
            );
        }
    }

    #[test]
    fn stored_actions_read_back() {
        for (text, stored) in [
            (r#"{"action":"plus","by":1}"#, r#"{"action":"plus"}"#),
            (
                r#"{"action":"minus","by":5}"#,
                r#"{"action":"minus","by":5}"#,
            ),
            (
                r#"{"action":"limits","min":null}"#,
                r#"{"action":"limits","min":null}"#,
            ),
            (
                r#"{"action":"limits","max":3}"#,
                r#"{"action":"limits","max":3}"#,
            ),
        ] {
            let action = parse(text).unwrap();
            assert_eq!(serde_json::to_string(&action).unwrap(), stored);
            assert_eq!(
                serde_json::from_str::<CounterAction>(stored).unwrap(),
                action
            );
        }
    }
}
