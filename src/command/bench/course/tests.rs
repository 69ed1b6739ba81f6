use std::time::{Duration, Instant};

use super::{
    super::{plan::tests::plan, seen::Stalled},
    *,
};
use crate::ids::Millis;

/// A run whose clients are all in, at the value 7, and that has begun.
struct Told {
    course: Course,
    start: Instant,
}

fn moment(start: Instant, millis: u64) -> Moment {
    Moment {
        monotonic: start + Duration::from_millis(millis),
        wall: Millis(1_800_000_000_000 + millis),
    }
}

impl Told {
    fn begun(plan: Plan) -> Self {
        let start = Instant::now();
        let mut told = Self {
            start,
            course: Course::new(plan),
        };
        for client in 0..told.course.clients.len() {
            let users = told.course.clients.len();
            told.say(client, 0, &format!(r#"{{"type":"users","count":{users}}}"#))
                .unwrap();
            if told.course.plan.dialect == Dialect::V1 {
                told.say(client, 0, &welcome()).unwrap();
            }
            told.state(client, 0, 7).unwrap();
        }
        assert_eq!(told.course.missing(), None);
        told.course.begin(start);
        told
    }

    fn say(&mut self, client: usize, millis: u64, text: &str) -> Result<(), Fault> {
        self.course.hear(client, moment(self.start, millis), text)
    }

    /// In `tallyroom.v1` the revision is 100 more than the value.
    fn state(&mut self, client: usize, millis: u64, value: i64) -> Result<(), Fault> {
        let rev = value + 100;
        self.say(
            client,
            millis,
            &format!(r#"{{"type":"state","rev":{rev},"value":{value}}}"#),
        )
    }

    fn sent(&mut self, client: usize, millis: u64) -> usize {
        let now = moment(self.start, millis);
        std::iter::from_fn(|| self.course.next_message(client, now)).count()
    }
}

fn welcome() -> String {
    let id = uuid::Uuid::nil();
    format!(r#"{{"type":"welcome","client":"{id}","epoch":"{id}","rev":107,"n":0,"window":1024}}"#)
}

#[test]
fn a_run_in_which_all_see_everything_is_complete() {
    // Of three clients the one between writes.
    let mut told = Told::begun(plan(Dialect::Classic, 2, 1, 2));
    assert_eq!(told.sent(1, 10), 1, "one at a time");
    assert_eq!(told.sent(0, 10), 0);
    for client in 0..3 {
        told.state(client, 15, 8).unwrap();
    }
    assert_eq!(told.sent(1, 20), 1);
    for (client, millis) in [(0, 30), (2, 31), (1, 32)] {
        assert!(!told.course.is_over());
        told.state(client, millis, 9).unwrap();
    }
    assert!(told.course.is_over());
    assert_eq!(told.sent(1, 40), 0, "there are no more");
    let course = &told.course;
    assert_eq!(course.shortcomings(), [""; 0]);
    assert_eq!((course.in_effect(), course.told().events), (2, 6));
    assert_eq!(course.took(told.start), Duration::from_millis(32));
    let latency = course.latency().quantiles().unwrap();
    assert!((4.9..5.1).contains(&latency.p50), "{latency:?}");
    assert!(
        (10.9..11.1).contains(&latency.max),
        "the writer's is not measured: {latency:?}"
    );
}

#[test]
fn what_is_left_out_told_twice_or_late_is_counted() {
    let mut told = Told::begun(Plan {
        pipeline: 5,
        ..plan(Dialect::Classic, 2, 1, 5)
    });
    assert_eq!(told.sent(1, 0), 5);
    for (client, values) in [
        (0, &[8, 9, 9, 10, 11, 12][..]),
        (1, &[8, 12]),
        (2, &[8, 9, 8, 9, 10, 11, 12]),
    ] {
        for value in values {
            told.state(client, 10, *value).unwrap();
        }
    }
    assert!(told.course.is_over());
    let expected = [
        "3 states were left out",
        "1 state was told twice",
        "1 state was told after newer ones",
    ];
    assert_eq!(told.course.shortcomings(), expected);
}

#[test]
fn what_is_missing_is_named() {
    let mut told = Told::begun(plan(Dialect::Classic, 1, 1, 1));
    assert_eq!(told.sent(0, 0), 1);
    told.state(0, 10, 8).unwrap();
    assert_eq!(
        told.course.shortcomings(),
        ["1 of 2 clients did not see the last state"]
    );
    told.state(1, 10, 8).unwrap();
    assert_eq!(told.course.shortcomings(), [""; 0]);
    told.state(1, 20, 7).unwrap();
    let expected = [
        "1 of 2 clients ended at another state",
        "1 state was told after newer ones",
    ];
    assert_eq!(told.course.shortcomings(), expected);
}

#[test]
fn more_than_was_sent_is_of_somebody_else() {
    let mut told = Told::begun(plan(Dialect::Classic, 1, 1, 10));
    assert_eq!(told.sent(0, 0), 1);
    told.state(1, 10, 8).unwrap();
    assert_eq!(
        told.state(1, 10, 9),
        Err(Fault::Beyond { seen: 2, sent: 1 })
    );
}

#[test]
fn a_room_that_went_back_and_is_silent_is_given_up() {
    let mut told = Told::begun(plan(Dialect::Classic, 1, 1, 10));
    assert_eq!(told.sent(0, 0), 1);
    let later = told.start + Duration::from_secs(60);
    assert!(!told.course.is_stuck(later), "a server may take its time");
    told.state(1, 10, 6).unwrap();
    assert!(!told.course.is_stuck(told.start + Duration::from_millis(20)));
    assert!(told.course.is_stuck(later));
}

#[test]
fn a_rate_lets_actions_go_when_they_are_due_and_counts_from_then() {
    let mut told = Told::begun(Plan {
        rate: Some(100),
        ..plan(Dialect::Classic, 1, 2, 4)
    });
    let writers: Vec<usize> = (0..3)
        .filter(|client| told.course.parts[*client].writer.is_some())
        .collect();
    assert_eq!(told.sent(writers[0], 0), 0);
    let now = told.start + Duration::from_millis(25);
    told.course.allot(now);
    told.course.allot(now);
    assert_eq!(
        [told.sent(writers[0], 25), told.sent(writers[1], 25)],
        [2, 1],
        "in turn"
    );
    told.course.allot(told.start + Duration::from_secs(1));
    assert_eq!(
        [told.sent(writers[0], 40), told.sent(writers[1], 40)],
        [0, 1]
    );
    let expected = [0, 10, 20, 30].map(Duration::from_millis);
    assert_eq!(told.course.sent_at, expected);
}

#[test]
fn with_numbers_newer_states_may_stand_for_older_ones_and_all_must_be_acknowledged() {
    let mut told = Told::begun(Plan {
        pipeline: 3,
        ..plan(Dialect::V1, 1, 1, 3)
    });
    assert_eq!(told.sent(0, 0), 3);
    told.state(1, 10, 10).unwrap();
    told.state(0, 10, 10).unwrap();
    assert_eq!(
        told.course.shortcomings(),
        ["3 actions were not acknowledged"]
    );
    told.say(0, 12, r#"{"type":"ack","n":3,"rev":110}"#)
        .unwrap();
    assert!(told.course.is_over());
    assert_eq!(told.course.shortcomings(), [""; 0]);
    assert_eq!(told.course.told().skipped, 4);
}

#[test]
fn with_numbers_the_value_must_be_right_as_well() {
    let mut told = Told::begun(plan(Dialect::V1, 1, 1, 1));
    assert_eq!(told.sent(0, 0), 1);
    for client in [0, 1] {
        told.say(client, 10, r#"{"type":"state","rev":108,"value":6}"#)
            .unwrap();
    }
    told.say(0, 10, r#"{"type":"ack","n":1,"rev":108}"#)
        .unwrap();
    assert_eq!(
        told.course.shortcomings(),
        ["2 of 2 clients ended at another state"]
    );
    assert_eq!(told.say(1, 20, &welcome()), Err(Fault::Anew));
}

#[test]
fn what_a_server_refuses_ends_the_run() {
    let mut told = Told::begun(plan(Dialect::Classic, 1, 1, 1));
    let error = r#"{"type":"error","code":"rate_limited","message":"too fast"}"#;
    let fault = told.say(0, 0, error).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "an action was refused: too fast (rate_limited)"
    );
    let fault = told.say(1, 0, "hello").unwrap_err();
    assert_eq!(
        fault.to_string(),
        "this is no server of the classic dialect: it said \"hello\""
    );
}

/// Two clients that read, the first of which writes, and three that stall.
fn stalled_at(actions: usize) -> Told {
    let mut told = Told::begun(Plan {
        stalled: 3,
        pipeline: actions,
        ..plan(Dialect::Classic, 1, 1, actions)
    });
    assert_eq!(told.sent(0, 0), actions);
    for client in [0, 1] {
        for value in 1..=actions as i64 {
            told.state(client, 10, 7 + value).unwrap();
        }
    }
    assert!(told.course.is_over(), "nobody waits for stalled ones");
    told
}

#[test]
fn stalled_clients_come_to_the_end_or_are_dropped() {
    let mut told = stalled_at(5);
    let expected = ["3 of 3 stalled clients did not come to the last state"];
    assert_eq!(told.course.shortcomings(), expected);
    told.state(2, 20, 9).unwrap();
    told.state(2, 20, 12).unwrap();
    told.state(3, 20, 9).unwrap();
    told.course.lose(3, Fault::closed(1013)).unwrap();
    told.course.lose(4, Fault::cut("the end")).unwrap();
    // Who was told everything is not dropped for nothing.
    told.course.lose(2, Fault::closed(1013)).unwrap();
    let expected = Stalled {
        count: 3,
        caught_up: 1,
        dropped: 2,
    };
    assert_eq!(told.course.stalled(), expected);
    assert_eq!(told.course.shortcomings(), [""; 0]);
    let found = told.course.told();
    assert_eq!((found.events, found.skipped), (10, 0), "of the others");
}

#[test]
fn what_stalled_clients_are_told_is_in_order_and_nobody_else_is_dropped() {
    let mut told = stalled_at(5);
    for value in [9, 8, 8, 12] {
        told.state(2, 20, value).unwrap();
    }
    let expected = [
        "2 of 3 stalled clients did not come to the last state",
        "1 state was told twice",
        "1 state was told after newer ones",
    ];
    assert_eq!(told.course.shortcomings(), expected);
    for (client, why) in [
        (0, Fault::closed(1013)),
        (3, Fault::closed(1011)),
        (3, Fault::Breach("a WebSocket frame")),
    ] {
        assert_eq!(told.course.lose(client, why.clone()), Err(why));
    }
}

#[test]
fn who_is_lost_before_the_run_spoils_it() {
    let mut course = Course::new(Plan {
        stalled: 1,
        ..plan(Dialect::Classic, 0, 1, 1)
    });
    let why = Fault::closed(1013);
    assert_eq!(course.lose(1, why.clone()), Err(why));
}
