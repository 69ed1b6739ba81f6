//! Who reads slowly costs nobody anything: the others see everything, the server does not grow,
//! and the slow one goes on with the newest state.

mod support;

use std::time::Duration;

use support::{
    Client, Event, PLUS, Server, await_that,
    in_process::transport,
    raw::{Raw, TEXT, frame, with_little_buffer},
};
use tallyroom::socket::Transport;

/// A client that takes little into its own buffer before the server has to keep the rest.
fn client_with_little_buffer(server: &Server) -> Raw {
    Raw::open_by(with_little_buffer(server.port()), "/")
}

/// Acts often, and reads until all that is in the state; gives how many users are there now.
fn act_often(ann: &mut Client, value: &mut i64, mut users: usize) -> usize {
    ann.send_often(PLUS, 200);
    *value += 200;
    loop {
        match ann.next() {
            Event::State(newest) if newest == *value => return users,
            Event::State(_) => {}
            Event::Users(count) => users = count,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_others_see_every_state_and_the_server_does_not_grow() {
    const ACTIONS: i64 = 50_000;
    const BURST: i64 = 500;
    let server = Server::start(&["--heartbeat", "0", "--session-rate", "0"]);
    let mut slow = client_with_little_buffer(&server);
    let (mut ann, mut bob) = (server.client(), server.client());
    // What the server has for its readers anyway is there before it is measured.
    ann.send_often(PLUS, BURST as usize);
    ann.expect_state(BURST);
    bob.expect_state(BURST);
    let before = server.resident();
    for burst in 1..ACTIONS / BURST {
        ann.send_often(PLUS, BURST as usize);
        let expected: Vec<i64> = (1..=BURST).map(|nth| burst * BURST + nth).collect();
        assert_eq!(ann.next_states(BURST as usize), expected);
        assert_eq!(bob.next_states(BURST as usize), expected);
    }
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");

    let mut told = vec![0];
    while told.last() != Some(&ACTIONS) {
        if let Event::State(value) = slow.next() {
            told.push(value);
        }
    }
    assert!(
        told.windows(2).all(|pair| pair[0] <= pair[1]),
        "a state came too late"
    );
    assert!((told.len() as i64) < ACTIONS, "nothing was left out");
    ann.plus();
    assert_eq!(slow.next(), Event::State(ACTIONS + 1));
}

#[test]
fn who_takes_nothing_for_too_long_is_dropped() {
    let server = Server::start(&[
        "--slow-timeout",
        "1s",
        "--heartbeat",
        "0",
        "--session-rate",
        "0",
    ]);
    let mut ann = server.client();
    let slow = client_with_little_buffer(&server);
    ann.expect_users(2);
    let mut value = 0;
    while act_often(&mut ann, &mut value, 2) == 2 {}
    drop(slow);
    ann.plus();
    ann.expect_state(value + 1);
}

#[test]
fn who_reads_slowly_but_steadily_is_not_dropped() {
    let server = Server::start(&[
        "--slow-timeout",
        "2s",
        "--heartbeat",
        "0",
        "--session-rate",
        "0",
    ]);
    let mut ann = server.client();
    let mut steady = client_with_little_buffer(&server);
    ann.expect_users(2);
    let mut last = Event::State(0);
    for burst in 1..=30 {
        ann.send_often(PLUS, 500);
        ann.expect_state(burst * 500);
        // Far behind, but something is taken each time; perhaps the newest, where it is too far behind.
        for _ in 0..200 {
            last = steady.next();
            assert!(!matches!(last, Event::Closed(_)));
            if last == Event::State(burst * 500) {
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    while last != Event::State(15_000) {
        last = steady.next();
    }
}

#[test]
fn who_is_no_more_than_four_thousand_events_behind_gets_every_one() {
    const BEHIND: usize = 4000;
    let server = Server::start(&["--heartbeat", "0", "--session-rate", "0"]);
    let mut pausing = client_with_little_buffer(&server);
    let mut ann = server.client();
    for round in 0..3 {
        let from = (round * BEHIND) as i64;
        for burst in (0..BEHIND).step_by(500) {
            ann.send_often(PLUS, 500);
            ann.expect_state(from + (burst + 500) as i64);
        }
        let mut told = Vec::new();
        while told.len() < BEHIND {
            match pausing.next() {
                Event::State(0) | Event::Users(_) => {}
                Event::State(value) => told.push(value),
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<i64> = (1..=BEHIND as i64).map(|nth| from + nth).collect();
        assert!(told == expected, "some were left out");
    }
}

/// A client that sends and reads no answer is not read either, once enough waits for it: so it
/// cannot make the server grow by wrong messages.
#[test]
fn answers_that_nobody_reads_do_not_grow_the_server() {
    const OFFERED: usize = 64 << 20;
    let server = Server::start(&["--heartbeat", "0", "--session-rate", "0"]);
    let mut ann = server.client();
    let mut deaf = client_with_little_buffer(&server);
    ann.expect_users(2);
    let before = server.resident();
    deaf.stream
        .set_write_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let wrong = frame(TEXT, b"{}").repeat(10_000);
    let mut written = 0;
    while written < OFFERED && deaf.write(&wrong).is_ok() {
        written += wrong.len();
    }
    assert!(written < OFFERED, "the server took it all");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "the server grew by {grown} bytes");
    ann.plus();
    ann.expect_state(1);
    drop(deaf);
    await_that("it is gone", || ann.expect_users(1) == [1]);
}

/// What a client may make the server keep that never reads: its place, and what the kernel holds.
#[test]
fn a_hundred_who_never_read_cost_next_to_nothing_each() {
    const DEAF: usize = 100;
    const ACTIONS: i64 = 100_000;
    const BURST: i64 = 1000;
    const BACKLOG: usize = 256 << 10;
    // Nobody is dropped for it, and no ping goes unanswered.
    let flags = ["--slow-timeout", "0", "--heartbeat", "0"];
    let folder = tempfile::tempdir().unwrap();
    let disk = format!("disk:{}", folder.path().display());
    // A journal in memory grows with every entry.
    let store = ["--store", &disk, "--session-rate", "0", "--workers", "2"];
    let server = Server::start(&[&flags[..], &store].concat());
    let mut ann = server.client();
    let act = |ann: &mut Client, bursts: std::ops::Range<i64>| {
        for burst in bursts {
            ann.send_often(PLUS, BURST as usize);
            ann.expect_state((burst + 1) * BURST);
        }
    };
    act(&mut ann, 0..10);
    let deaf: Vec<_> = (0..DEAF)
        .map(|_| client_with_little_buffer(&server))
        .collect();
    ann.expect_users(DEAF + 1);
    let before = server.resident();
    act(&mut ann, 10..10 + ACTIONS / BURST);
    let grown = server.resident().saturating_sub(before);
    // The recent frames of one room on each worker.
    let shared = 2 * BACKLOG;
    let each = grown.saturating_sub(shared) / DEAF;
    // The embedded transport gives the HTTP server's buffers all states of a batch at a time.
    let most = match transport() {
        Transport::Direct => 16 << 10,
        Transport::Embedded => 64 << 10,
    };
    assert!(each < most, "{each} bytes each, {grown} in all");
    for mut deaf in deaf.into_iter().step_by(25) {
        while deaf.next() != Event::State(BURST * 10 + ACTIONS) {}
    }
}

#[test]
fn who_is_dropped_leaves_at_once_and_who_reads_again_before_stays() {
    let flags = ["--slow-timeout", "3s", "--heartbeat", "0"];
    let server = Server::start(&[&flags[..], &["--session-rate", "0"]].concat());
    let mut ann = server.client();
    let (mut deaf, mut reading) = (
        client_with_little_buffer(&server),
        client_with_little_buffer(&server),
    );
    ann.expect_users(3);
    let (mut value, mut last) = (0, 0);
    let mut users = 3;
    while users == 3 {
        users = act_often(&mut ann, &mut value, users);
        // Far less than there is, but again and again.
        match reading.next() {
            Event::State(state) => last = state.max(last),
            Event::Users(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(users, 2, "the other one stays");
    assert!(last < value);
    while last < value {
        match reading.next() {
            Event::State(state) => {
                assert!(state > last || state == 0, "{state} after {last}");
                last = state;
            }
            Event::Users(_) => {}
            other => panic!("{other:?}"),
        }
    }
    ann.plus();
    while reading.next() != Event::State(value + 1) {}
    // What the kernel had taken for the other one comes whole, and then the end.
    let end = deaf.read_to_end();
    let closed = end.last().unwrap();
    let expected = [Some(1013), None].map(Event::Closed);
    assert!(expected.contains(closed), "{closed:?}");
}

/// Its place is free though it reads nothing: the close frame waits for nobody.
#[test]
fn who_is_dropped_frees_its_place() {
    let flags = [
        "--slow-timeout",
        "1s",
        "--heartbeat",
        "0",
        "--session-rate",
        "0",
    ];
    let server = Server::start(&[&flags[..], &["--max-connections", "2"]].concat());
    let mut ann = server.client();
    let deaf = client_with_little_buffer(&server);
    let mut value = 0;
    let mut let_in = None;
    await_that("there is place again", || {
        ann.send_often(PLUS, 200);
        value += 200;
        ann.expect_state(value);
        let_in = support::open(server.port(), "/").ok();
        let_in.is_some()
    });
    drop(deaf);
}
