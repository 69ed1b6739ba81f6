//! Whatever a client sends: it is answered or closed as designed, and nobody else notices.

mod support;

use std::{io::Write, net::Shutdown};

use support::{
    Event, PLUS, Server, await_that,
    http::{exchange, request},
    raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, frame, header},
};

const LIMIT: usize = 64 * 1024;

/// Messages that are answered with this code; the session lives on.
const ANSWERED: &[(&str, &str)] = &[
    ("", "not_json"),
    (" ", "not_json"),
    ("plus", "not_json"),
    ("{", "not_json"),
    ("}", "not_json"),
    ("{\"action\":\"plus\"", "not_json"),
    ("{\"action\":\"plus\"}}", "not_json"),
    ("{\"action\":\"plus\"}{\"action\":\"plus\"}", "not_json"),
    ("{action:\"plus\"}", "not_json"),
    ("{'action':'plus'}", "not_json"),
    ("{\"action\":\"plus\",}", "not_json"),
    ("{\"action\":\"plus\",\"by\":}", "not_json"),
    ("{\"action\":\"plus\",\"by\":01}", "not_json"),
    ("{\"action\":\"plus\",\"by\":+1}", "not_json"),
    ("{\"action\":\"plus\",\"by\":NaN}", "not_json"),
    ("{\"action\":\"pl\nus\"}", "not_json"),
    ("{\"action\":\"\\ud800\"}", "not_json"),
    ("{\"action\":\"\\x\"}", "not_json"),
    ("\u{feff}{\"action\":\"plus\"}", "not_json"),
    ("\0", "not_json"),
    ("null", "not_an_object"),
    ("true", "not_an_object"),
    ("7", "not_an_object"),
    ("-0.5e3", "not_an_object"),
    ("\"plus\"", "not_an_object"),
    ("[]", "not_an_object"),
    ("[{\"action\":\"plus\"}]", "not_an_object"),
    ("{}", "missing_field"),
    ("{\"Action\":\"plus\"}", "missing_field"),
    ("{\"action\":\"set\"}", "missing_field"),
    ("{\"action\":\"limits\"}", "missing_field"),
    ("{\"action\":null}", "bad_field"),
    ("{\"action\":1}", "bad_field"),
    ("{\"action\":[\"plus\"]}", "bad_field"),
    ("{\"action\":{\"plus\":1}}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":0}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":-1}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":1000001}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":1.5}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":\"1\"}", "bad_field"),
    ("{\"action\":\"plus\",\"by\":null}", "bad_field"),
    (
        "{\"action\":\"plus\",\"by\":99999999999999999999}",
        "bad_field",
    ),
    ("{\"action\":\"plus\",\"by\":1,\"by\":0}", "bad_field"),
    ("{\"action\":\"set\",\"value\":null}", "bad_field"),
    ("{\"action\":\"set\",\"value\":\"7\"}", "bad_field"),
    ("{\"action\":\"set\",\"value\":0.5}", "bad_field"),
    ("{\"action\":\"limits\",\"min\":\"0\"}", "bad_field"),
    (
        "{\"action\":\"limits\",\"max\":9007199254740992}",
        "bad_field",
    ),
    ("{\"action\":\"\"}", "unknown_action"),
    ("{\"action\":\"Plus\"}", "unknown_action"),
    ("{\"action\":\"plus \"}", "unknown_action"),
    ("{\"action\":\"plus\\u0000\"}", "unknown_action"),
    ("{\"action\":\"delete\"}", "unknown_action"),
    (
        "{\"action\":\"set\",\"value\":9007199254740992}",
        "out_of_range",
    ),
    (
        "{\"action\":\"set\",\"value\":-9007199254740992}",
        "out_of_range",
    ),
    (
        "{\"action\":\"limits\",\"min\":9007199254740991}",
        "out_of_range",
    ),
];

#[test]
fn a_message_that_is_wrong_is_answered_and_the_session_lives_on() {
    let server = Server::start(&[]);
    let mut bystander = server.client();
    let mut client = server.client();
    bystander.expect_users(2);
    for (value, (text, code)) in (1..).zip(ANSWERED) {
        client.send(text);
        assert_eq!(client.next(), Event::Error((*code).to_owned()), "{text:?}");
        client.plus();
        assert_eq!(client.next(), Event::State(value), "{text:?}");
        assert_eq!(bystander.next(), Event::State(value), "{text:?}");
    }
}

#[test]
fn wrong_messages_sent_without_waiting_are_each_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send_all(ANSWERED.iter().map(|(text, _)| (*text).to_owned()));
    let own = |code: &str| code != "out_of_range";
    let mut errors = Vec::new();
    while errors.len() < ANSWERED.len() {
        match client.next() {
            Event::Error(code) => errors.push(code),
            other => panic!("{other:?}"),
        }
    }
    // What the room refuses may come after what was wrong with a later message.
    errors.retain(|code| own(code));
    let codes = ANSWERED.iter().map(|(_, code)| *code);
    assert_eq!(errors, codes.filter(|code| own(code)).collect::<Vec<_>>());
}

#[test]
fn binary_messages_and_deep_or_wide_json_are_answered() {
    let server = Server::start(&[]);
    let mut raw = Raw::join(server.port(), "/");
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
    let deeper = "[".repeat(60_000);
    let object = "{\"a\":".repeat(10_000);
    let long = format!("{{\"action\":\"{}\"}}", "x".repeat(60_000));
    let wide = format!("{{{}\"b\":1}}", "\"a\":1,".repeat(10_000));
    let digits = format!("{{\"action\":\"plus\",\"by\":{}}}", "9".repeat(60_000));
    let exponent = "{\"action\":\"plus\",\"by\":1e400}".to_owned();
    for (first, payload, code) in [
        (BINARY, PLUS.as_bytes(), "binary_not_allowed"),
        (BINARY, b"", "binary_not_allowed"),
        (BINARY, &[0xff; 1000], "binary_not_allowed"),
        (TEXT, deep.as_bytes(), "not_json"),
        (TEXT, deeper.as_bytes(), "not_json"),
        (TEXT, object.as_bytes(), "not_json"),
        (TEXT, long.as_bytes(), "unknown_action"),
        (TEXT, wide.as_bytes(), "missing_field"),
    ] {
        raw.write(&frame(first, payload)).unwrap();
        assert_eq!(raw.next(), Event::Error(code.to_owned()));
    }
    for number in [digits, exponent] {
        raw.write(&frame(TEXT, number.as_bytes())).unwrap();
        assert!(matches!(raw.next(), Event::Error(_)));
    }
    let halves = [frame(BINARY & 0x7f, b"{"), frame(0x80, b"}")].concat();
    raw.write(&halves).unwrap();
    assert_eq!(raw.next(), Event::Error("binary_not_allowed".to_owned()));
    raw.write(&frame(TEXT, PLUS.as_bytes())).unwrap();
    assert_eq!(raw.next(), Event::State(1));
}

#[test]
fn an_unasked_pong_and_an_empty_ping_are_no_breach() {
    let server = Server::start(&[]);
    let mut raw = Raw::join(server.port(), "/");
    let longest = [7; 125];
    raw.write(&frame(PONG, b"unasked")).unwrap();
    raw.write(&frame(PING, b"")).unwrap();
    assert_eq!(raw.next_frame().unwrap(), (10, Vec::new()));
    raw.write(&frame(PING, &longest)).unwrap();
    assert_eq!(raw.next_frame().unwrap(), (10, longest.to_vec()));
    raw.write(&frame(TEXT, PLUS.as_bytes())).unwrap();
    assert_eq!(raw.next(), Event::State(1));
}

/// Breaches of the protocol: a name, what is sent, and the code that the session closes with.
fn breaches() -> Vec<(&'static str, Vec<u8>, u16)> {
    let plus = PLUS.as_bytes();
    let start = frame(TEXT & 0x7f, b"{");
    let too_long = vec![b' '; LIMIT + 1];
    let half = vec![b' '; LIMIT / 2 + 1];
    let announced = |bytes: u64| [header(TEXT, bytes), vec![0; LIMIT + 20]].concat();
    let mut unmasked = vec![TEXT, plus.len() as u8];
    unmasked.extend(plus);
    let long_ping = [header(PING, 126), vec![0; 126]].concat();
    let long_pong = [header(PONG, 126), vec![0; 126]].concat();
    let long_close = [
        header(CLOSE, 126),
        [&[0x03, 0xe8][..], &[b'x'; 124]].concat(),
    ]
    .concat();
    let after = |frames: &[&[u8]]| frames.concat();
    let mut breaches = vec![
        ("an unmasked frame", unmasked, 1002),
        ("an unmasked ping", vec![PING, 0], 1002),
        ("RSV1", frame(0x40 | TEXT, plus), 1002),
        ("RSV2", frame(0x20 | TEXT, plus), 1002),
        ("RSV3", frame(0x10 | TEXT, plus), 1002),
        ("RSV1 on a ping", frame(0x40 | PING, b""), 1002),
        ("a ping that is too long", long_ping, 1002),
        ("a pong that is too long", long_pong, 1002),
        ("a close that is too long", long_close, 1002),
        ("a ping in fragments", frame(PING & 0x7f, b"x"), 1002),
        ("a pong in fragments", frame(PONG & 0x7f, b"x"), 1002),
        ("a close in fragments", frame(CLOSE & 0x7f, &[3, 232]), 1002),
        ("a continuation without a start", frame(0x80, b"x"), 1002),
        ("an open one without a start", frame(0x00, b"x"), 1002),
        (
            "a text within a text",
            after(&[&start, &frame(TEXT, plus)]),
            1002,
        ),
        ("a start within a text", after(&[&start, &start]), 1002),
        (
            "a binary within a text",
            after(&[&start, &frame(BINARY, b"")]),
            1002,
        ),
        ("a close payload of one byte", frame(CLOSE, &[3]), 1002),
        (
            "a length with the highest bit",
            header(TEXT, 1 << 63 | 1),
            1009,
        ),
        ("bad UTF-8", frame(TEXT, b"{\"action\":\"\xff\"}"), 1007),
        ("an overlong slash", frame(TEXT, b"\xc0\xaf"), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("beyond Unicode", frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
        ("half a letter", frame(TEXT, b"\xc3"), 1007),
        (
            "bad UTF-8 over fragments",
            after(&[&frame(TEXT & 0x7f, b"\xc3"), &frame(0x80, b"\x28")]),
            1007,
        ),
        (
            "half a letter over fragments",
            after(&[&frame(TEXT & 0x7f, b"x"), &frame(0x80, b"\xc3")]),
            1007,
        ),
        (
            "a reason that is not UTF-8",
            frame(CLOSE, b"\x03\xe8\xff"),
            1002,
        ),
        ("a text that is too large", frame(TEXT, &too_long), 1009),
        ("a binary that is too large", frame(BINARY, &too_long), 1009),
        ("1 GiB", announced(1 << 30), 1009),
        ("more than there is", announced(i64::MAX as u64), 1009),
        (
            "too large in two fragments",
            after(&[&frame(TEXT & 0x7f, &half), &frame(0x80, &half)]),
            1009,
        ),
        (
            "too large in many fragments",
            after(&[
                &frame(TEXT & 0x7f, b""),
                &frame(0, &[b' '; 1000]).repeat(66),
            ]),
            1009,
        ),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        breaches.push(("a bad opcode", frame(0x80 | opcode, b"x"), 1002));
    }
    for code in [
        0_u16, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535,
    ] {
        let payload = code.to_be_bytes();
        breaches.push((
            "a close code that may not be sent",
            frame(CLOSE, &payload),
            1002,
        ));
    }
    breaches
}

#[test]
fn a_breach_of_the_protocol_closes_its_session_alone_and_what_came_before_it_counts() {
    let server = Server::start(&[]);
    let mut bystander = server.client();
    let mut value = 0;
    let mut wrong = Vec::new();
    for (name, bytes, code) in breaches() {
        let mut raw = Raw::join(server.port(), "/");
        bystander.expect_users(2);
        let both = [&frame(TEXT, PLUS.as_bytes())[..], &bytes].concat();
        // The server may close before it has taken everything.
        let _ = raw.write(&both);
        let events = raw.read_to_end();
        if events.last() != Some(&Event::Closed(Some(code))) {
            wrong.push(format!(
                "{name} {:02x?}: {code} was expected: {events:?}",
                &bytes[..4.min(bytes.len())]
            ));
        }
        bystander.expect_users(1);
        bystander.send(r#"{"action":"plus","by":2}"#);
        bystander.send(r#"{"action":"set","value":9007199254740992}"#);
        while bystander.next() != Event::Error("out_of_range".to_owned()) {}
        // What came before the refused is committed, and told to whoever joins now.
        let counted = server.client().first();
        bystander.expect_users(2);
        bystander.expect_users(1);
        if counted != value + 3 {
            wrong.push(format!("{name}: the action before it was lost"));
        }
        value = counted;
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn a_client_that_says_why_it_closes_is_answered_with_the_same_code() {
    let server = Server::start(&[]);
    for (payload, code) in [
        (&b""[..], None),
        (b"\x03\xe8", Some(1000)),
        (b"\x03\xe9going away", Some(1001)),
        (b"\x0b\xb8", Some(3000)),
        (b"\x13\x87", Some(4999)),
    ] {
        let mut raw = Raw::join(server.port(), "/");
        raw.write(&frame(CLOSE, payload)).unwrap();
        assert_eq!(raw.read_to_end(), [Event::Closed(code)]);
    }
}

#[test]
fn nothing_after_a_close_is_taken() {
    let server = Server::start(&[]);
    let mut raw = Raw::join(server.port(), "/");
    let close_then_act = [frame(CLOSE, &[3, 232]), frame(TEXT, PLUS.as_bytes())].concat();
    raw.write(&close_then_act).unwrap();
    assert_eq!(raw.read_to_end(), [Event::Closed(Some(1000))]);
    assert_eq!(server.client().first(), 0);
}

#[test]
fn a_message_of_exactly_the_limit_is_taken() {
    let server = Server::start(&[]);
    let mut raw = Raw::join(server.port(), "/");
    let message = format!("{PLUS}{}", " ".repeat(LIMIT - PLUS.len()));
    raw.write(&frame(TEXT, message.as_bytes())).unwrap();
    assert_eq!(raw.next(), Event::State(1));
    let (head, rest) = message.as_bytes().split_at(LIMIT / 3);
    raw.write(&frame(TEXT & 0x7f, head)).unwrap();
    raw.write(&frame(0x80, rest)).unwrap();
    assert_eq!(raw.next(), Event::State(2));
}

#[test]
fn a_gigabyte_that_is_announced_is_cut_off_at_the_limit() {
    const OFFERED: usize = 64 << 20;
    let server = Server::start(&[]);
    let mut bystander = server.client();
    let before = server.resident();
    let mut raw = Raw::join(server.port(), "/");
    raw.write(&header(TEXT, 1 << 30)).unwrap();
    raw.stream.set_nonblocking(true).unwrap();
    let chunk = [b' '; 16 * 1024];
    let (mut taken, mut said) = (0, [0; 4]);
    while raw.stream.peek(&mut said).is_err() {
        taken += raw.stream.write(&chunk).unwrap_or(0);
        assert!(
            taken < OFFERED,
            "the server took all of it and said nothing"
        );
    }
    assert_eq!(said, [0x88, 2, 0x03, 0xf1], "not a close with 1009");
    bystander.expect_users(2);
    bystander.expect_users(1);
    await_that("the connection is cut", || {
        let written = raw.stream.write(&chunk);
        written.is_err_and(|err| err.kind() != std::io::ErrorKind::WouldBlock)
    });
    let grown = server.resident().saturating_sub(before);
    assert!(grown < 4 << 20, "the server grew by {grown} bytes");
    bystander.plus();
    assert_eq!(bystander.next_state(), 1);
}

#[test]
fn handshakes_that_are_wrong_are_answered_and_not_left_hanging() {
    let server = Server::start(&[]);
    let port = server.port();
    const CONNECTION: &str = "Connection: Upgrade";
    const UPGRADE: &str = "Upgrade: websocket";
    const VERSION: &str = "Sec-WebSocket-Version: 13";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for (method, headers, status) in [
        ("GET", &[CONNECTION, UPGRADE, VERSION][..], 400..=400),
        ("GET", &[CONNECTION, UPGRADE, KEY], 400..=426),
        ("GET", &[UPGRADE, VERSION, KEY], 400..=400),
        (
            "GET",
            &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key: x"],
            400..=400,
        ),
        (
            "GET",
            &[CONNECTION, UPGRADE, VERSION, "Sec-WebSocket-Key:"],
            400..=400,
        ),
        (
            "GET",
            &[CONNECTION, UPGRADE, KEY, "Sec-WebSocket-Version: 12"],
            426..=426,
        ),
        (
            "GET",
            &[CONNECTION, UPGRADE, KEY, "Sec-WebSocket-Version: x"],
            426..=426,
        ),
        ("POST", &[CONNECTION, UPGRADE, VERSION, KEY], 400..=405),
        (
            "PUT",
            &[CONNECTION, UPGRADE, VERSION, KEY, "Content-Length: 0"],
            400..=405,
        ),
    ] {
        let answer = request(port, method, "/", headers);
        assert!(
            status.contains(&answer.status),
            "{method} {headers:?}: {answer:?}"
        );
        if answer.status == 426 {
            assert_eq!(answer.header("sec-websocket-version"), Some("13"));
        }
    }
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    ] {
        assert!((400..500).contains(&exchange(port, bytes).status));
    }
    let mut endless = support::connect(("127.0.0.1", port));
    let mut cut = endless.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ");
    let start = std::time::Instant::now();
    while cut.is_ok() && start.elapsed() < support::PATIENCE {
        cut = endless.write_all(&[b'x'; 4096]);
    }
    assert!(cut.is_err(), "a head without end was taken");
    let _ = endless.shutdown(Shutdown::Both);
    let mut client = server.client();
    client.plus();
    assert_eq!(client.next_state(), 1);
    await_that("the others are gone", || server.client().first() == 1);
}

/// A list of protocols with ours in it was answered as a switch, whose frames came in chunks of HTTP.
#[test]
fn an_upgrade_to_something_else_too_is_passed_over() {
    let server = Server::start(&[]);
    let mut bystander = server.client();
    for upgrade in [
        "websocket, h2c",
        "h2c, websocket",
        "websocketx",
        "websocket/13",
    ] {
        let upgrade = format!("Upgrade: {upgrade}");
        let headers = [
            "Connection: Upgrade",
            &upgrade,
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        let answer = request(server.port(), "GET", "/", &headers);
        assert_eq!(answer.status, 200, "{upgrade}");
    }
    bystander.plus();
    assert_eq!(bystander.next(), Event::State(1), "nobody came or went");
}
