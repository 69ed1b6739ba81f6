//! What a connection carries, byte for byte: what comes together, what may not come between, and how
//! it ends. These are the promises that both transports keep, each in its own way.

mod support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::{
    Client, Event, PLUS, Server, await_that,
    http::{HANDSHAKE, exchange_by, get},
    in_process::{InProcess, transport},
    network::Network,
    raw::{CLOSE, PING, Raw, TEXT, frame, with_little_buffer},
};
use tallyroom::{
    model::{By, Model},
    rejection::Rejection,
    socket::Transport,
};

/// A handshake's bytes, with another line of headers.
fn handshake(path: &str, line: &str) -> Vec<u8> {
    let handshake = HANDSHAKE.join("\r\n");
    let line = match line {
        "" => String::new(),
        line => format!("{line}\r\n"),
    };
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{handshake}\r\n{line}\r\n").into_bytes()
}

/// A session whose handshake is sent with these bytes behind it, in one piece.
fn open_with(server: &Server, behind: &[u8]) -> Raw {
    let mut stream = support::connect(("127.0.0.1", server.port()));
    let bytes = [&handshake("/", "")[..], behind].concat();
    stream.write_all(&bytes).unwrap();
    Raw::answered(stream)
}

/// Whether the transport is the direct one, of which more is promised.
fn is_direct() -> bool {
    transport() == Transport::Direct
}

#[test]
fn what_a_newcomer_is_told_first_comes_in_one_piece() {
    let server = Server::start(&[]);
    let v1 = "Sec-WebSocket-Protocol: tallyroom.v1";
    for _ in 0..20 {
        for (line, events) in [
            ("", &["\"users\"", "\"state\""][..]),
            (v1, &["\"welcome\"", "\"users\"", "\"state\""]),
        ] {
            let mut stream = support::connect(("127.0.0.1", server.port()));
            stream.write_all(&handshake("/", line)).unwrap();
            let mut buffer = [0; 16 * 1024];
            let mut len = stream.read(&mut buffer).unwrap();
            while !is_direct() && !buffer[..len].windows(7).any(|some| some == b"\"state\"") {
                len += stream.read(&mut buffer[len..]).unwrap();
            }
            let told = String::from_utf8_lossy(&buffer[..len]);
            assert!(
                told.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
                "{told}"
            );
            let places: Vec<_> = events.iter().map(|event| told.find(event)).collect();
            assert!(
                places.iter().all(Option::is_some),
                "not in one piece: {told}"
            );
            assert!(places.is_sorted(), "{told}");
        }
    }
}

#[test]
fn what_comes_with_the_handshake_is_taken_as_if_it_came_after_it() {
    let server = Server::start(&[]);
    let plus = frame(TEXT, PLUS.as_bytes());
    let mut value = 0;
    for count in [1, 3, 200] {
        let mut raw = open_with(&server, &plus.repeat(count));
        value += count as i64;
        while raw.next() != Event::State(value) {}
        assert_eq!(server.client().first(), value);
    }
    for cut in 1..plus.len() {
        let (begin, rest) = plus.split_at(cut);
        let mut raw = open_with(&server, begin);
        // It was let in with half an action, which does not count yet.
        while raw.next() != Event::State(value) {}
        raw.write(rest).unwrap();
        value += 1;
        while raw.next() != Event::State(value) {}
    }
    let pings = [frame(PING, b"with it"), plus].concat();
    let mut raw = open_with(&server, &pings);
    let mut pongs = Vec::new();
    loop {
        match raw.next_frame().unwrap() {
            (10, payload) => pongs.push(payload),
            (1, text) => {
                let text = std::str::from_utf8(&text).unwrap();
                if Event::read(text) == Event::State(value + 1) {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pongs, [b"with it"]);
}

#[test]
fn who_says_farewell_or_nonsense_with_the_handshake_is_closed_as_if_it_did_after_it() {
    let server = Server::start(&[]);
    let mut witness = server.client();
    let plus = frame(TEXT, PLUS.as_bytes());
    for (nth, (behind, code)) in [
        (frame(CLOSE, &[3, 232]), Some(1000)),
        (frame(CLOSE, b""), None),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            Some(1002),
        ),
        (frame(TEXT, b"\xff"), Some(1007)),
        (frame(TEXT, &[b' '; 70_000]), Some(1009)),
        (vec![0xff; 3000], Some(1002)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut raw = open_with(&server, &[&plus[..], &behind].concat());
        let events = raw.read_to_end();
        assert_eq!(
            events.last(),
            Some(&Event::Closed(code)),
            "{nth}: {events:?}"
        );
        // The action before it counts.
        let value = nth as i64 + 1;
        await_that("the action counts", || server.client().first() == value);
    }
    ends_at(&mut witness, &server, 1);
}

/// It was answered half a second later, and its connection ended two seconds after that.
#[test]
fn who_says_farewell_with_the_handshake_is_not_kept() {
    const VISITS: u32 = 10;
    let server = Server::start(&[]);
    let start = Instant::now();
    for _ in 0..VISITS {
        let mut raw = open_with(&server, &frame(CLOSE, &[3, 232]));
        let closed = Event::Closed(Some(1000));
        assert_eq!(raw.read_to_end().last(), Some(&closed));
        let mut stream = support::connect(("127.0.0.1", server.port()));
        stream.write_all(&handshake("/", "")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut told = Vec::new();
        stream.read_to_end(&mut told).unwrap();
        assert!(told.starts_with(b"HTTP/1.1 101 "));
    }
    let took = start.elapsed();
    assert!(took < VISITS * Duration::from_secs(1), "they took {took:?}");
}

/// Waits until there are so many users, also where their counts were told before.
fn ends_at(witness: &mut Client, server: &Server, users: usize) {
    let path = "/api/rooms/main";
    await_that("presence is right", || {
        get(server.port(), path).json()["users"] == users
    });
    // A newcomer's count is told to all, whatever they were told before.
    let newcomer = server.client();
    assert_eq!(newcomer.users, users + 1);
    witness.expect_users(users + 1);
    drop(newcomer);
    witness.expect_users(users);
}

#[test]
fn a_handshake_may_follow_other_requests_on_its_connection_and_even_at_once() {
    let server = Server::start(&[]);
    let mut stream = support::connect(("127.0.0.1", server.port()));
    for _ in 0..3 {
        let plain = b"GET /client.js HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(exchange_by(&mut stream, plain).status, 200);
    }
    let mut raw = Raw::open_by(stream, "/");
    while raw.next() != Event::State(0) {}

    for plain in [
        "GET /api/rooms/main",
        "GET /client.js",
        "HEAD /",
        "GET /no-such-file",
    ] {
        let mut stream = support::connect(("127.0.0.1", server.port()));
        let plain = format!("{plain} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let both = [plain.as_bytes(), &handshake("/", "")].concat();
        let answer = exchange_by(&mut stream, &both);
        let found = if plain.contains("no-such") { 404 } else { 200 };
        assert_eq!(answer.status, found);
        let mut second = Raw::answered(stream);
        while second.next() != Event::State(0) {}
    }
}

#[test]
fn a_room_is_the_same_however_its_name_is_written() {
    let server = Server::start(&[]);
    let mut main = server.client();
    for (count, path) in [
        (2, "/r/ma%69n"),
        (2, "/r/%6d%61%69%6E"),
        (2, "/?x"),
        (2, "/r/main?"),
    ] {
        let other = server.client_in(path);
        assert_eq!(other.users, count, "{path}");
        drop(other);
        main.expect_users(1);
    }
}

/// A value of many bytes, by which its number is told apart.
struct Large;

/// Bytes of a state, beside its number.
const BYTES: usize = 200_000;

#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Turn {
    Plus,
}

impl Model for Large {
    const NAME: &'static str = "large";
    type State = u64;
    type Action = Turn;

    fn apply(state: &mut u64, _: &Turn, _: &By) -> Result<(), Rejection> {
        *state += 1;
        Ok(())
    }

    fn view(state: &u64) -> impl Serialize + '_ {
        large(*state)
    }
}

fn large(number: u64) -> String {
    let letter = (b'a' + (number % 26) as u8) as char;
    format!("{number} {}", letter.to_string().repeat(BYTES))
}

/// The number of a state that is whole.
fn number(event: &Event) -> Option<u64> {
    let Event::Other(Value::String(text)) = event else {
        return None;
    };
    let number = text.split(' ').next().unwrap().parse().unwrap();
    assert!(*text == large(number), "the state {number} is not whole");
    Some(number)
}

/// Lets states go out until the other end of the test is dropped; gives how many there were.
fn flood(mut acting: Client, until: &std::sync::mpsc::Receiver<()>) -> (Client, u64) {
    let mut last = 0;
    while until.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
        acting.plus();
        while number(&acting.next()) != Some(last + 1) {}
        last += 1;
    }
    (acting, last)
}

#[test]
fn no_frame_stands_within_another_however_slowly_it_is_read() {
    const PINGS: u32 = 150;
    let server = InProcess::of(Large);
    let mut slow = Raw::open_by(with_little_buffer(server.port()), "/");
    let acting = support::open(server.port(), "/").unwrap();
    thread::scope(|scope| {
        let (stop, until) = std::sync::mpsc::channel();
        let flooding = scope.spawn(move || flood(acting, &until));
        let mut asking = slow.stream.try_clone().unwrap();
        scope.spawn(move || {
            for nth in 0..PINGS {
                let payload = [&nth.to_be_bytes()[..], &[b'p'; 100]].concat();
                asking.write_all(&frame(PING, &payload)).unwrap();
                if nth % 10 == 0 {
                    thread::yield_now();
                }
            }
        });
        let (mut pongs, mut states) = (0, Vec::new());
        while pongs < PINGS || states.len() < 20 {
            match slow.next_frame().unwrap() {
                (1, text) => {
                    let event = Event::read(std::str::from_utf8(&text).unwrap());
                    states.extend(number(&event));
                }
                (10, payload) => {
                    assert_eq!(payload[..4], pongs.to_be_bytes(), "a pong is missing");
                    assert_eq!(payload[4..], [b'p'; 100]);
                    pongs += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        drop(stop);
        let (acting, last) = flooding.join().unwrap();
        while states.last() != Some(&last) {
            states.extend(number(&slow.next()));
        }
        assert!(states.is_sorted_by(|one, next| one < next), "{states:?}");
        drop(acting);
    });
}

#[test]
fn who_resets_the_connection_in_a_flood_is_gone_and_harms_nobody() {
    let server = InProcess::of(Large);
    let acting = support::open(server.port(), "/").unwrap();
    let mut steady = support::open(server.port(), "/").unwrap();
    thread::scope(|scope| {
        let (stop, until) = std::sync::mpsc::channel();
        let flooding = scope.spawn(move || flood(acting, &until));
        let reading = scope.spawn(move || {
            let (mut last, mut users) = (0, 0);
            // The others are all gone, and they were there.
            while last < 50 || users != 2 {
                match steady.next() {
                    Event::Users(count) => users = count,
                    event => {
                        let number = number(&event).unwrap();
                        assert!(last == 0 || number > last, "{number} after {last}");
                        last = number;
                    }
                }
            }
            last
        });
        for nth in 0..30 {
            let mut leaving = Raw::open_by(with_little_buffer(server.port()), "/");
            for _ in 0..nth % 3 {
                leaving.next_frame().unwrap();
            }
            leaving.reset();
        }
        let path = "/api/rooms/main";
        await_that("who was cut is gone", || {
            get(server.port(), path).json()["users"] == 2
        });
        assert!(reading.join().unwrap() >= 50);
        drop(stop);
        flooding.join().unwrap();
    });
}

#[test]
fn who_sends_no_more_is_gone() {
    let server = Server::start(&["--heartbeat", "0"]);
    let mut witness = server.client();
    for behind in [&b""[..], &frame(TEXT, PLUS.as_bytes())[..5]] {
        let mut half = Raw::join(server.port(), "/");
        witness.expect_users(2);
        half.write(behind).unwrap();
        half.stream.shutdown(Shutdown::Write).unwrap();
        witness.expect_users(1);
        half.read_to_end();
    }
    // What it asked before counts, though it does not read what became of it.
    let mut half = Raw::join(server.port(), "/");
    half.write(&frame(TEXT, PLUS.as_bytes()).repeat(10))
        .unwrap();
    half.stream.shutdown(Shutdown::Write).unwrap();
    witness.expect_state(10);
    ends_at(&mut witness, &server, 1);
}

/// What is on its way to it does not keep one there that sends no more.
#[test]
fn who_sends_no_more_is_gone_in_a_flood_too() {
    let server = InProcess::of(Large);
    let acting = support::open(server.port(), "/").unwrap();
    thread::scope(|scope| {
        let (stop, until) = std::sync::mpsc::channel();
        let flooding = scope.spawn(move || flood(acting, &until));
        let halves: Vec<_> = (0..5)
            .map(|_| {
                let half = Raw::open_by(with_little_buffer(server.port()), "/");
                half.stream.shutdown(Shutdown::Write).unwrap();
                half
            })
            .collect();
        let path = "/api/rooms/main";
        await_that("who sends no more is gone", || {
            get(server.port(), path).json()["users"] == 1
        });
        drop(stop);
        flooding.join().unwrap();
        drop(halves);
    });
}

#[test]
fn who_is_gone_without_a_word_is_missed_within_two_heartbeats() {
    let server = Server::start(&["--heartbeat", "500ms"]);
    let mut witness = server.client();
    let network = Network::to(server.port());
    let away = support::join(network.port(), "/");
    witness.expect_users(2);
    // Nothing of it comes through any more, though no end of the connection is seen.
    network.lose_what_clients_say(true);
    let mut pumped = away;
    let start = Instant::now();
    pumped.plus();
    witness.expect_users(1);
    assert!(
        start.elapsed() > Duration::from_millis(500),
        "it was not waited for"
    );
    assert_eq!(server.client().first(), 0);
}
