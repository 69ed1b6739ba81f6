//! What `tallyroom.v1` promises beyond single messages: an action is applied once however often it is
//! sent, every verdict is learnt, and what is told is told in order. `tests/protocol.rs` holds the
//! single messages.

mod support;

use std::thread;

use serde_json::{Value, json};
use support::{
    Server, connect,
    held::HeldJournal,
    in_process::InProcess,
    v1::{Told, V1, delay, numbered},
};
use tallyroom::{journal::AppendError, limits::Limits, model::counter::Counter};
use uuid::Uuid;

const MAX: u64 = 9_007_199_254_740_991;
const WINDOW: u64 = 1024;

fn id() -> Uuid {
    Uuid::new_v4()
}

fn plus() -> Value {
    json!({"action": "plus"})
}

fn join(server: &Server, id: Uuid) -> V1 {
    V1::join(server.port(), "/", id)
}

fn held() -> (std::sync::Arc<HeldJournal>, InProcess) {
    let journal = HeldJournal::new();
    let server = InProcess::start(Counter, journal.clone(), Limits::default());
    (journal, server)
}

#[test]
fn a_thousand_numbers_in_flight_are_applied_once_each_and_acked_in_order() {
    let server = Server::start(&[]);
    let mut ann = join(&server, id());
    ann.send_plus(1..=1000);
    let (mut acked, mut shown) = (0, 0);
    while shown < 1000 {
        let event = ann.answer();
        let rev = event["rev"].as_u64().unwrap();
        match event["type"].as_str() {
            Some("ack") => {
                let n = event["n"].as_u64().unwrap();
                assert!(n > acked, "{event} after {acked}");
                assert_eq!(rev, n, "nobody else acts");
                assert!(rev > shown, "the ack came after its state");
                acked = n;
            }
            Some("state") => {
                assert!(rev > shown && rev <= acked, "{event} after {acked}");
                assert_eq!(event["value"], rev);
                shown = rev;
            }
            _ => panic!("{event}"),
        }
    }
    assert_eq!(acked, 1000);
}

#[test]
fn a_number_sent_again_while_it_is_in_flight_is_answered_when_it_commits() {
    let (journal, server) = held();
    let mut ann = V1::join(server.port(), "/", id());
    ann.send_plus([1]);
    journal.await_appends(1);
    // What comes with a repeat does not matter.
    ann.send(1, json!({"action": "plus", "by": 50}));
    ann.send_plus([1, 2, 2, 1]);
    // An object without number is answered at once: what stands before it in the queue was read.
    ann.client.send("{}");
    assert_eq!(
        ann.answer()["type"],
        "error",
        "nobody is told before the commit"
    );
    journal.release(usize::MAX >> 4);
    assert_eq!(ann.answer(), json!({"type": "ack", "n": 1, "rev": 1}));
    assert_eq!(ann.expect_ack(2), 2);
    assert_eq!(ann.expect_state(2), 2);
    ann.send_plus([3]);
    assert_eq!(ann.expect_state(3), 3);
}

#[test]
fn what_one_session_left_in_flight_is_answered_to_the_next_one() {
    let (journal, server) = held();
    let client = id();
    let mut old = V1::join(server.port(), "/", client);
    old.send_plus([1, 2]);
    journal.await_appends(1);
    let mut new = V1::join(server.port(), "/", client);
    assert_eq!(new.n(), 0, "nothing is settled yet");
    new.send_plus([1, 2, 3]);
    assert_eq!(old.read_to_close().0, Some(4409));
    journal.release(usize::MAX >> 4);
    assert_eq!(new.expect_ack(3), 3);
    new.expect_state(3);
}

#[test]
fn one_client_on_many_sockets_at_once_counts_each_number_once() {
    const NUMBERS: u64 = 500;
    let server = Server::start(&[]);
    let client = id();
    let watcher = &mut join(&server, id());
    thread::scope(|scope| {
        for _ in 0..6 {
            let server = &server;
            scope.spawn(move || {
                let stream = connect(("127.0.0.1", server.port()));
                let mut session = V1::open_by(stream, "/", client);
                session.send_plus(1..=NUMBERS);
                // Replaced by another one, or settled.
                while let Told::Event(event) = session.told() {
                    assert_ne!(event["type"], "error", "{event}");
                    if event["type"] == "ack" && event["n"] == NUMBERS {
                        break;
                    }
                }
            });
        }
    });
    let mut last = join(&server, client);
    let from = last.n() + 1;
    last.send_plus(from..=NUMBERS + 1);
    last.expect_ack(NUMBERS + 1);
    watcher.expect_state(NUMBERS as i64 + 1);
    assert_eq!(join(&server, id()).first, NUMBERS + 1);
}

#[test]
fn beyond_the_window_nothing_is_taken_and_the_client_hears_from_where_to_go_on() {
    let (journal, server) = held();
    let mut ann = V1::join(server.port(), "/", id());
    // A number that is not taken does not count.
    ann.send_plus([5000]);
    assert_eq!(ann.next("retry")["expected"], 1);
    ann.send_plus(1..=WINDOW + 3);
    journal.await_appends(1);
    // The session waits a while with its socket unread before it says no.
    let mut from = MAX;
    for n in WINDOW + 1..=WINDOW + 3 {
        let retry = ann.answer();
        assert_eq!((&retry["type"], &retry["n"]), (&json!("retry"), &json!(n)));
        assert_eq!(retry["code"], "overloaded", "{retry}");
        from = from.min(retry["expected"].as_u64().unwrap());
    }
    // What is in flight may be sent again; what is not taken must be.
    assert!((1..=WINDOW + 1).contains(&from), "{from}");
    journal.release(usize::MAX >> 4);
    ann.expect_ack(WINDOW);
    ann.send_plus(from..=WINDOW + 3);
    ann.expect_ack(WINDOW + 3);
    ann.expect_state(WINDOW as i64 + 3);
}

#[test]
fn what_the_store_does_not_take_is_told_so_and_sent_again() {
    for (failure, code) in [
        (AppendError::Full, "store_full"),
        (AppendError::Unavailable("on purpose".into()), "unavailable"),
    ] {
        let (journal, server) = held();
        let mut ann = V1::join(server.port(), "/", id());
        ann.send_plus([1]);
        journal.await_appends(1);
        ann.send(2, json!({"action": "times"}));
        ann.send_plus([3, 4]);
        // Answered at once, when what stands before it was read.
        ann.client.send("{}");
        assert_eq!(ann.answer()["type"], "error");
        journal.release(1);
        ann.expect_ack(1);
        journal.await_appends(2);
        journal.fail(failure);
        journal.release(usize::MAX >> 4);
        for n in 2..=4 {
            let retry = ann.next("retry");
            let expected = if n == 2 { code } else { "gap" };
            assert_eq!((&retry["n"], &retry["code"]), (&json!(n), &json!(expected)));
            assert_eq!(retry["expected"], 2, "{retry}");
        }
        // A refusal that was not committed was not told, and may be accepted the next time.
        ann.send_plus(2..=4);
        assert_eq!(ann.expect_ack(4), 4);
        ann.expect_state(4);
    }
}

#[test]
fn a_refusal_is_told_again_as_long_as_it_is_within_the_window() {
    let server = Server::start(&[]);
    let client = id();
    let mut ann = join(&server, client);
    ann.send(1, json!({"action": "limits", "min": 0}));
    ann.send(2, json!({"action": "minus"}));
    ann.send_plus(3..WINDOW + 2);
    ann.expect_ack(WINDOW + 1);
    let mut ann = join(&server, client);
    assert_eq!((ann.n(), ann.refused()), (WINDOW + 1, vec![2]));
    ann.send(2, json!({"action": "minus"}));
    assert_eq!(ann.next("error")["n"], 2);
    ann.send_plus([WINDOW + 2]);
    ann.expect_ack(WINDOW + 2);
    let ann = join(&server, client);
    assert_eq!((ann.n(), ann.refused()), (WINDOW + 2, vec![]));
}

#[test]
fn a_client_that_sends_nothing_but_nonsense_learns_every_verdict() {
    let server = Server::start(&[]);
    let client = id();
    let mut ann = join(&server, client);
    let nonsense = |n: u64| match n % 3 {
        0 => json!({"action": "times"}),
        1 => json!({}),
        _ => json!({"action": "plus", "by": 0}),
    };
    ann.client
        .send_all((1..=WINDOW).map(|n| numbered(n, nonsense(n))));
    let mut refused = Vec::new();
    let mut acked = 0;
    while acked < WINDOW {
        let event = ann.answer();
        let n = event["n"].as_u64().unwrap();
        match event["type"].as_str() {
            Some("error") => refused.push(n),
            Some("ack") => {
                assert_eq!(event["rev"], 0, "nothing was accepted");
                assert!(
                    refused.last().is_some_and(|&last| last >= n),
                    "{event} came too early"
                );
                acked = n;
            }
            _ => panic!("{event}"),
        }
    }
    assert_eq!(refused, (1..=WINDOW).collect::<Vec<_>>());
    let ann = join(&server, client);
    assert_eq!((ann.n(), ann.refused()), (WINDOW, refused));
}

#[test]
fn errors_come_before_their_ack_and_acks_before_their_state() {
    const NUMBERS: u64 = 2000;
    let server = Server::start(&[]);
    let mut ann = join(&server, id());
    ann.send(1, json!({"action": "limits", "min": 0, "max": 3}));
    ann.expect_ack(1);
    ann.expect_state(0);
    // Up by two and down by one, so that the range is left again and again.
    let action = |n: u64| match n % 3 {
        0 => json!({"action": "minus"}),
        _ => json!({"action": "plus"}),
    };
    let (mut value, mut refused) = (0, Vec::new());
    for n in 2..=NUMBERS {
        let next = value + if n % 3 == 0 { -1 } else { 1 };
        match (0..=3).contains(&next) {
            true => value = next,
            false => refused.push(n),
        }
    }
    let accepted_up_to = |n: u64| n - refused.iter().filter(|&&other| other <= n).count() as u64;
    let (mut acked, mut shown, mut sent) = (1, 1, 1);
    let mut told = Vec::new();
    while acked < NUMBERS || shown < accepted_up_to(NUMBERS) {
        // As many in flight as may be.
        let more = (sent + 1)..=(acked + WINDOW).min(NUMBERS);
        sent = sent.max(*more.end());
        ann.client.send_all(more.map(|n| numbered(n, action(n))));
        let event = ann.answer();
        match event["type"].as_str() {
            Some("error") => {
                let n = event["n"].as_u64().unwrap();
                assert!(n > acked, "{event} came after its ack");
                told.push(n);
            }
            Some("ack") => {
                acked = event["n"].as_u64().unwrap();
                assert_eq!(event["rev"], accepted_up_to(acked));
                let due = refused.iter().filter(|&&n| n <= acked).count();
                assert_eq!(told[..due], refused[..due], "{event} came before an error");
                assert!(
                    shown <= accepted_up_to(acked),
                    "a state came before its ack"
                );
            }
            Some("state") => {
                shown = event["rev"].as_u64().unwrap();
                assert!(
                    shown <= accepted_up_to(acked),
                    "{event} came before its ack"
                );
            }
            _ => panic!("{event}"),
        }
    }
    assert_eq!(told, refused);
    assert_eq!(join(&server, id()).first, value);
}

#[test]
fn numbers_and_their_verdicts_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", folder.path().display());
    let flags = ["--store", store.as_str()];
    let client = id();
    let server = Server::start(&flags);
    let mut ann = join(&server, client);
    let epoch = ann.welcome["epoch"].clone();
    assert_eq!(ann.welcome["durability"], "disk");
    ann.send_plus([1, 2]);
    ann.send(3, json!({"action": "set", "value": MAX + 1}));
    ann.expect_ack(3);
    // A server that is killed; `Drop` sends SIGKILL.
    drop(server);
    let server = Server::start(&flags);
    let mut ann = join(&server, client);
    assert_eq!(ann.welcome["epoch"], epoch);
    assert_eq!(
        (ann.n(), ann.refused(), &ann.first),
        (3, vec![3], &json!(2))
    );
    ann.send_plus([1, 2]);
    ann.send(3, plus());
    assert_eq!(ann.next("error")["n"], 3);
    ann.send_plus([4]);
    ann.expect_ack(4);
    assert_eq!(ann.expect_state(3), 3);
}

#[test]
fn a_memory_that_is_gone_is_another_epoch() {
    let client = id();
    let epoch = || {
        let server = Server::start(&[]);
        let mut ann = join(&server, client);
        assert_eq!((ann.n(), &ann.welcome["durability"]), (0, &json!("memory")));
        ann.send_plus([1]);
        ann.expect_ack(1);
        ann.welcome["epoch"].clone()
    };
    assert_ne!(epoch(), epoch());
}

#[test]
fn who_reads_slowly_gets_the_newest_state_and_every_verdict() {
    const ACTIONS: u64 = 50_000;
    let server = Server::start(&["--heartbeat", "0", "--session-rate", "0"]);
    let client = id();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: std::net::SocketAddr = ([127, 0, 0, 1], server.port()).into();
    socket.connect(&address.into()).unwrap();
    let stream: std::net::TcpStream = socket.into();
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut slow = V1::join_by(stream, "/", client);
    slow.send(1, json!({"action": "set", "value": MAX + 1}));
    let mut busy = join(&server, id());
    for first in (1..=ACTIONS).step_by(500) {
        busy.send_plus(first..first + 500);
        busy.expect_ack(first + 499);
    }
    assert_eq!(slow.next("error")["n"], 1);
    assert_eq!(slow.next("ack")["n"], 1);
    let (mut states, mut rev) = (0, 0);
    while rev < ACTIONS {
        let state = slow.next("state");
        assert_eq!(state["value"], state["rev"]);
        let next = state["rev"].as_u64().unwrap();
        assert!(next > rev, "{state} after {rev}");
        (states, rev) = (states + 1, next);
    }
    assert!(
        states < ACTIONS / 2,
        "only {} of {ACTIONS} were left out",
        ACTIONS - states
    );
    slow.send_plus([2]);
    assert_eq!(slow.expect_ack(2), ACTIONS + 1);
}

#[test]
fn the_largest_numbers_are_exact() {
    let server = Server::start(&[]);
    let mut ann = join(&server, id());
    ann.send(1, json!({"action": "set", "value": MAX}));
    ann.expect_ack(1);
    assert_eq!(ann.next("state")["value"], MAX);
    ann.send(2, plus());
    let error = ann.next("error");
    assert_eq!(
        (&error["n"], &error["code"]),
        (&json!(2), &json!("out_of_range"))
    );
    ann.send(3, json!({"action": "set", "value": -(MAX as i64)}));
    ann.expect_ack(3);
    assert_eq!(ann.next("state")["value"], -(MAX as i64));
    ann.send(MAX, plus());
    let retry = ann.next("retry");
    assert_eq!((&retry["n"], &retry["expected"]), (&json!(MAX), &json!(4)));
    // One that no JSON client holds is none.
    ann.send(MAX + 1, plus());
    assert_eq!(ann.next("error").get("n"), None);
}

#[test]
fn a_client_behind_a_rate_gets_everything_in_by_obeying_the_retries() {
    const NUMBERS: u64 = 120;
    let server = Server::start(&["--session-rate", "50"]);
    let mut ann = join(&server, id());
    ann.send_plus(1..=NUMBERS);
    let (mut settled, mut rounds) = (0, 1);
    // The number that is expected, the longest delay, and how many were not taken.
    let mut wait = (MAX, std::time::Duration::ZERO, 0);
    while settled < NUMBERS {
        let event = ann.answer();
        match event["type"].as_str() {
            Some("ack") => settled = event["n"].as_u64().unwrap(),
            Some("retry") => {
                let first = event["expected"].as_u64().unwrap();
                let expected = if event["n"] == first {
                    "rate_limited"
                } else {
                    "gap"
                };
                assert_eq!(event["code"], expected, "{event}");
                assert!(
                    delay(&event) >= wait.1,
                    "{event} came with less than before"
                );
                wait = (wait.0.min(first), delay(&event), wait.2 + 1);
            }
            _ => assert_eq!(event["type"], "state", "{event}"),
        }
        if wait.0 + wait.2 > NUMBERS && wait.2 > 0 {
            thread::sleep(wait.1);
            ann.send_plus(wait.0..=NUMBERS);
            rounds += 1;
            wait = (MAX, std::time::Duration::ZERO, 0);
        }
    }
    assert!((2..20).contains(&rounds), "{rounds} rounds");
    assert_eq!(ann.expect_state(NUMBERS as i64), NUMBERS);
}
