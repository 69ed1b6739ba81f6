//! Requests that want an upgrade and get none: they are answered as if they had wanted none, and the
//! same whichever transport carries the sockets. Each test starts the transports that it names.

mod support;

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use support::{
    PLUS, Server, await_that,
    http::{HANDSHAKE, get},
    raw::with_little_buffer,
};

const TRANSPORTS: [&str; 2] = ["direct", "embedded"];

/// Sends a request and nothing after it, and reads to the end of the connection: the lines of the head,
/// and the body.
fn ask(port: u16, request: &str) -> (Vec<String>, String) {
    let mut stream = support::connect(("127.0.0.1", port));
    stream.write_all(request.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
    lines.retain(|line| !line.to_ascii_lowercase().starts_with("date:"));
    lines.sort();
    (lines, body.to_owned())
}

fn head(request: &str, lines: &[&str]) -> String {
    let mut head = format!("{request}\r\n");
    if !lines.iter().any(|line| line.starts_with("Host:")) {
        head.push_str("Host: localhost\r\n");
    }
    for line in lines {
        head.push_str(&format!("{line}\r\n"));
    }
    head + "\r\n"
}

#[test]
fn both_transports_answer_them_the_same() {
    let servers = TRANSPORTS.map(|transport| Server::start(&["--transport", transport]));
    let [connection, upgrade, version, key] = HANDSHAKE;
    let with = |line: &'static str| [&HANDSHAKE[..], &[line]].concat();
    let cases: &[(&str, &[&str], u16)] = &[
        ("GET /client.js HTTP/1.1", &HANDSHAKE, 200),
        ("GET /client.js HTTP/1.0", &HANDSHAKE, 200),
        ("HEAD /client.js HTTP/1.1", &HANDSHAKE, 200),
        ("GET /no-such-file HTTP/1.1", &HANDSHAKE, 404),
        ("GET /api/no-such-path HTTP/1.1", &HANDSHAKE, 404),
        ("GET /api/rooms/main/journal HTTP/1.1", &HANDSHAKE, 200),
        ("HEAD /api/rooms/main/journal HTTP/1.1", &HANDSHAKE, 200),
        ("GET /api/rooms/no%20room HTTP/1.1", &HANDSHAKE, 404),
        ("GET /r/a.b HTTP/1.1", &HANDSHAKE, 404),
        ("GET /r/%00 HTTP/1.1", &HANDSHAKE, 404),
        ("GET / HTTP/1.1", &with("Origin: http://evil.test"), 403),
        ("GET / HTTP/1.1", &with("Host: evil.test"), 421),
        ("GET /client.js HTTP/1.1", &with("Host: evil.test"), 421),
        (
            "GET / HTTP/1.1",
            &with("Sec-WebSocket-Protocol: tallyroom.v1, client.x"),
            400,
        ),
        (
            "GET / HTTP/1.1",
            &[connection, upgrade, "Sec-WebSocket-Version: 12", key],
            426,
        ),
        ("GET / HTTP/1.1", &[connection, upgrade, key], 400),
        ("GET / HTTP/1.1", &[connection, upgrade, version], 400),
        (
            "GET / HTTP/1.1",
            &[connection, upgrade, version, "Sec-WebSocket-Key: short"],
            400,
        ),
        ("GET / HTTP/1.1", &[upgrade, version, key], 400),
        (
            "GET / HTTP/1.1",
            &["Connection: close, Upgrade", upgrade, version, key],
            400,
        ),
        (
            "GET / HTTP/1.1",
            &[connection, "Upgrade: h2c, websocket", version, key],
            200,
        ),
        (
            "GET / HTTP/1.1",
            &[connection, upgrade, "Upgrade: h2c", version, key],
            200,
        ),
        (
            "GET / HTTP/1.1",
            &[connection, "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"],
            200,
        ),
        ("HEAD / HTTP/1.1", &HANDSHAKE, 405),
        ("POST / HTTP/1.1", &HANDSHAKE, 405),
        ("PUT / HTTP/1.1", &HANDSHAKE, 405),
        ("OPTIONS / HTTP/1.1", &HANDSHAKE, 405),
        (
            "POST /api/rooms/main/actions HTTP/1.1",
            &[connection, upgrade],
            415,
        ),
        ("CONNECT localhost:80 HTTP/1.1", &[], 404),
        ("CONNECT / HTTP/1.1", &[], 405),
    ];
    for (line, headers, status) in cases {
        let request = head(line, headers);
        let [direct, embedded] = [0, 1].map(|nth| ask(servers[nth].port(), &request));
        assert_eq!(direct, embedded, "{request}");
        let expected = format!(" {status} ");
        assert!(
            direct
                .0
                .iter()
                .any(|line| line.starts_with("HTTP/1.") && line.contains(&expected)),
            "{status} was expected: {request}{direct:?}"
        );
        let body_of_none = line.starts_with("HEAD") || line.contains("/journal");
        assert_eq!(direct.1.is_empty(), body_of_none, "{request}");
    }
    for server in &servers {
        let mut client = server.client();
        assert_eq!((client.users, client.first()), (1, 0));
        client.plus();
        client.expect_state(1);
    }
}

/// With `Upgrade: websocket`, actix-http takes whatever comes for what the other protocol says.
#[test]
fn an_action_in_the_body_of_one_is_refused_and_does_not_count() {
    for transport in TRANSPORTS {
        let server = Server::start(&["--transport", transport]);
        for length in ["Content-Length: 17", "X-No-Length: 17"] {
            let [connection, upgrade, ..] = HANDSHAKE;
            let json = "Content-Type: application/json";
            let headers = [connection, upgrade, json, length];
            let request = head("POST /api/rooms/main/actions HTTP/1.1", &headers);
            assert_eq!(PLUS.len(), 17);
            let (lines, body) = ask(server.port(), &(request + PLUS));
            assert!(
                lines.contains(&"HTTP/1.1 400 Bad Request".to_owned()),
                "{lines:?}"
            );
            assert!(
                body.contains("\"not_json\""),
                "{transport} {length}: {body}"
            );
        }
        assert_eq!(server.client().first(), 0, "{transport}");
    }
}

#[test]
fn a_room_is_read_by_whoever_wants_an_upgrade_too() {
    for transport in TRANSPORTS {
        let server = Server::start(&["--transport", transport]);
        let path = "/api/rooms/main";
        let (lines, body) = ask(
            server.port(),
            &head(&format!("GET {path} HTTP/1.1"), &HANDSHAKE),
        );
        let plain = get(server.port(), path);
        assert_eq!(body, plain.text(), "{transport}");
        for name in [
            "etag",
            "content-type",
            "cache-control",
            "x-content-type-options",
        ] {
            let line = format!("{name}: {}", plain.header(name).unwrap());
            assert!(lines.contains(&line), "{transport}: no {line} in {lines:?}");
        }
    }
}

/// Its connection stayed open for as long as a request's body may take where the reader was slower than
/// the server; and an answer that took longer was cut, which nobody can tell from its end. It announced
/// chunks, of which there were none.
#[test]
fn a_long_answer_to_a_slow_reader_comes_whole_and_ends_the_connection() {
    const ENTRIES: i64 = 20_000;
    for transport in TRANSPORTS {
        for body_timeout in ["0", "1s"] {
            let server = Server::start(&[
                "--transport",
                transport,
                "--body-timeout",
                body_timeout,
                "--session-rate",
                "0",
            ]);
            let mut client = server.client();
            client.send_often(PLUS, ENTRIES as usize);
            client.expect_state(ENTRIES);
            let mut stream = with_little_buffer(server.port());
            let request = head("GET /api/rooms/main/journal HTTP/1.1", &HANDSHAKE);
            stream.write_all(request.as_bytes()).unwrap();
            let start = Instant::now();
            await_that("more than the time is over", || {
                start.elapsed() > Duration::from_millis(1500)
            });
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"));
            // Its end is that of the connection, so that one that is cut looks whole.
            assert!(!answer.contains("transfer-encoding"), "{transport}");
            let entries = answer.matches("\"rev\":").count();
            assert_eq!(entries as i64, ENTRIES, "{transport} {body_timeout}");
            assert!(answer.ends_with("\"value\":20000}\n"), "{transport}");
        }
    }
}
