//! The library's client: against a server that says what it should not, and against ours behind a bad network.

mod support;

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use actix_web::rt::time::timeout;
use serde_json::json;
use support::{
    PATIENCE, Server, await_that,
    http::get,
    network::Network,
    scripted::{Guest, epoch, play},
};
use tallyroom::client::{BuildError, Client, Connection, End, SendError, View};
use tungstenite::Message;

/// Awaits what must come about.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let result = timeout(PATIENCE, future).await;
    result.expect("it did not come about")
}

fn connect(url: &str) -> Client {
    Client::builder(url).connect().unwrap()
}

fn plus() -> serde_json::Value {
    json!({"action": "plus"})
}

/// Awaits that the client shows what is wanted.
async fn see(client: &Client, wanted: impl FnMut(&View) -> bool) -> View {
    let mut watch = client.watch();
    let found = soon(watch.find(wanted)).await;
    found.unwrap_or_else(|| panic!("it ended: {:?}", client.view()))
}

#[actix_web::test]
async fn an_action_is_numbered_and_its_ack_settles_it() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        assert_eq!(guest.path, "/r/door");
        guest.greet(1, 0);
        assert_eq!(guest.hear(), json!({"action": "plus", "by": 2, "n": 1}));
        guest.ack(1, 41);
        assert_eq!(guest.await_end(), Some(1000));
    });
    let client = Client::builder(url).room("door").connect().unwrap();
    let settled = soon(client.send(json!({"action": "plus", "by": 2})))
        .await
        .unwrap();
    assert_eq!((settled.epoch.0.to_string(), settled.rev.0), (epoch(1), 41));
    let view = client.view();
    assert_eq!(view.connection, Connection::Live);
    assert_eq!(*view.state.unwrap().value, json!(7));
    let mut watch = client.watch();
    soon(client.close()).await;
    let last = soon(watch.find(|view| matches!(view.connection, Connection::Ended(_)))).await;
    assert_eq!(last.unwrap().connection, Connection::Ended(End::Closed));
    assert_eq!(soon(watch.next()).await, None);
    server.join().unwrap();
}

#[actix_web::test]
async fn what_was_not_settled_is_sent_again_by_the_next_connection_as_the_same_client() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        assert_eq!(guest.hear_numbers(3), [1, 2, 3]);
        let client = guest.client.clone();
        drop(guest);
        let mut guest = door.welcome();
        assert_eq!(guest.client, client);
        let refused = json!([{"n": 1, "code": "out_of_range", "message": "too much"}]);
        guest.greet_with(1, 2, json!({"refused": refused}));
        assert_eq!(guest.hear_numbers(1), [3]);
        guest.ack(3, 43);
        guest.await_end();
    });
    let client = connect(&url);
    let (one, two, three) = soon(async {
        tokio::join!(
            client.send(plus()),
            client.send(plus()),
            client.send(plus())
        )
    })
    .await;
    let Err(SendError::Refused(rejection)) = one else {
        panic!("{one:?}");
    };
    assert_eq!(rejection.to_string(), "out_of_range: too much");
    assert_eq!(two.unwrap().rev.0, 40);
    assert_eq!(three.unwrap().rev.0, 43);
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_forgotten_client_says_so_and_goes_on_under_another_id() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet_with(1, 0, json!({"window": 1}));
        assert_eq!(guest.hear_numbers(1), [1]);
        guest.greet(2, 0);
        guest.await_end();
        let first = guest.client;
        let mut guest = door.welcome();
        assert_ne!(guest.client, first);
        guest.greet(2, 0);
        assert_eq!(guest.hear_numbers(1), [1]);
        guest.ack(1, 1);
        guest.await_end();
    });
    let client = connect(&url);
    let (one, two) = soon(async { tokio::join!(client.send(plus()), client.send(plus())) }).await;
    let one = one.unwrap_err();
    assert_eq!(one, SendError::Unsure);
    assert!(one.may_be_taken());
    assert_eq!(two.unwrap().epoch.0.to_string(), epoch(2));
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_server_that_falls_silent_is_left_and_tried_again() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet_with(1, 0, json!({"beat_ms": 100}));
        assert_eq!(guest.hear_numbers(1), [1]);
        // It says nothing more, and hangs.
        let mut next = door.welcome();
        next.greet(1, 1);
        next.await_end();
        drop(guest);
    });
    let client = connect(&url);
    assert_eq!(soon(client.send(plus())).await.unwrap().rev.0, 40);
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn beats_and_pings_keep_a_connection_and_pings_are_answered() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet_with(1, 0, json!({"beat_ms": 1_000}));
        for nth in 0..6 {
            std::thread::sleep(Duration::from_millis(500));
            if nth % 2 == 0 {
                guest.say(&json!({"type": "beat"}));
                continue;
            }
            guest.socket.send(Message::Ping(vec![nth].into())).unwrap();
            let pong = guest.socket.read().unwrap();
            assert_eq!(pong, Message::Pong(vec![nth].into()));
        }
        guest.state(1, 41, 8);
        guest.await_end();
    });
    let client = connect(&url);
    let mut watch = client.watch();
    while let Some(view) = soon(watch.next()).await {
        assert!(!matches!(view.connection, Connection::Lost(_)), "{view:?}");
        if view.state.is_some_and(|state| state.rev.0 == 41) {
            break;
        }
    }
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_retry_is_waited_for_and_sent_once_from_the_number_expected() {
    let pause = Duration::from_millis(300);
    let (url, server) = play(move |door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        assert_eq!(guest.hear_numbers(3), [1, 2, 3]);
        guest.ack(1, 41);
        for n in 2..=3 {
            let code = if n == 2 { "rate_limited" } else { "gap" };
            guest.say(
                &json!({"type": "retry", "n": n, "expected": 2, "code": code, "message": "wait",
                "after_ms": pause.as_millis() as u64 * (n - 1) / 2}),
            );
        }
        let asked = Instant::now();
        assert_eq!(guest.hear_numbers(2), [2, 3]);
        assert!(asked.elapsed() >= pause - Duration::from_millis(20));
        guest.ack(3, 43);
        guest.await_end();
    });
    let client = connect(&url);
    let all = soon(async {
        tokio::join!(
            client.send(plus()),
            client.send(plus()),
            client.send(plus())
        )
    });
    let (one, two, three) = all.await;
    assert_eq!(
        [one, two, three].map(|settled| settled.unwrap().rev.0),
        [41, 43, 43]
    );
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_bye_is_taken_at_its_word() {
    let pause = Duration::from_millis(700);
    let (url, server) = play(move |door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        let after = pause.as_millis() as u64;
        guest.say(&json!({"type": "bye", "code": 1012, "reconnect_after_ms": after}));
        let closed = Instant::now();
        guest.close(1012);
        let mut guest = door.welcome();
        assert!(closed.elapsed() >= pause - Duration::from_millis(20));
        guest.greet(1, 0);
        guest.await_end();
    });
    let client = connect(&url);
    see(&client, |view| {
        view.connection == Connection::Lost("the server closed it with 1012".into())
    })
    .await;
    see(&client, |view| view.connection == Connection::Live).await;
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_close_code_that_is_final_ends_the_client_and_those_who_wait() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet_with(1, 0, json!({"window": 1}));
        assert_eq!(guest.hear_numbers(1), [1]);
        guest.close(4409);
    });
    let client = connect(&url);
    let (one, two) = soon(async { tokio::join!(client.send(plus()), client.send(plus())) }).await;
    for (error, sent) in [(one, true), (two, false)] {
        let error = error.unwrap_err();
        assert_eq!(error.may_be_taken(), sent, "{error}");
        assert!(
            error.to_string().contains("4409: a newer session"),
            "{error}"
        );
    }
    let late = soon(client.send(plus())).await.unwrap_err();
    assert!(matches!(late, SendError::Ended { sent: false, .. }));
    server.join().unwrap();
}

/// Answers a handshake with a status.
fn deny(status: &'static str) -> (String, std::thread::JoinHandle<()>) {
    play(move |door| {
        let mut stream = door.accept();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
        if !status.starts_with("403") {
            let mut guest = door.welcome();
            guest.greet(1, 0);
            guest.await_end();
        }
    })
}

#[actix_web::test]
async fn a_status_that_will_stay_ends_the_client_and_one_that_may_pass_does_not() {
    let (url, server) = deny("403 Forbidden");
    let client = connect(&url);
    let view = see(&client, |view| {
        matches!(view.connection, Connection::Ended(_))
    })
    .await;
    assert_eq!(view.connection, Connection::Ended(End::Denied(403)));
    server.join().unwrap();
    let (url, server) = deny("503 Service Unavailable");
    let client = connect(&url);
    see(&client, |view| view.connection == Connection::Live).await;
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_server_that_speaks_something_else_is_no_server_for_it() {
    let (url, server) = play(|door| {
        let mut socket = tungstenite::accept(door.accept()).unwrap();
        let _ = socket.read();
    });
    let client = connect(&url);
    let error = soon(client.send(plus())).await.unwrap_err();
    assert!(error.to_string().contains("does not speak tallyroom.v1"));
    assert!(!error.may_be_taken());
    server.join().unwrap();
}

#[actix_web::test]
async fn messages_in_pieces_and_events_of_later_servers_are_taken_as_they_should_be() {
    use tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        guest.say(&json!({"type": "weather", "sky": "blue"}));
        guest.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
        guest.socket.send(Message::text("no JSON")).unwrap();
        let state = json!({"type": "state", "epoch": epoch(1), "rev": 41, "value": "é", "more": 1})
            .to_string();
        let bytes = state.into_bytes();
        for (nth, piece) in bytes.chunks(7).enumerate() {
            let opcode = if nth == 0 { Data::Text } else { Data::Continue };
            let last = (nth + 1) * 7 >= bytes.len();
            let frame = Frame::message(piece.to_vec(), OpCode::Data(opcode), last);
            guest.socket.send(Message::Frame(frame)).unwrap();
            guest.socket.send(Message::Ping(vec![].into())).unwrap();
        }
        guest.await_end();
    });
    let client = connect(&url);
    let view = see(&client, |view| {
        view.state.as_ref().is_some_and(|state| state.rev.0 == 41)
    })
    .await;
    assert_eq!(*view.state.unwrap().value, json!("é"));
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn who_waits_only_for_so_long_is_told_whether_it_was_sent() {
    let (url, server) = play(|door| {
        let mut guest: Guest = door.welcome();
        guest.greet_with(1, 0, json!({"window": 1}));
        assert_eq!(guest.hear_numbers(1), [1]);
        guest.await_end();
    });
    let client = connect(&url);
    see(&client, |view| view.connection == Connection::Live).await;
    let patience = Duration::from_secs(1);
    let (one, two) = soon(async {
        tokio::join!(
            client.send_within(plus(), patience),
            client.send_within(plus(), patience)
        )
    })
    .await;
    assert_eq!(one, Err(SendError::TimedOut { sent: true }));
    assert_eq!(two, Err(SendError::TimedOut { sent: false }));
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn no_more_than_the_queue_holds_are_taken_and_the_rest_wait() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        let mut n = 0;
        while n < 500 {
            n = guest.hear()["n"].as_u64().unwrap();
            guest.ack(n, 40 + n);
        }
        guest.await_end();
    });
    let client = Client::builder(url).max_waiting(3).connect().unwrap();
    let all = (0..500).map(|_| {
        let client = client.clone();
        actix_web::rt::spawn(async move { client.send(plus()).await })
    });
    for sent in all.collect::<Vec<_>>() {
        soon(sent).await.unwrap().unwrap();
    }
    soon(client.close()).await;
    server.join().unwrap();
}

#[actix_web::test]
async fn a_client_that_nobody_holds_any_more_goes() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        assert_eq!(guest.await_end(), Some(1000));
    });
    let client = connect(&url);
    let mut watch = client.watch();
    see(&client, |view| view.connection == Connection::Live).await;
    drop(client);
    while soon(watch.next()).await.is_some() {}
    server.join().unwrap();
}

#[actix_web::test]
async fn what_can_never_be_sent_is_said_to_be_so() {
    let client = connect("http://127.0.0.1:1/");
    for action in [json!(7), json!({"action": "plus", "n": 1})] {
        let error = soon(client.send(action)).await.unwrap_err();
        assert!(matches!(error, SendError::Invalid(_)));
    }
    let build = |url: &str, room: &str| Client::builder(url).room(room).connect().err();
    assert!(matches!(
        build("localhost:6789", "main"),
        Some(BuildError::Address(_))
    ));
    assert!(matches!(
        build("http://localhost:6789", "a b"),
        Some(BuildError::Room(_))
    ));
}

#[actix_web::test]
async fn a_server_that_is_not_there_is_tried_again_and_the_reason_is_shown() {
    let address = {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        taken.local_addr().unwrap()
    };
    let client = connect(&format!("http://{address}"));
    let view = see(&client, |view| {
        matches!(view.connection, Connection::Lost(_))
    })
    .await;
    let Connection::Lost(why) = view.connection else {
        unreachable!();
    };
    assert!(why.contains("refused"), "{why}");
    let patience = Duration::from_millis(100);
    let error = soon(client.send_within(plus(), patience)).await;
    assert_eq!(error, Err(SendError::TimedOut { sent: false }));
}

/// Sends actions all at once, of which every tenth is one that the room refuses, and gives what the others add.
async fn count_by(client: &Client, actions: u64) -> i64 {
    let sending: Vec<_> = (1..=actions)
        .map(|nth| {
            let client = client.clone();
            let by = if nth % 10 == 0 { 0 } else { nth };
            let action = json!({"action": "plus", "by": by});
            actix_web::rt::spawn(async move { (by, client.send(action).await) })
        })
        .collect();
    let mut sum = 0;
    for sent in sending {
        match soon(sent).await.unwrap() {
            (0, Err(SendError::Refused(why))) => assert_eq!(why.code, "bad_field"),
            (by, Ok(_)) if by > 0 => sum += by as i64,
            other => panic!("{other:?}"),
        }
    }
    sum
}

fn value(view: &View) -> i64 {
    let state = view.state.as_ref().unwrap();
    state.value.as_i64().unwrap()
}

/// The value that a newcomer sees.
async fn value_at(url: &str) -> i64 {
    let client = connect(url);
    let view = see(&client, |view| view.connection == Connection::Live).await;
    value(&view)
}

/// Leads clients to a server until an action is committed whose client does not hear of it.
fn lose_an_answer(network: &Network, port: u16) {
    let revision = || get(port, "/api/rooms/main").json()["rev"].as_u64().unwrap();
    // Those that are there act no more, so that whoever acts from here on is not answered.
    network.lead_to(0);
    network.cut();
    network.lose_answers(true);
    let (before, lost) = (revision(), network.lost());
    network.lead_to(port);
    await_that("an action is committed", || revision() > before);
    await_that("its answer is lost", || network.lost() > lost);
    network.lose_answers(false);
}

#[actix_web::test]
async fn what_is_settled_is_seen_by_everybody() {
    let server = Server::start(&[]);
    let url = format!("http://localhost:{}", server.port());
    let (one, other) = (connect(&url), connect(&url));
    let settled = soon(one.send(plus())).await.unwrap();
    let view = see(&other, |view| {
        view.state
            .as_ref()
            .is_some_and(|state| state.rev >= settled.rev)
    })
    .await;
    let state = view.state.unwrap();
    assert_eq!((state.epoch, &*state.value), (settled.epoch, &json!(1)));
    see(&other, |view| {
        view.users.is_some_and(|users| users.count == 2)
    })
    .await;
    soon(one.close()).await;
    see(&other, |view| {
        view.users.is_some_and(|users| users.count == 1)
    })
    .await;
    let refused = soon(other.send(json!({"action": "dance"}))).await;
    let Err(SendError::Refused(why)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why.code, "unknown_action");
}

#[actix_web::test]
async fn more_than_the_rate_are_sent_in_the_end() {
    let server = Server::start(&["--session-rate", "200"]);
    let url = format!("http://127.0.0.1:{}", server.port());
    let sum = count_by(&connect(&url), 1_000).await;
    assert_eq!(value_at(&url).await, sum);
}

#[actix_web::test]
async fn a_bad_network_neither_loses_nor_doubles_an_action() {
    let server = Server::start(&["--heartbeat", "500ms"]);
    let network = Network::to(server.port());
    let url = network.url();
    let (client, other) = (connect(&url), connect(&url));
    let port = server.port();
    let trouble = std::thread::spawn(move || {
        for round in 0_u64..12 {
            let moment = Duration::from_millis(20 + round * 37 % 150);
            std::thread::sleep(moment);
            match round % 4 {
                0 => network.cut(),
                1 => lose_an_answer(&network, port),
                2 => network.lose_what_clients_say(true),
                _ => network.delay(Duration::from_millis(5)),
            }
            std::thread::sleep(moment);
            network.lose_what_clients_say(false);
            network.cut();
        }
        network.delay(Duration::ZERO);
        network
    });
    let (mut sum, mut rounds) = (0, 0);
    while rounds < 3 || !trouble.is_finished() {
        let (one, two) = tokio::join!(count_by(&client, 100), count_by(&other, 100));
        sum += one + two;
        rounds += 1;
    }
    trouble.join().unwrap();
    let direct = format!("http://127.0.0.1:{}", server.port());
    assert_eq!(value_at(&direct).await, sum);
}

#[actix_web::test]
async fn a_server_that_is_killed_again_and_again_takes_each_action_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", folder.path().display());
    let start = move || Server::start(&["--store", &store]);
    let network = Network::to(0);
    let url = network.url();
    let (client, other) = (connect(&url), connect(&url));
    let trouble = std::thread::spawn(move || {
        for round in 0_u64..6 {
            let server = start();
            match round % 2 {
                0 => {
                    network.lead_to(server.port());
                    std::thread::sleep(Duration::from_millis(150 + round * 61 % 200));
                }
                _ => lose_an_answer(&network, server.port()),
            }
            server.signal("KILL");
        }
        let server = start();
        network.lead_to(server.port());
        (server, network)
    });
    let (mut sum, mut rounds) = (0, 0);
    while rounds < 3 || !trouble.is_finished() {
        let (one, two) = tokio::join!(count_by(&client, 100), count_by(&other, 100));
        sum += one + two;
        rounds += 1;
    }
    let (server, _network) = trouble.join().unwrap();
    let direct = format!("http://127.0.0.1:{}", server.port());
    assert_eq!(value_at(&direct).await, sum);
}

#[actix_web::test]
async fn a_room_that_lost_its_memory_is_told_what_was_never_sent_and_nothing_else() {
    let server = Server::start(&[]);
    let network = Network::to(server.port());
    let client = connect(&network.url());
    soon(client.send(plus())).await.unwrap();
    network.lose_what_clients_say(true);
    let lost = actix_web::rt::spawn({
        let client = client.clone();
        async move { client.send(plus()).await }
    });
    // It is on the wire as soon as the client was given the time to send it.
    let patience = Duration::from_secs(1);
    let error = soon(client.send_within(plus(), patience))
        .await
        .unwrap_err();
    assert_eq!(error, SendError::TimedOut { sent: true });
    let another = Server::start(&[]);
    network.lead_to(another.port());
    network.lose_what_clients_say(false);
    network.cut();
    assert_eq!(soon(lost).await.unwrap(), Err(SendError::Unsure));
    soon(client.send(plus())).await.unwrap();
    assert_eq!(value_at(&network.url()).await, 1);
}
