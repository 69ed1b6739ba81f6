//! The actions of one writer that are underway, decided without a socket or a clock.

use std::{collections::VecDeque, time::Instant};

use bytestring::ByteString;

use super::{fault::Fault, plan::Dialect};
use crate::{
    client::{
        event::{Event, Welcome},
        moment::Moment,
        numbers::{Action, Numbers, Standing, Ticket, Verdict},
    },
    model::counter::CounterAction,
};

const PLUS: &str = r#"{"action":"plus"}"#;

/// One writer.
pub struct Writer {
    /// How many more actions it may begin, where a rate says how many.
    pub allotted: usize,
    way: Way,
}

enum Way {
    Classic {
        /// The places at which its actions are in effect at the latest: it is not told which state its own made.
        unanswered: VecDeque<usize>,
        unsent: usize,
    },
    V1 {
        numbers: Box<Numbers>,
        plus: Action,
        window: usize,
        begun: u64,
    },
}

impl Writer {
    pub fn new(dialect: Dialect) -> Self {
        let way = match dialect {
            Dialect::Classic => Way::Classic {
                unanswered: VecDeque::new(),
                unsent: 0,
            },
            Dialect::V1 => Way::V1 {
                numbers: Box::default(),
                plus: Action::new(&CounterAction::Plus { by: 1 })
                    .expect("an action of ours is one"),
                window: 0,
                begun: 0,
            },
        };
        Self { allotted: 0, way }
    }

    /// How many actions it may begin, of which it may have so many unanswered.
    pub fn room(&self, max_unanswered: usize) -> usize {
        match &self.way {
            Way::Classic { unanswered, .. } => max_unanswered.saturating_sub(unanswered.len()),
            // Who was asked to wait begins nothing more.
            Way::V1 { numbers, .. } if numbers.resumes_at().is_some() => 0,
            Way::V1 {
                numbers, window, ..
            } => max_unanswered
                .min(*window)
                .saturating_sub(numbers.waiting()),
        }
    }

    /// Begins an action, which is the `nth` of all writers' and is then to be sent; the first is 1.
    pub fn begin(&mut self, nth: usize) {
        match &mut self.way {
            Way::Classic { unanswered, unsent } => {
                unanswered.push_back(nth);
                *unsent += 1;
            }
            Way::V1 {
                numbers,
                plus,
                begun,
                ..
            } => {
                *begun += 1;
                numbers.submit(Ticket(*begun), plus.clone());
            }
        }
    }

    /// The next message to send.
    pub fn next_message(&mut self, now: Moment) -> Option<ByteString> {
        match &mut self.way {
            Way::Classic { unsent, .. } => {
                *unsent = unsent.checked_sub(1)?;
                Some(ByteString::from_static(PLUS))
            }
            Way::V1 { numbers, .. } => {
                numbers.resume(now.monotonic);
                numbers.next_message(now).map(ByteString::from)
            }
        }
    }

    /// When it has to be asked again for a message, because the server wanted it to wait.
    pub fn resumes_at(&self) -> Option<Instant> {
        match &self.way {
            Way::Classic { .. } => None,
            Way::V1 { numbers, .. } => numbers.resumes_at(),
        }
    }

    /// It saw so many actions in effect.
    pub fn saw(&mut self, in_effect: i64) {
        if let Way::Classic { unanswered, .. } = &mut self.way {
            while unanswered
                .front()
                .is_some_and(|nth| *nth as i64 <= in_effect)
            {
                unanswered.pop_front();
            }
        }
    }

    /// Takes what the server says in `tallyroom.v1`, and gives how many of its actions are accepted by that.
    ///
    /// # Errors
    ///
    /// One was refused, or it cannot be so.
    pub fn hear(&mut self, event: Event, now: Moment) -> Result<usize, Fault> {
        let Way::V1 {
            numbers, window, ..
        } = &mut self.way
        else {
            return Ok(0);
        };
        match event {
            Event::Welcome(welcome) => {
                *window = window_of(&welcome);
                if numbers.welcomed(now, &welcome) == Standing::Forgotten {
                    return Err(Fault::Anew);
                }
            }
            Event::Ack(ack) => numbers.acked(ack).map_err(|_| Fault::Breach("an ack"))?,
            Event::Retry(retry) => numbers
                .put_off(&retry, now.monotonic)
                .map_err(|_| Fault::Breach("a retry"))?,
            Event::Error(refusal) => return Err(refusal.into()),
            _ => {}
        }
        numbers
            .take_verdicts()
            .into_iter()
            .try_fold(0, |accepted, (_, verdict)| match verdict {
                Verdict::Accepted { .. } => Ok(accepted + 1),
                Verdict::Refused(why) => Err(Fault::Refused(why)),
                Verdict::Unsure => Err(Fault::Anew),
            })
    }
}

fn window_of(welcome: &Welcome) -> usize {
    usize::try_from(welcome.window.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::{
        client::event::{Ack, Fault as Refusal, Retry},
        ids::{ClientId, Epoch, Millis, Revision},
        rejection::Rejection,
    };

    fn moment(start: Instant, millis: u64) -> Moment {
        Moment {
            monotonic: start + Duration::from_millis(millis),
            wall: Millis(1_800_000_000_000 + millis),
        }
    }

    fn welcome(window: u64) -> Event {
        Event::Welcome(Welcome {
            client: ClientId(Uuid::from_u128(7)),
            epoch: Epoch(Uuid::from_u128(1)),
            rev: Revision(40),
            n: 0,
            window,
            refused: Vec::new(),
            beat_ms: None,
        })
    }

    fn messages(writer: &mut Writer, now: Moment) -> Vec<String> {
        std::iter::from_fn(|| writer.next_message(now).map(|text| text.to_string())).collect()
    }

    #[test]
    fn a_classic_action_is_answered_by_a_state_that_covers_it() {
        let mut writer = Writer::new(Dialect::Classic);
        writer.begin(3);
        writer.begin(5);
        assert_eq!(
            messages(&mut writer, moment(Instant::now(), 0)),
            [PLUS, PLUS]
        );
        for (in_effect, room) in [(2, 0), (3, 1), (2, 1), (7, 2)] {
            writer.saw(in_effect);
            assert_eq!(writer.room(2), room, "{in_effect}");
        }
    }

    #[test]
    fn numbers_are_sent_once_and_again_when_the_server_wants_it() {
        let start = Instant::now();
        let mut writer = Writer::new(Dialect::V1);
        assert_eq!(writer.room(5), 0, "before the welcome nothing is sent");
        writer.hear(welcome(3), moment(start, 0)).unwrap();
        assert_eq!(writer.room(5), 3, "no more than the window");
        (1..=3).for_each(|nth| writer.begin(nth));
        let text = |n: u64| format!(r#"{{"action":"plus","n":{n}}}"#);
        assert_eq!(
            messages(&mut writer, moment(start, 0)),
            [text(1), text(2), text(3)]
        );

        let ack = Event::Ack(Ack {
            n: 1,
            rev: Revision(41),
        });
        assert_eq!(writer.hear(ack, moment(start, 1)), Ok(1));
        for n in [2, 3] {
            let retry = Event::Retry(Retry {
                n,
                expected: 2,
                code: "rate_limited".to_owned(),
                message: String::new(),
                after_ms: 100,
            });
            assert_eq!(writer.hear(retry, moment(start, 2)), Ok(0));
        }
        assert_eq!(writer.room(5), 0, "who is to wait begins nothing");
        assert_eq!(messages(&mut writer, moment(start, 101)), [""; 0]);
        assert_eq!(
            writer.resumes_at(),
            Some(start + Duration::from_millis(102))
        );
        assert_eq!(
            messages(&mut writer, moment(start, 102)),
            [text(2), text(3)]
        );
        let ack = Event::Ack(Ack {
            n: 3,
            rev: Revision(43),
        });
        assert_eq!(writer.hear(ack, moment(start, 103)), Ok(2));
    }

    #[test]
    fn a_refusal_and_what_cannot_be_end_it() {
        let now = moment(Instant::now(), 0);
        let mut writer = Writer::new(Dialect::V1);
        writer.hear(welcome(3), now).unwrap();
        let early = Event::Ack(Ack {
            n: 1,
            rev: Revision(41),
        });
        assert_eq!(writer.hear(early, now), Err(Fault::Breach("an ack")));
        let refused = Event::Error(Refusal {
            code: "out_of_range".to_owned(),
            message: "no".to_owned(),
            n: Some(1),
        });
        assert_eq!(
            writer.hear(refused, now),
            Err(Fault::Refused(Rejection::new("out_of_range", "no")))
        );
    }
}
