//! Sessions of `tallyroom.v1` beside each other and beside classic ones: how the dialect and the client
//! are named, who replaces whom, and what is told besides verdicts.

mod support;

use serde_json::json;
use support::{
    Event, Server, connect,
    v1::{Told, V1, handshake, numbered},
};
use uuid::Uuid;

fn id() -> Uuid {
    Uuid::new_v4()
}

fn join(server: &Server, id: Uuid) -> V1 {
    V1::join(server.port(), "/", id)
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
    classic.send(&numbered(99, json!({"action": "plus"})));
    assert_eq!(classic.next(), Event::State(value + 1));
    assert_eq!(ann.expect_state(value + 1), 101);
    drop(ann);
    assert_eq!(classic.next(), Event::Users(1));
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
    if last.users != 2 {
        last.expect_users(2);
    }
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
    let two = format!("tallyroom.v1, {token}, client.{}", id());
    assert_eq!(answer(&[two]).0, 400, "two clients at once");
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
    assert_eq!(lower.read_to_close().0, Some(4409));
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
    let (code, events) = old.read_to_close();
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
