//! Actions by POST, over real sockets, beyond the single messages that `tests/protocol.rs` holds.

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    Server,
    http::{Answer, exchange_by, get, request, request_with},
    v1::V1,
};
use uuid::Uuid;

const JSON: &str = "Content-Type: application/json";
const ACTIONS: &str = "/api/rooms/main/actions";
const PLUS: &str = support::PLUS;

fn post(server: &Server, body: &str) -> Answer {
    request_with(server.port(), "POST", ACTIONS, &[JSON], body)
}

fn post_with(server: &Server, key: &str, body: &str) -> Answer {
    let key = format!("Idempotency-Key: {key}");
    request_with(server.port(), "POST", ACTIONS, &[JSON, &key], body)
}

fn value(server: &Server) -> Value {
    get(server.port(), "/api/rooms/main").json()["value"].clone()
}

fn is_replayed(answer: &Answer) -> bool {
    match answer.header("idempotent-replayed") {
        None => false,
        Some(replayed) => {
            assert_eq!(replayed, "true");
            true
        }
    }
}

#[test]
fn posts_with_one_key_at_once_are_one_action() {
    let server = Server::start(&[]);
    for key in [format!("{}:1", Uuid::new_v4()), "order-66".to_owned()] {
        let before = value(&server).as_u64().unwrap();
        let answers: Vec<Answer> = thread::scope(|scope| {
            let asking: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| post_with(&server, &key, PLUS)))
                .collect();
            asking
                .into_iter()
                .map(|asking| asking.join().unwrap())
                .collect()
        });
        for answer in &answers {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json(), answers[0].json());
            assert_eq!(answer.json()["value"], before + 1);
        }
        let first = answers.iter().filter(|answer| !is_replayed(answer));
        assert_eq!(first.count(), 1, "{answers:?}");
        assert_eq!(value(&server), before + 1);
    }
}

#[test]
fn a_counter_hands_out_numbers() {
    let server = Server::start(&[]);
    let mut handed: Vec<u64> = thread::scope(|scope| {
        let asking: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| post(&server, PLUS).json()["value"].as_u64().unwrap()))
            .collect();
        asking
            .into_iter()
            .map(|asking| asking.join().unwrap())
            .collect()
    });
    handed.sort_unstable();
    assert_eq!(handed, (1..=40).collect::<Vec<_>>());
}

#[test]
fn who_reads_or_connects_after_the_answer_sees_the_action() {
    let server = Server::start(&[]);
    for nth in 1..=30 {
        assert_eq!(post(&server, PLUS).json()["rev"], nth);
        assert_eq!(value(&server), nth);
        let joined = V1::join(server.port(), "/", Uuid::new_v4());
        assert_eq!(
            (joined.first, &joined.welcome["rev"]),
            (json!(nth), &json!(nth))
        );
    }
}

#[test]
fn keys_are_visible_characters_up_to_their_limit() {
    let server = Server::start(&[]);
    let mut value = 0;
    for good in [
        "k",
        "!",
        "~\"{}:,",
        &"k".repeat(255),
        "order:66",
        "not-a-uuid:0",
    ] {
        for replayed in [false, true] {
            let answer = post_with(&server, good, PLUS);
            assert_eq!(answer.status, 200, "{good}: {answer:?}");
            value += i64::from(!replayed);
            assert_eq!(answer.json()["value"], value, "{good}");
            assert_eq!(is_replayed(&answer), replayed, "{good}");
        }
    }
    let id = Uuid::new_v4();
    let long = "k".repeat(256);
    let with = |rest: &str| format!("{id}:{rest}");
    for bad in [
        String::new(),
        long,
        "two words".to_owned(),
        "schlüssel".to_owned(),
        with(""),
        with("0"),
        with("-1"),
        with("+1"),
        with("1.0"),
        with("1e0"),
        with(" 1"),
        with("one"),
        with("1:1"),
        with("9007199254740992"),
        with("99999999999999999999999"),
    ] {
        post_with(&server, &bad, PLUS).assert_problem(400, "bad_field");
    }
    let twice = [JSON, "Idempotency-Key: one", "Idempotency-Key: other"];
    request_with(server.port(), "POST", ACTIONS, &twice, PLUS).assert_problem(400, "bad_field");
    // Nothing was settled by any of them.
    let answer = post_with(&server, &with("1"), PLUS);
    assert_eq!(answer.json()["value"], value + 1);
    assert!(!is_replayed(&answer));
    let gap = post_with(&server, &with("9007199254740991"), PLUS);
    gap.assert_problem(409, "gap");
    assert_eq!(gap.json()["expected"], 2);
}

#[test]
fn a_client_s_id_in_a_key_is_the_same_in_any_case() {
    let server = Server::start(&[]);
    let id = Uuid::new_v4().to_string();
    post_with(&server, &format!("{id}:1"), PLUS);
    let again = post_with(&server, &format!("{}:1", id.to_uppercase()), PLUS);
    assert!(is_replayed(&again));
    // An id alone is a key like any other, and nobody's number.
    assert!(!is_replayed(&post_with(&server, &id, PLUS)));
    assert_eq!(value(&server), 2);
}

#[test]
fn a_number_begun_on_a_socket_is_finished_by_a_post_and_the_other_way_round() {
    let server = Server::start(&[]);
    let id = Uuid::new_v4();
    let mut ann = V1::join(server.port(), "/", id);
    for n in (1..40).step_by(2) {
        ann.send_plus([n]);
        ann.expect_ack(n);
        let again = post_with(&server, &format!("{id}:{n}"), PLUS);
        assert!(is_replayed(&again));
        let next = post_with(&server, &format!("{id}:{}", n + 1), PLUS);
        assert_eq!(next.json()["value"], n + 1);
        ann.send_plus([n + 1]);
        assert_eq!(ann.expect_ack(n + 1), n + 1);
    }
    assert_eq!(V1::join(server.port(), "/", id).n(), 40);
}

#[test]
fn what_is_no_json_is_told_so_and_settles_nothing() {
    let server = Server::start(&[]);
    for (body, code) in [
        ("", "not_json"),
        ("plus", "not_json"),
        ("{\"action\":\"plus\"", "not_json"),
        ("\u{feff}{}", "not_json"),
        ("[]", "not_an_object"),
        ("null", "not_an_object"),
    ] {
        post_with(&server, "a-key", body).assert_problem(400, code);
    }
    let bytes = request_with(server.port(), "POST", ACTIONS, &[JSON], b"\xff\xfe{}");
    bytes.assert_problem(400, "not_json");
    let answer = post_with(&server, "a-key", PLUS);
    assert_eq!((answer.status, is_replayed(&answer)), (200, false));
}

#[test]
fn no_form_of_another_site_gets_through() {
    let server = Server::start(&[]);
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonx",
        "text/json",
        "application/problem+json",
        "application/json, text/plain",
    ] {
        let header = format!("Content-Type: {kind}");
        let answer = request_with(server.port(), "POST", ACTIONS, &[&header], PLUS);
        answer.assert_problem(415, "unsupported_media_type");
    }
    request_with(server.port(), "POST", ACTIONS, &[], PLUS)
        .assert_problem(415, "unsupported_media_type");
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json;charset=UTF-8",
    ] {
        let header = format!("Content-Type: {kind}");
        let answer = request_with(server.port(), "POST", ACTIONS, &[&header], PLUS);
        assert_eq!(answer.status, 200, "{kind}");
    }
}

#[test]
fn a_body_over_the_limit_is_told_so() {
    let server = Server::start(&[]);
    let padded = |size: usize| format!("{PLUS}{}", " ".repeat(size - PLUS.len()));
    assert_eq!(post(&server, &padded(64 * 1024)).status, 200);
    post(&server, &padded(64 * 1024 + 1)).assert_problem(413, "too_large");
    post(&server, &padded(1 << 20)).assert_problem(413, "too_large");
    assert_eq!(value(&server), 1);
}

#[test]
fn methods_that_are_not_allowed_are_answered_with_those_that_are() {
    let server = Server::start(&[]);
    for (path, allow) in [
        ("/api/rooms/main", "GET, HEAD"),
        (ACTIONS, "POST"),
        ("/api/rooms/main/journal", "GET, HEAD"),
        ("/api/export", "GET, HEAD"),
        ("/api/import", "POST"),
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW",
        ] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let headers = [JSON, "Content-Length: 0"];
            let answer = request(server.port(), method, path, &headers);
            assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
            if method != "HEAD" {
                answer.assert_problem(405, "method_not_allowed");
            }
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
}

#[test]
fn over_the_rate_a_post_is_told_when_to_come_again_and_its_key_stays_good() {
    let server = Server::start(&["--session-rate", "5"]);
    let id = Uuid::new_v4();
    let start = Instant::now();
    let (mut n, mut limited) = (1, None);
    while limited.is_none() {
        assert!(start.elapsed() < support::PATIENCE, "no limit was met");
        let answer = post_with(&server, &format!("{id}:{n}"), PLUS);
        match answer.status {
            200 => n += 1,
            _ => limited = Some(answer),
        }
    }
    let limited = limited.unwrap();
    limited.assert_problem(429, "rate_limited");
    let seconds: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    thread::sleep(Duration::from_secs(seconds));
    let answer = post_with(&server, &format!("{id}:{n}"), PLUS);
    assert_eq!(
        (answer.status, is_replayed(&answer)),
        (200, false),
        "{answer:?}"
    );
    assert_eq!(value(&server), n);
}

#[test]
fn without_a_key_the_rate_is_that_of_the_address() {
    let server = Server::start(&["--session-rate", "3"]);
    let start = Instant::now();
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        assert!(start.elapsed() < support::PATIENCE, "no limit was met");
        statuses.push(post(&server, PLUS).status);
    }
    // Another client is not concerned.
    let key = format!("{}:1", Uuid::new_v4());
    assert_eq!(post_with(&server, &key, PLUS).status, 200);
}

#[test]
fn a_body_that_does_not_come_is_not_awaited_for_ever() {
    let server = Server::start(&["--body-timeout", "300ms"]);
    let mut stream = support::connect(("127.0.0.1", server.port()));
    let head = format!(
        "POST {ACTIONS} HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\nContent-Length: 17\r\n\r\n{{"
    );
    let answer = exchange_by(&mut stream, head.as_bytes());
    answer.assert_problem(408, "request_timeout");
    assert_eq!(value(&server), 0);
}

#[test]
fn one_connection_carries_one_request_after_another() {
    let server = Server::start(&[]);
    let mut stream = support::connect(("127.0.0.1", server.port()));
    let mut ask = |kind: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST {ACTIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        exchange_by(&mut stream, request.as_bytes())
    };
    let kind = "application/json";
    for nth in 1..=20 {
        assert_eq!(ask(kind, PLUS).json()["value"], nth);
        assert_eq!(ask(kind, "plus").status, 400);
        assert_eq!(
            ask(kind, r#"{"action":"set","value":9007199254740992}"#).status,
            422
        );
    }
}
