//! What `tallyroom.v1` promises beyond single messages: an action is applied once however often it is
//! sent, every verdict is learnt, and what is told is told in order. `tests/protocol.rs` holds the
//! single messages.

mod support;

use std::thread;

use serde_json::{Value, json};
use support::{
    Event, Server, connect,
    held::HeldJournal,
    in_process::InProcess,
    v1::{Told, V1, delay, handshake, numbered},
};
use tallyroom::{limits::Limits, model::counter::Counter};
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
    let server = InProcess::start::<Counter>(journal.clone(), Limits::default());
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
    assert_eq!(old.to_close().0, Some(4409));
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
fn beyond_the_window_nothing_is_taken_until_something_is_settled() {
    let (journal, server) = held();
    let client = id();
    let mut old = V1::join(server.port(), "/", client);
    old.send_plus([1]);
    journal.await_appends(1);
    old.send_plus(2..=WINDOW);
    // The rest comes by another session: one alone stops reading at so many underway.
    let mut new = V1::join(server.port(), "/", client);
    new.send_plus(2..=WINDOW);
    new.send_plus([WINDOW + 1]);
    journal.release(usize::MAX >> 4);
    let mut settled = 0;
    while settled < WINDOW + 1 {
        let event = new.answer();
        match event["type"].as_str() {
            Some("ack") => settled = event["n"].as_u64().unwrap(),
            Some("retry") => {
                let n = event["expected"].as_u64().unwrap();
                assert!(["overloaded", "gap"].contains(&event["code"].as_str().unwrap()));
                thread::sleep(delay(&event));
                new.send_plus(n..=WINDOW + 1);
            }
            _ => assert_eq!(event["type"], "state", "{event}"),
        }
    }
    assert_eq!(settled, WINDOW + 1);
    new.expect_state(WINDOW as i64 + 1);
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
fn rooms_number_their_clients_apart() {
    let server = Server::start(&[]);
    let client = id();
    let mut here = V1::join(server.port(), "/r/here", client);
    let mut there = V1::join(server.port(), "/r/there", client);
    here.send_plus([1, 2]);
    there.send_plus([1]);
    assert_eq!(here.expect_ack(2), 2);
    assert_eq!(there.expect_ack(1), 1);
    // Neither replaced the other.
    here.send_plus([3]);
    assert_eq!(here.expect_state(3), 3);
    assert_eq!(V1::join(server.port(), "/r/there", client).n(), 1);
}

#[test]
fn classic_and_numbered_clients_share_a_room() {
    let server = Server::start(&[]);
    let mut classic = server.client();
    let mut ann = join(&server, id());
    classic.expect_users(2);
    let mut value = 0;
    for n in 1..=50 {
        ann.send_plus([n]);
        classic.plus();
        value += 2;
        assert_eq!(classic.next_states(2), [value - 1, value]);
        ann.expect_state(value);
    }
    // A number means nothing to a classic session.
    classic.send(&numbered(99, plus()));
    assert_eq!(classic.next(), Event::State(value + 1));
    assert_eq!(ann.expect_state(value + 1), 101);
    drop(ann);
    assert_eq!(classic.next(), Event::Users(1));
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
fn counts_of_users_are_told_newest_and_never_twice_in_a_row() {
    let server = Server::start(&[]);
    let mut watcher = join(&server, id());
    for _ in 0..20 {
        let others: Vec<V1> = (0..5).map(|_| join(&server, id())).collect();
        drop(others);
    }
    let mut last = server.client();
    last.expect_users(2);
    last.plus();
    let mut counts = vec![1];
    loop {
        let event = watcher.event();
        match event["type"].as_str() {
            Some("users") => counts.push(event["count"].as_u64().unwrap()),
            _ => break,
        }
    }
    assert_eq!(counts.last(), Some(&2));
    assert!(
        counts.windows(2).all(|pair| pair[0] != pair[1]),
        "{counts:?}"
    );
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
fn the_dialect_is_chosen_however_the_header_is_written() {
    let server = Server::start(&[]);
    let client = id();
    let token = format!("client.{client}");
    let answer = |lines: &[String]| {
        let mut stream = connect(("127.0.0.1", server.port()));
        let lines: Vec<String> = lines
            .iter()
            .map(|line| format!("Sec-WebSocket-Protocol: {line}"))
            .collect();
        let answer = handshake(&mut stream, "/", &lines);
        let chosen = answer.header("sec-websocket-protocol").map(str::to_owned);
        (answer.status, chosen)
    };
    let v1 = (101, Some("tallyroom.v1".to_owned()));
    for lines in [
        vec!["tallyroom.v1".to_owned()],
        vec![format!("tallyroom.v1,{token}")],
        vec![format!("{token} ,\ttallyroom.v1")],
        vec![format!(
            "chat, superchat, {token}, tallyroom.v1, tallyroom.v2"
        )],
        vec!["tallyroom.v1".to_owned(), token.clone()],
        vec![token.clone(), "chat".to_owned(), "tallyroom.v1".to_owned()],
        vec![format!(
            "tallyroom.v1, client.{}",
            client.to_string().to_uppercase()
        )],
    ] {
        assert_eq!(answer(&lines), v1, "{lines:?}");
    }
    for line in [
        "chat",
        "tallyroom.v2, chat",
        "tallyroom",
        "TALLYROOM.V1",
        "tallyroom.v1.1",
    ] {
        assert_eq!(answer(&[line.to_owned()]), (101, None), "{line}");
    }
    for bad in [
        "client.",
        "client.ann",
        "client.9b2f6c1e",
        "client.00000000-0000-0000-0000-00000000000g",
    ] {
        let line = format!("tallyroom.v1, {bad}");
        assert_eq!(answer(&[line]).0, 400, "{bad}");
    }
}

#[test]
fn a_client_is_the_same_in_whichever_case_its_id_is_written() {
    let server = Server::start(&[]);
    let client = id();
    let mut lower = join(&server, client);
    lower.send_plus([1]);
    lower.expect_ack(1);
    let mut stream = connect(("127.0.0.1", server.port()));
    let upper = client.to_string().to_uppercase();
    let line = format!("Sec-WebSocket-Protocol: tallyroom.v1, client.{upper}");
    assert_eq!(handshake(&mut stream, "/", &[line]).status, 101);
    let mut upper = support::v1::shaken(stream);
    let Ok(Told::Event(welcome)) = support::v1::hear(&mut upper) else {
        panic!("no welcome");
    };
    assert_eq!(
        (&welcome["n"], &welcome["client"]),
        (&json!(1), &json!(client))
    );
    assert_eq!(lower.to_close().0, Some(4409));
}

#[test]
fn a_client_without_an_id_is_given_one_of_its_own() {
    let server = Server::start(&[]);
    let given = || {
        let mut stream = connect(("127.0.0.1", server.port()));
        let line = "Sec-WebSocket-Protocol: tallyroom.v1".to_owned();
        assert_eq!(handshake(&mut stream, "/", &[line]).status, 101);
        let mut client = support::v1::shaken(stream);
        match support::v1::hear(&mut client) {
            Ok(Told::Event(welcome)) => {
                welcome["client"].as_str().unwrap().parse::<Uuid>().unwrap()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(given(), given());
}

#[test]
fn a_replaced_session_is_told_no_more_and_no_bye() {
    let server = Server::start(&[]);
    let client = id();
    let mut old = join(&server, client);
    let mut watcher = join(&server, id());
    old.next("users");
    let mut new = join(&server, client);
    let (code, events) = old.to_close();
    assert_eq!(code, Some(4409));
    assert!(
        events.iter().all(|event| event["type"] == "users"),
        "{events:?}"
    );
    new.send_plus([1]);
    assert_eq!(watcher.expect_state(1), 1);
    drop(new);
    while watcher.next("users")["count"] != 1 {}
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

#[test]
fn beats_come_while_there_is_silence_and_no_sooner() {
    let server = Server::start(&["--heartbeat", "300ms"]);
    let mut ann = join(&server, id());
    assert_eq!(ann.welcome["beat_ms"], 300);
    let start = std::time::Instant::now();
    for nth in 1..=3 {
        assert_eq!(ann.answer(), json!({"type": "beat"}));
        let least = std::time::Duration::from_millis(nth * 200);
        assert!(
            start.elapsed() >= least,
            "beat {nth} after {:?}",
            start.elapsed()
        );
    }
    let server = Server::start(&["--heartbeat", "0"]);
    assert_eq!(join(&server, id()).welcome["beat_ms"], 0);
}
