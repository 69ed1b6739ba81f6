//! What a session makes of its client's messages, and how it says things itself, by its dialect.
//!
//! It is told the time and touches no socket.

use std::time::{Duration, Instant};

use crate::{
    fields::Fields,
    limits::Limits,
    model::Model,
    protocol::{self, classic, v1},
    rate::Rate,
    rejection::Rejection,
    replica::{Asked, Declined, Number},
    room::Peer,
};

/// How long a client is asked to wait whose room cannot keep up.
const OVERLOADED: Duration = Duration::from_secs(1);

/// The longest that a client over its rate is asked to wait: then it has its whole burst again.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// The room cannot take more of this client's actions.
#[derive(Clone, Copy, Debug)]
pub struct Overloaded {
    /// The lowest number that is not known to be settled: it may be in flight, but sending it again
    /// does no harm.
    pub next: u64,
}

/// One side of what a session and its client say to each other.
#[derive(Debug)]
pub struct Dialogue {
    peer: Peer,
    rate: Option<Rate>,
    /// Until then the client was asked to wait.
    hold_until: Option<Instant>,
}

impl Dialogue {
    pub fn new(peer: Peer, limits: &Limits, now: Instant) -> Self {
        Self {
            peer,
            rate: limits.session_rate.map(|rate| Rate::new(rate, now)),
            hold_until: None,
        }
    }

    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Reads an action, for the room.
    ///
    /// # Errors
    ///
    /// What the client is told instead, as JSON.
    pub fn read<M: Model>(
        &mut self,
        text: &str,
        now: Instant,
        overloaded: Option<Overloaded>,
    ) -> Result<Asked<M::Action>, String> {
        let passes = self.rate.as_mut().is_none_or(|rate| rate.allows(now));
        match self.peer {
            Peer::Classic => {
                let action = match passes {
                    true => protocol::read_action::<M>(text).and_then(|action| match overloaded {
                        Some(_) => Err(too_much()),
                        None => Ok(action),
                    }),
                    false => Err(self.rate_limited()),
                };
                let action = action.map_err(|why| classic::error(&why))?;
                Ok(asked(action))
            }
            Peer::V1 { client, .. } => {
                let (n, fields) = numbered(text).map_err(|why| v1::error(&why, None))?;
                if let Some(Overloaded { next }) = overloaded {
                    return Err(v1::retry(n, next, &too_much(), OVERLOADED));
                }
                let action = match passes {
                    true => protocol::action_of::<M>(&fields).map_err(Declined::Refused),
                    false => {
                        self.hold(now);
                        Err(Declined::NotTaken(self.rate_limited()))
                    }
                };
                let left = |until: Instant| until.saturating_duration_since(now);
                Ok(Asked {
                    number: Some(Number { client, n }),
                    action,
                    hold: self.hold_until.map_or(Duration::ZERO, left),
                    session: None,
                    name: None,
                })
            }
        }
    }

    /// How long to wait before one more message is within the rate; for those that are told no errors.
    pub fn wait(&self, now: Instant) -> Duration {
        let rate = self.rate.as_ref();
        rate.map_or(Duration::ZERO, |rate| rate.wait(now))
    }

    /// Counts a message that was waited for.
    pub fn count(&mut self, now: Instant) {
        if let Some(rate) = &mut self.rate {
            rate.allows(now);
        }
    }

    /// An error that belongs to no number.
    pub fn error(&self, why: &Rejection) -> String {
        match self.peer {
            Peer::Classic => classic::error(why),
            Peer::V1 { .. } => v1::error(why, None),
        }
    }

    /// What is said before a close that the server wants.
    pub fn bye(&self, code: u16, random: u128) -> Option<String> {
        /// Spread over this time, clients come back as no stampede.
        const SPREAD_MS: u128 = 5_000;
        const AT_LEAST_MS: u64 = 100;
        let spread = u64::try_from(random % SPREAD_MS).unwrap_or(0);
        let after = Duration::from_millis(AT_LEAST_MS + spread);
        match self.peer {
            Peer::V1 { .. } if matches!(code, 1011..=1013) => Some(v1::bye(code, after)),
            _ => None,
        }
    }

    /// Each action over the rate makes the wait longer by as much as it would have taken.
    fn hold(&mut self, now: Instant) {
        let Some(rate) = &self.rate else { return };
        let next = now + rate.wait(now);
        let until = self.hold_until.unwrap_or(now).max(next) + rate.interval();
        self.hold_until = Some(until.min(now + LONGEST_HOLD));
    }

    fn rate_limited(&self) -> Rejection {
        let rate = self.rate.as_ref().map_or(0, Rate::a_second);
        let message =
            format!("more than {rate} actions a second (--session-rate); the action was not taken");
        Rejection::new("rate_limited", message)
    }
}

/// An action without a number.
pub fn asked<A>(action: A) -> Asked<A> {
    Asked {
        number: None,
        action: Ok(action),
        hold: Duration::ZERO,
        session: None,
        name: None,
    }
}

fn numbered(text: &str) -> Result<(u64, Fields<'_>), Rejection> {
    let mut fields = Fields::parse(text)?;
    let n = v1::take_number(&mut fields)?;
    Ok((n, fields))
}

fn too_much() -> Rejection {
    let message = "the room cannot keep up; the action was not taken, try again later";
    Rejection::new("overloaded", message)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;
    use crate::{ids::ClientId, model::counter::Counter, permissions::Permissions};

    fn dialogue(rate: u32, now: Instant) -> Dialogue {
        let limits = Limits {
            session_rate: Some(rate),
            ..Limits::default()
        };
        let peer = Peer::V1 {
            client: ClientId(Uuid::from_u128(1)),
            permissions: Permissions { admin: false },
        };
        Dialogue::new(peer, &limits, now)
    }

    #[test]
    fn whoever_is_over_the_rate_waits_longer_with_each_action() {
        let now = Instant::now();
        let mut dialogue = dialogue(10, now);
        let mut hold = |n: u64, now| {
            let text = format!(r#"{{"action":"plus","n":{n}}}"#);
            let asked = dialogue.read::<Counter>(&text, now, None).unwrap();
            (asked.action.is_ok(), asked.hold)
        };
        for n in 1..=10 {
            assert_eq!(hold(n, now), (true, Duration::ZERO));
        }
        assert_eq!(hold(11, now), (false, Duration::from_millis(200)));
        assert_eq!(hold(12, now), (false, Duration::from_millis(300)));
        for n in 13..100 {
            assert!(hold(n, now).1 <= LONGEST_HOLD);
        }
        let later = now + Duration::from_millis(950);
        assert_eq!(hold(11, later), (true, Duration::from_millis(50)));
    }

    #[test]
    fn a_message_with_a_number_is_an_action_whatever_else_is_wrong_with_it() {
        let now = Instant::now();
        let mut dialogue = dialogue(1000, now);
        let asked = dialogue.read::<Counter>(r#"{"n":1,"action":7}"#, now, None);
        let declined = asked.unwrap().action.unwrap_err();
        assert!(matches!(declined, Declined::Refused(why) if why.code == "bad_field"));
        for (text, code) in [
            ("7", "not_an_object"),
            (r#"{"action":"plus"}"#, "missing_field"),
            (r#"{"action":"plus","n":0}"#, "bad_field"),
        ] {
            let said = dialogue.read::<Counter>(text, now, None).unwrap_err();
            let said: Value = serde_json::from_str(&said).unwrap();
            assert_eq!((said["code"].as_str(), said.get("n")), (Some(code), None));
        }
    }

    #[test]
    fn byes_are_spread() {
        let dialogue = dialogue(1, Instant::now());
        let after = |random| {
            let bye: Value = serde_json::from_str(&dialogue.bye(1012, random)?).ok()?;
            bye["reconnect_after_ms"].as_u64()
        };
        assert_eq!((after(0), after(4_999)), (Some(100), Some(5_099)));
        assert_eq!(dialogue.bye(1000, 0), None);
    }
}
