//! Stopping: what was answered holds, everybody is told, and nobody can hold it up.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use support::{
    Client, Event, PLUS, Server,
    raw::{Raw, TEXT, frame},
};

/// How long a stop may take, by the design; and some more for a machine that is busy.
const STOP: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(10);

#[test]
fn sessions_close_with_1012_and_the_program_ends_well() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let mut clients = [server.client(), server.client(), server.client_in("/r/x")];
        clients[0].plus();
        clients[0].expect_state(1);
        server.signal(signal);
        for client in &mut clients {
            assert_eq!(client.expect_close(), Some(1012), "{signal}");
        }
        assert_eq!(server.await_exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn without_anybody_it_ends_at_once() {
    let mut server = Server::start(&[]);
    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(server.await_exit().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn whoever_does_not_answer_does_not_hold_it_up() {
    let mut server = Server::start(&["--heartbeat", "0"]);
    let port = server.port();
    let mut acting = server.client();
    // Neither reads what it is sent, which is more than the kernel takes.
    let deaf = Raw::open(port, "/");
    let mut deaf_and_sending = Raw::open(port, "/");
    deaf_and_sending
        .write(&frame(TEXT, b"{}").repeat(5000))
        .unwrap();
    // Answers no close.
    let mut stubborn = Raw::join(port, "/");
    // In the middle of a message, of a head, and before any.
    let mut halfway = Raw::join(port, "/");
    halfway.write(&frame(TEXT, PLUS.as_bytes())[..7]).unwrap();
    let mut head = support::connect(("127.0.0.1", port));
    head.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let silent = support::connect(("127.0.0.1", port));
    let mut kept_alive = support::connect(("127.0.0.1", port));
    kept_alive
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    kept_alive.read_exact(&mut [0; 12]).unwrap();
    for burst in 1..=18 {
        acting.send_often(PLUS, 500);
        acting.expect_state(burst * 500);
    }

    let start = Instant::now();
    server.signal("TERM");
    assert_eq!(acting.expect_close(), Some(1012));
    while !matches!(stubborn.next(), Event::Closed(Some(1012))) {}
    assert_eq!(server.await_exit().code(), Some(0));
    let took = start.elapsed();
    assert!(took < STOP + BUSY, "it took {took:?}");
    drop((deaf, deaf_and_sending, halfway, head, silent, kept_alive));
}

#[test]
fn actions_sent_right_before_the_stop_are_told_to_all_in_order_without_gaps() {
    for round in 0..5 {
        let mut server = Server::start(&[]);
        let mut witness = server.client();
        let mut client = server.client();
        witness.expect_users(2);
        client.send_often(PLUS, 500);
        if round > 0 {
            client.expect_state(round * 20);
        }
        server.signal("TERM");
        // Side by side: who answers a close too late finds the connection gone.
        let read_to_the_end = |client: &mut Client, mut last: i64| {
            loop {
                match client.next() {
                    Event::State(value) => {
                        assert_eq!(value, last + 1);
                        last = value;
                    }
                    Event::Users(_) => {}
                    Event::Closed(code) => {
                        assert_eq!(code, Some(1012));
                        return last;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let ends = thread::scope(|scope| {
            let witness = scope.spawn(|| read_to_the_end(&mut witness, 0));
            [
                read_to_the_end(&mut client, round * 20),
                witness.join().unwrap(),
            ]
        });
        assert!(ends[0] <= 500);
        assert_eq!(ends[0], ends[1], "what was finished is told to everybody");
        drop((client, witness));
        assert_eq!(server.await_exit().code(), Some(0));
    }
}

#[test]
fn nobody_new_is_let_in_while_it_stops() {
    let mut server = Server::start(&[]);
    let port = server.port();
    // Answers no close, so that the stop takes a while.
    let mut stubborn = Raw::join(port, "/");
    server.signal("TERM");
    assert_eq!(stubborn.next(), Event::Closed(Some(1012)));
    // A connection may be refused, cut, or told to come later.
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let handshake = support::http::HANDSHAKE.join("\r\n");
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{handshake}\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 101"), "it was let in");
    }
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [
        ("TERM", "TERM", 143),
        ("INT", "INT", 130),
        ("TERM", "INT", 130),
    ] {
        let mut server = Server::start(&[]);
        let mut stubborn = Raw::join(server.port(), "/");
        server.signal(first);
        // It answers no close, so that the first signal alone would take longer.
        assert_eq!(stubborn.next(), Event::Closed(Some(1012)));
        server.signal(second);
        assert_eq!(server.await_exit().code(), Some(code), "{first} {second}");
    }
}
