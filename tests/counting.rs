//! What a counter is for: everybody who presses is counted, and everybody sees it.

mod support;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use support::{
    Client, Event, MINUS, PATIENCE, PLUS, Server,
    raw::{PING, Raw, TEXT, frame},
};

const MAX: i64 = 9_007_199_254_740_991;

#[test]
fn the_classic_dialect_is_spoken_byte_for_byte() {
    let server = Server::start(&[]);
    let mut first = support::open(server.port(), "/").unwrap();
    assert_eq!(first.next_text().unwrap(), r#"{"type":"users","count":1}"#);
    assert_eq!(first.next_text().unwrap(), r#"{"type":"state","value":0}"#);
    first.send(r#"{"action": "minus"}"#);
    assert_eq!(first.next_text().unwrap(), r#"{"type":"state","value":-1}"#);

    let mut second = support::open(server.port(), "/").unwrap();
    assert_eq!(second.next_text().unwrap(), r#"{"type":"users","count":2}"#);
    assert_eq!(
        second.next_text().unwrap(),
        r#"{"type":"state","value":-1}"#
    );
    assert_eq!(first.next_text().unwrap(), r#"{"type":"users","count":2}"#);

    second.send("{\n \"unknown\": [{}, null],\t\"action\" :\r\n\"plus\" }");
    assert_eq!(first.next_text().unwrap(), r#"{"type":"state","value":0}"#);
    assert_eq!(second.next_text().unwrap(), r#"{"type":"state","value":0}"#);

    second.close();
    assert_eq!(first.next_text().unwrap(), r#"{"type":"users","count":1}"#);
}

#[test]
fn every_action_is_seen_by_everybody() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client(), server.client());
    for (action, value) in [
        (PLUS, 1),
        (r#"{"action":"plus","by":1000000}"#, 1_000_001),
        (MINUS, 1_000_000),
        (r#"{"action":"minus","by":3}"#, 999_997),
        (r#"{"action":"set","value":-9007199254740991}"#, -MAX),
        (r#"{"action":"reset"}"#, 0),
        (r#"{"action":"reset"}"#, 0),
        (r#"{"action":"limits","min":0,"max":5}"#, 0),
        (r#"{"action":"plus","by":5}"#, 5),
        (r#"{"action":"limits","max":null}"#, 5),
        (r#"{"action":"set","value":9007199254740991}"#, MAX),
        (r#"{"action":"limits","min":null}"#, MAX),
    ] {
        ann.send(action);
        assert_eq!(
            (ann.next_state(), bob.next_state()),
            (value, value),
            "{action}"
        );
    }
}

#[test]
fn what_leaves_the_range_changes_nothing_and_only_its_sender_hears_of_it() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = (server.client(), server.client());
    ann.expect_users(2);
    ann.send(r#"{"action":"limits","min":-1,"max":2}"#);
    assert_eq!((ann.next_state(), bob.next_state()), (0, 0));
    for refused in [
        r#"{"action":"plus","by":3}"#,
        r#"{"action":"minus","by":2}"#,
        r#"{"action":"set","value":3}"#,
        r#"{"action":"set","value":9007199254740992}"#,
        r#"{"action":"set","value":-9223372036854775808}"#,
        r#"{"action":"limits","min":1}"#,
        r#"{"action":"limits","max":-1}"#,
        r#"{"action":"limits","min":2,"max":1}"#,
    ] {
        bob.send(refused);
        bob.expect_error("out_of_range");
    }
    bob.plus();
    assert_eq!(ann.next(), Event::State(1), "the refused left a trace");
    assert_eq!(bob.next(), Event::State(1));
    let newcomer = server.client();
    assert_eq!(newcomer.first(), 1);
}

#[test]
fn accepted_and_refused_in_one_burst_are_told_apart() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(r#"{"action":"limits","min":0,"max":10}"#);
    client.expect_state(0);
    client.send_often(PLUS, 25);
    let (mut states, mut errors) = (Vec::new(), 0);
    while states.len() < 10 || errors < 15 {
        match client.next() {
            Event::State(value) => states.push(value),
            Event::Error(code) if code == "out_of_range" => errors += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(states, (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_late_joiner_gets_the_current_state() {
    let server = Server::start(&[]);
    let mut early = server.client();
    early.send_often(PLUS, 42);
    early.expect_state(42);
    assert_eq!(server.client().first(), 42);
}

#[test]
fn five_hundred_actions_sent_without_waiting_give_five_hundred_states_in_order() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = (0..5).map(|_| server.client()).collect();
    clients[0].send_often(PLUS, 500);
    let expected: Vec<i64> = (1..=500).collect();
    for client in &mut clients {
        assert_eq!(client.next_states(500), expected);
    }
}

#[test]
fn a_message_may_come_in_fragments_with_a_ping_between_them() {
    let server = Server::start(&[]);
    let mut client = Raw::join(server.port(), "/");
    let parts = [
        frame(TEXT & 0x7f, br#"{"act"#),
        frame(PING, b"here?"),
        frame(0x00, b""),
        frame(
            0x00,
            r#"ion":"plus","note":"é"#.as_bytes().split_last().unwrap().1,
        ),
        frame(0x80, &[&"é".as_bytes()[1..], b"\"}"].concat()),
    ];
    for part in parts {
        for byte in part {
            client.write(&[byte]).unwrap();
        }
    }
    assert_eq!(client.next_frame().unwrap(), (10, b"here?".to_vec()));
    assert_eq!(client.next(), Event::State(1));
    client.write(&frame(TEXT, PLUS.as_bytes())).unwrap();
    assert_eq!(client.next(), Event::State(2));
}

const CLIENTS: usize = 20;
const EACH: usize = 5000;

#[test]
fn a_hundred_thousand_mixed_actions_of_twenty_clients_are_counted_exactly() {
    let told = crowd(|client, nth| match (client + nth) % 4 {
        0 => (r#"{"action":"minus"}"#.to_owned(), -1),
        1 => (r#"{"action":"plus"}"#.to_owned(), 1),
        2 => (
            format!(r#"{{"action":"plus","by":{}}}"#, nth + 1),
            nth as i64 + 1,
        ),
        _ => (format!(r#"{{"action":"minus","by":{}}}"#, 7), -7),
    });
    for other in &told[1..] {
        assert!(*other == told[0], "two clients saw another history");
    }
}

#[test]
fn a_hundred_thousand_times_plus_is_seen_as_every_number_once_by_everybody() {
    let expected: Vec<i64> = (1..=(CLIENTS * EACH) as i64).collect();
    for told in crowd(|_, _| (PLUS.to_owned(), 1)) {
        assert!(told == expected, "a client missed a number");
    }
}

/// Lets all clients act at once, half of them one action at a time, and gives the states that each
/// was told.
fn crowd(action: impl Fn(usize, usize) -> (String, i64) + Sync) -> Vec<Vec<i64>> {
    let server = Server::start(&["--heartbeat", "0"]);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.client()).collect();
    let gauge = Arc::new(Gauge::default());
    let all = CLIENTS * EACH;
    let told = thread::scope(|scope| {
        for (nth, client) in clients.iter().enumerate() {
            let (mut sender, gauge, action) = (client.sender(), gauge.clone(), &action);
            let chunk = if nth % 2 == 0 { 1 } else { 100 };
            scope.spawn(move || {
                for first in (0..EACH).step_by(chunk) {
                    let seen = gauge.send(chunk, nth);
                    let actions = (first..first + chunk).map(|at| action(nth, at).0);
                    sender.send_all(actions);
                    if chunk == 1 {
                        gauge.await_next(nth, seen);
                    }
                }
            });
        }
        let reading: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(nth, client)| {
                let gauge = gauge.clone();
                scope.spawn(move || {
                    let mut told = Vec::with_capacity(all);
                    while told.len() < all {
                        told.push(client.next_state());
                        gauge.saw(nth, told.len());
                    }
                    told
                })
            })
            .collect();
        let told = reading.into_iter().map(|reading| reading.join().unwrap());
        told.collect::<Vec<_>>()
    });
    let steps = (0..CLIENTS).flat_map(|client| (0..EACH).map(move |nth| (client, nth)));
    let sum: i64 = steps.map(|(client, nth)| action(client, nth).1).sum();
    assert_eq!(told[0].last(), Some(&sum));
    assert_eq!(server.client().first(), sum);
    told
}

/// Keeps the senders from getting so far ahead of the slowest reader that it would be given only
/// the newest state.
#[derive(Default)]
struct Gauge {
    sent: AtomicUsize,
    seen: [AtomicUsize; CLIENTS],
    lock: Mutex<()>,
    changed: Condvar,
}

impl Gauge {
    const AHEAD: usize = 3500;

    /// Waits until `count` more may be sent, and says how many states the sender has seen.
    fn send(&self, count: usize, nth: usize) -> usize {
        self.await_that(|| {
            let slowest = self.seen.iter().map(|seen| seen.load(Ordering::SeqCst));
            let may = slowest.min().unwrap() + Self::AHEAD;
            let more = |sent| (sent + count <= may).then_some(sent + count);
            let order = Ordering::SeqCst;
            self.sent.fetch_update(order, order, more).is_ok()
        });
        self.seen[nth].load(Ordering::SeqCst)
    }

    fn await_next(&self, nth: usize, seen: usize) {
        self.await_that(|| self.seen[nth].load(Ordering::SeqCst) > seen);
    }

    fn saw(&self, nth: usize, count: usize) {
        self.seen[nth].store(count, Ordering::SeqCst);
        if count.is_multiple_of(32) || count == self.sent.load(Ordering::SeqCst) {
            drop(self.lock.lock().unwrap());
            self.changed.notify_all();
        }
    }

    fn await_that(&self, mut condition: impl FnMut() -> bool) {
        let held = self.lock.lock().unwrap();
        let waited = self
            .changed
            .wait_timeout_while(held, PATIENCE, |()| !condition());
        assert!(!waited.unwrap().1.timed_out(), "nothing more was told");
    }
}
