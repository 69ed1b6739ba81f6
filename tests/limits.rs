//! Every limit: what is past it is refused, and nothing else suffers.

mod support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use support::{
    Event, PLUS, Server, await_that,
    held::HeldJournal,
    http::{HANDSHAKE, get, handshake, request, request_with},
    in_process::InProcess,
    raw::{Raw, TEXT, frame},
};
use tallyroom::{
    journal::memory::MemoryJournal,
    limits::{Limits, MAX_ACTIONS_UNDERWAY, MAX_BATCH_ACTIONS, MAX_READINGS, MAX_WAITING_ACTIONS},
    model::{By, Model, counter::Counter},
    rejection::Rejection,
};

#[test]
fn a_connection_too_many_is_told_to_come_later_and_finds_place_after_a_leave() {
    let server = Server::start(&["--max-connections", "3"]);
    let mut clients: Vec<_> = (0..3).map(|_| server.client()).collect();
    let answer = handshake(server.port(), "/", &[]);
    answer.assert_problem(503, "overloaded");
    assert!(
        answer
            .header("retry-after")
            .unwrap()
            .parse::<u32>()
            .unwrap()
            > 0
    );
    clients[0].plus();
    clients[0].expect_state(1);
    clients.pop().unwrap().close();
    await_that("there is place again", || {
        support::open(server.port(), "/").is_ok_and(|mut fourth| fourth.next() == Event::Users(3))
    });
}

#[test]
fn a_handshake_that_is_refused_takes_no_place() {
    let server = Server::start(&["--max-connections", "1"]);
    for _ in 0..10 {
        assert_eq!(handshake(server.port(), "/r/a.b", &[]).status, 404);
        assert_eq!(
            handshake(server.port(), "/", &["Origin: http://evil.test"]).status,
            403
        );
        assert_eq!(
            request(server.port(), "GET", "/", &HANDSHAKE[..3]).status,
            400
        );
    }
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
}

#[test]
fn actions_past_the_rate_are_refused_and_those_within_it_are_counted() {
    let server = Server::start(&["--session-rate", "5"]);
    let mut client = server.client();
    let mut other = server.client();
    const SENT: usize = 200;
    client.send_often(PLUS, SENT);
    let (mut accepted, mut refused) = (0, 0);
    while accepted + refused < SENT as i64 {
        match client.next() {
            Event::State(value) => {
                accepted += 1;
                assert_eq!(value, accepted);
            }
            Event::Error(code) if code == "rate_limited" => refused += 1,
            Event::Users(_) => {}
            event => panic!("{event:?}"),
        }
    }
    assert!(
        (5..100).contains(&accepted),
        "{accepted} of {SENT} were accepted"
    );
    // The rate is each session's own.
    other.expect_state(accepted);
    other.plus();
    other.expect_state(accepted + 1);
    client.expect_state(accepted + 1);
    await_that("the session may act again", || {
        client.plus();
        !matches!(client.next(), Event::Error(_))
    });
}

#[test]
fn wrong_messages_count_against_the_rate() {
    let server = Server::start(&["--session-rate", "5"]);
    let mut client = server.client();
    client.send_often("{}", 100);
    let told: Vec<Event> = (0..100).map(|_| client.next()).collect();
    let rate_limited = Event::Error("rate_limited".to_owned());
    assert_eq!(told[0], Event::Error("missing_field".to_owned()));
    assert!(told.contains(&rate_limited), "{told:?}");
}

#[test]
fn a_message_may_have_as_many_bytes_as_it_is_set_to() {
    let server = Server::start(&["--max-message-bytes", "100"]);
    let message = |bytes: usize| format!("{PLUS:bytes$}");
    let mut client = Raw::join(server.port(), "/");
    client.write(&frame(TEXT, message(100).as_bytes())).unwrap();
    assert_eq!(client.next(), Event::State(1));
    client.write(&frame(TEXT, message(101).as_bytes())).unwrap();
    assert_eq!(client.read_to_end(), [Event::Closed(Some(1009))]);
    assert_eq!(server.client().first(), 1);
}

#[test]
fn without_a_limit_a_message_may_be_large() {
    let server = Server::start(&["--max-message-bytes", "0"]);
    let mut client = server.client();
    client.send(&format!("{PLUS}{}", " ".repeat(1 << 20)));
    assert_eq!(client.next(), Event::State(1));
}

/// A list that grows until the room is full.
struct List;

#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum ListAction {
    Add { text: String },
    Clear,
}

impl Model for List {
    const NAME: &'static str = "list";
    type State = Vec<String>;
    type Action = ListAction;

    fn apply(state: &mut Vec<String>, action: &ListAction, _: &By) -> Result<(), Rejection> {
        match action {
            ListAction::Add { text } => state.push(text.clone()),
            ListAction::Clear => state.clear(),
        }
        Ok(())
    }

    fn view(state: &Vec<String>) -> impl Serialize + '_ {
        state.len()
    }
}

#[test]
fn an_action_that_would_make_the_state_too_large_is_refused_and_harms_nobody() {
    let limits = Limits {
        max_state_bytes: Some(100),
        ..Limits::default()
    };
    let server = InProcess::start(List, Arc::new(MemoryJournal::new()), limits);
    let (mut ann, mut bob) = (server.client(), server.client());
    let add = |bytes: usize| format!(r#"{{"action":"add","text":"{}"}}"#, "x".repeat(bytes));
    // `["…"]` has four bytes beside the text, and another text three.
    ann.send(&add(96));
    assert_eq!((ann.next_state(), bob.next_state()), (1, 1));
    ann.send(&add(0));
    ann.expect_error("too_large");
    bob.send(r#"{"action":"clear"}"#);
    assert_eq!((ann.next_state(), bob.next_state()), (0, 0));
    bob.send(&add(97));
    bob.expect_error("too_large");
    bob.send_all([add(40), add(60), add(53), add(1), add(60)]);
    assert_eq!(ann.next_states(2), [1, 2]);
    let mut events: Vec<Event> = (0..5).map(|_| bob.next()).collect();
    events.retain(|event| !matches!(event, Event::State(_)));
    assert_eq!(events, vec![Event::Error("too_large".to_owned()); 3]);
    assert_eq!(server.client().first(), 2);
}

#[test]
fn half_a_head_is_cut_after_the_handshake_time() {
    let server = Server::start(&["--handshake-timeout", "1s"]);
    for half in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: webs",
    ] {
        let mut stream = support::connect(("127.0.0.1", server.port()));
        stream.write_all(half.as_bytes()).unwrap();
        let mut rest = Vec::new();
        // Ends with an answer such as 408 or without one, but ends.
        let ended = stream.read_to_end(&mut rest);
        let waiting = |err: std::io::Error| err.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!ended.is_err_and(waiting), "{half:?} was waited for");
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"));
    }
    // An open socket is not a head that is waited for.
    let mut client = server.client();
    let start = std::time::Instant::now();
    await_that("twice the time is over", || start.elapsed().as_secs() >= 2);
    client.plus();
    client.expect_state(1);
}

/// Acts nearly as often as a session may at a time, and is gone as soon as all of it was read.
fn act_and_leave(port: u16) {
    let mut visitor = Raw::join(port, "/");
    let often = frame(TEXT, PLUS.as_bytes()).repeat(MAX_ACTIONS_UNDERWAY - 1);
    visitor.write(&often).unwrap();
    visitor.stream.shutdown(Shutdown::Write).unwrap();
    visitor.read_to_end();
}

#[test]
fn whoever_acts_and_leaves_again_and_again_leaves_no_more_behind_than_may_wait() {
    let journal = HeldJournal::new();
    let server = InProcess::start(Counter, journal.clone(), Limits::default());
    // Beside what waits the first visitor's batch is in flight, and a full one is judged.
    let most = MAX_WAITING_ACTIONS + MAX_BATCH_ACTIONS + MAX_ACTIONS_UNDERWAY;
    for _ in 0..=most / (MAX_ACTIONS_UNDERWAY - 1) {
        act_and_leave(server.port());
    }
    let mut late = server.client();
    late.plus();
    late.expect_error("overloaded");
    let headers = ["Content-Type: application/json", "Idempotency-Key: order-7"];
    let path = "/api/rooms/main/actions";
    let posted = request_with(server.port(), "POST", path, &headers, PLUS);
    posted.assert_problem(503, "overloaded");
    journal.release(most);
    let taken = || get(server.port(), "/api/rooms/main").json()["value"].as_u64();
    await_that("what waited is in", || {
        taken() >= Some(MAX_WAITING_ACTIONS as u64)
    });
    late.plus();
    let counted = taken().unwrap() as usize;
    assert!(counted <= most + MAX_ACTIONS_UNDERWAY, "{counted}");
}

#[test]
fn as_many_journals_are_told_at_a_time_as_may_be() {
    let server = Server::start(&["--workers", "1", "--session-rate", "0"]);
    let mut client = server.client();
    client.send_often(PLUS, 20_000);
    client.expect_state(20_000);
    let ask = || {
        let mut stream = support::connect(("127.0.0.1", server.port()));
        let request = "GET /api/rooms/main/journal HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        (stream, String::from_utf8(begin.into()).unwrap())
    };
    let mut unread: Vec<_> = (0..MAX_READINGS).map(|_| ask()).collect();
    assert!(unread.iter().all(|(_, begin)| begin == "HTTP/1.1 200"));
    for path in ["/api/rooms/main/journal", "/api/export?room=main"] {
        get(server.port(), path).assert_problem(503, "overloaded");
    }
    unread.pop();
    await_that("there is place again", || {
        get(server.port(), "/api/export?room=main").status == 200
    });
    let twice = get(server.port(), "/api/export?room=main&room=main");
    assert_eq!(twice.lines().len(), 1);
}
