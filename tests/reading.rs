//! Rooms and their journals by GET, over real sockets, beyond the single messages that
//! `tests/protocol.rs` holds.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use support::{
    PATIENCE, PLUS, Server, await_that,
    http::{Answer, get, request, request_with},
    v1::V1,
};
use tempfile::TempDir;
use uuid::Uuid;

const JSON: &str = "Content-Type: application/json";
const NDJSON: &str = "Content-Type: application/x-ndjson";
const ACTIONS: &str = "/api/rooms/main/actions";
const JOURNAL: &str = "/api/rooms/main/journal";
const FORWARDED: &str = "X-Forwarded-For: 192.0.2.7";

fn post(server: &Server, headers: &[&str], body: &str) -> Answer {
    let headers = [&[JSON], headers].concat();
    request_with(server.port(), "POST", ACTIONS, &headers, body)
}

/// A server whose room has so many entries of one client.
fn with_entries(count: u64) -> (Server, Uuid) {
    let server = Server::start(&["--session-rate", "0"]);
    let client = Uuid::new_v4();
    let mut ann = V1::join(server.port(), "/", client);
    for first in (1..=count).step_by(500) {
        let last = (first + 499).min(count);
        ann.send_plus(first..=last);
        ann.expect_ack(last);
    }
    drop(ann);
    // Its leaving changes the count of users, which is a part of what is read.
    await_that("it has left", || {
        get(server.port(), "/api/rooms/main").json()["users"] == 0
    });
    (server, client)
}

#[test]
fn head_has_the_headers_of_get() {
    let (server, _) = with_entries(3);
    for path in [
        "/api/rooms/main",
        JOURNAL,
        "/api/rooms/no%20room",
        "/api/export",
    ] {
        let (get, head) = (
            get(server.port(), path),
            request(server.port(), "HEAD", path, &[]),
        );
        assert_eq!(head.status, get.status, "{path}");
        for name in [
            "content-type",
            "etag",
            "cache-control",
            "x-content-type-options",
        ] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
        assert_eq!(get.header("cache-control"), Some("no-cache"), "{path}");
    }
}

#[test]
fn names_that_no_room_can_have_are_not_found() {
    let server = Server::start(&[]);
    let long = "r".repeat(65);
    for name in [
        "no%20room",
        "a.b",
        "%2e%2e",
        "caf%C3%A9",
        "a%2Fb",
        "%00",
        long.as_str(),
        "",
        "%",
    ] {
        for path in ["", "/journal"] {
            let answer = get(server.port(), &format!("/api/rooms/{name}{path}"));
            assert!([400, 404].contains(&answer.status), "{name}: {answer:?}");
        }
        let path = format!("/api/rooms/{name}/actions");
        let answer = request_with(server.port(), "POST", &path, &[JSON], PLUS);
        assert!([400, 404].contains(&answer.status), "{name}: {answer:?}");
    }
    get(server.port(), "/api/rooms/a.b").assert_problem(404, "not_found");
    let name = "r".repeat(64);
    assert_eq!(
        get(server.port(), &format!("/api/rooms/{name}")).json()["room"],
        name
    );
}

#[test]
fn what_a_client_has_already_is_not_sent_again() {
    let server = Server::start(&[]);
    let path = "/api/rooms/main";
    let ask = |tags: &str| {
        request(
            server.port(),
            "GET",
            path,
            &[&format!("If-None-Match: {tags}")],
        )
    };
    let tag = get(server.port(), path).header("etag").unwrap().to_owned();
    for tags in [tag.clone(), "*".to_owned(), format!("\"other\", {tag}")] {
        let answer = ask(&tags);
        assert_eq!(
            (answer.status, answer.header("etag")),
            (304, Some(tag.as_str())),
            "{tags}"
        );
    }
    assert_eq!(ask("\"other\"").status, 200);
    post(&server, &[], PLUS);
    let answer = ask(&tag);
    assert_eq!((answer.status, &answer.json()["value"]), (200, &json!(1)));
    let tag = answer.header("etag").unwrap().to_owned();
    // Who is here is told, too, so it makes another answer.
    let _watcher = server.client();
    assert_eq!(ask(&tag).json()["users"], 1);
}

#[test]
fn reading_a_room_makes_none() {
    let server = Server::start(&["--max-rooms", "5"]);
    for nth in 0..20 {
        let room = get(server.port(), &format!("/api/rooms/r{nth}"));
        assert!([200, 503].contains(&room.status), "{room:?}");
    }
    let exported = get(server.port(), "/api/export");
    assert_eq!((exported.status, exported.lines().len()), (200, 0));
}

#[test]
fn the_journal_is_given_in_pieces_and_whole() {
    const ENTRIES: u64 = 5000;
    let (server, client) = with_entries(ENTRIES);
    let lines = |query: &str| {
        let answer = get(server.port(), &format!("{JOURNAL}{query}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        answer.lines()
    };
    let revs = |query: &str| -> Vec<u64> {
        let lines = lines(query);
        lines
            .iter()
            .map(|line| line["rev"].as_u64().unwrap())
            .collect()
    };
    let all = lines("");
    assert_eq!(all.len() as u64, ENTRIES);
    for (line, nth) in all.iter().zip(1..) {
        assert_eq!(
            (&line["rev"], &line["n"], &line["value"], &line["client"]),
            (&json!(nth), &json!(nth), &json!(nth), &json!(client))
        );
    }
    let times: Vec<_> = all
        .iter()
        .map(|line| line["at"].as_str().unwrap())
        .collect();
    assert!(times.is_sorted(), "the journal's time fell");
    assert_eq!(revs("?since=4990"), (4991..=5000).collect::<Vec<_>>());
    assert_eq!(revs("?limit=3"), [1, 2, 3]);
    assert_eq!(revs("?limit=3&since=1200"), [1201, 1202, 1203]);
    assert_eq!(revs("?since=4999&limit=9007199254740991"), [5000]);
    assert!(revs("?since=5000").is_empty());
    assert!(
        revs("?since=9007199254740991").is_empty(),
        "beyond the end there is nothing yet"
    );
}

/// There are fewer threads that read the disk than readers here.
#[test]
fn readers_of_a_long_journal_that_stall_hold_nobody_up() {
    const ENTRIES: i64 = 60_000;
    const READERS: usize = 8;
    let folder = TempDir::new().unwrap();
    let store = format!("disk:{}", folder.path().display());
    let server = Server::start(&["--store", &store, "--session-rate", "0"]);
    let mut client = server.client();
    for value in (500..=ENTRIES).step_by(500) {
        client.send_often(PLUS, 500);
        client.expect_state(value);
    }
    let stalled: Vec<_> = (0..READERS)
        .map(|_| {
            let mut reader = connect_narrowly(server.port());
            let request =
                format!("GET {JOURNAL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            reader.write_all(request.as_bytes()).unwrap();
            let mut begun = vec![0; 1000];
            reader.read_exact(&mut begun).unwrap();
            assert!(begun.starts_with(b"HTTP/1.1 200"));
            (reader, begun)
        })
        .collect();
    let rest = format!("{JOURNAL}?since={}&limit=3", ENTRIES - 3);
    for value in (ENTRIES + 1..=ENTRIES + 40).step_by(2) {
        client.plus();
        client.expect_state(value);
        assert_eq!(post(&server, &[], PLUS).json()["value"], value + 1);
        let state = get(server.port(), "/api/rooms/main").json();
        assert_eq!(state["rev"], value + 1);
        let other = get(server.port(), &format!("/api/rooms/other-{value}")).json();
        assert_eq!(other["rev"], 0);
        assert_eq!(get(server.port(), &rest).lines()[2]["rev"], ENTRIES);
    }
    for (mut reader, mut answer) in stalled {
        reader.read_to_end(&mut answer).unwrap();
        // More than the kernel holds for both sides, or nobody would have stalled.
        assert!(answer.len() > 6_000_000, "{}", answer.len());
        let answer = String::from_utf8(answer).unwrap();
        let revs = answer.split("{\"rev\":").skip(1);
        let revs = revs.map(|line| line.split(',').next().unwrap().parse::<i64>().unwrap());
        assert!(revs.eq(1..=ENTRIES), "all that was there, and no more");
        assert!(answer.ends_with("\r\n0\r\n\r\n"), "it has an end");
    }
}

/// A connection for which the kernel keeps little that was not read.
fn connect_narrowly(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}

#[test]
fn a_query_parameter_that_is_wrong_is_named() {
    let (server, _) = with_entries(1);
    for query in [
        "?since=x",
        "?since=-1",
        "?since=",
        "?since=1.5",
        "?since=99999999999999999999",
        "?limit=0",
        "?limit=-1",
        "?limit=1&limit=2",
        "?limit=all",
        "?limit=",
    ] {
        let answer = get(server.port(), &format!("{JOURNAL}{query}"));
        answer.assert_problem(400, "bad_field");
        let name = &query[1..6];
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(name), "{query}: {detail}");
    }
}

#[test]
fn entries_that_are_no_longer_kept_are_gone() {
    let (server, _) = with_entries(25_000);
    let answer = get(server.port(), JOURNAL);
    answer.assert_problem(410, "gone");
    let first = answer.json()["first"].as_u64().unwrap();
    assert!((2..=25_000).contains(&first), "{first}");
    let rest = get(server.port(), &format!("{JOURNAL}?since={}", first - 1));
    assert_eq!(rest.status, 200);
    let lines = rest.lines();
    assert_eq!(lines[0]["rev"], first);
    // The value after each entry is right, though those before it are gone.
    assert_eq!(lines[0]["value"], first);
    assert_eq!(lines.last().unwrap()["value"], 25_000);
}

#[test]
fn csv_is_quoted_where_it_must_be() {
    let server = Server::start(&[]);
    post(&server, &[], r#"{"action":"limits","min":-5,"max":null}"#);
    post(&server, &[], r#"{"action":"plus"}"#);
    let accept = |kinds: &str| {
        request(
            server.port(),
            "GET",
            JOURNAL,
            &[&format!("Accept: {kinds}")],
        )
    };
    let answer = accept("text/csv");
    let text = answer.text();
    let rows: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(rows[0], "rev,at,client,n,action,value");
    assert!(
        rows[1].contains(r#","{""action"":""limits"",""min"":-5,""max"":null}",0"#),
        "{text}"
    );
    assert_eq!(answer.csv()[2][4..], [r#"{"action":"plus"}"#, "1"]);
    for kinds in ["application/x-ndjson", "*/*", "application/json, */*;q=0.1"] {
        let kind = accept(kinds).header("content-type").unwrap().to_owned();
        assert_eq!(kind, "application/x-ndjson", "{kinds}");
    }
}

#[test]
fn whoever_has_no_admin_sees_aliases_that_stay_the_same() {
    let (server, ann) = with_entries(2);
    let bob = Uuid::new_v4();
    post(&server, &[&format!("Idempotency-Key: {bob}:1")], PLUS);
    post(&server, &[], PLUS);
    let clients = |headers: &[&str]| -> Vec<Value> {
        let lines = request(server.port(), "GET", JOURNAL, headers).lines();
        lines.iter().map(|line| line["client"].clone()).collect()
    };
    assert_eq!(
        clients(&[]),
        [json!(ann), json!(ann), json!(bob), Value::Null]
    );
    let seen = clients(&[FORWARDED]);
    assert_eq!(seen, clients(&[FORWARDED]));
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
    assert_eq!(seen[3], Value::Null);
    for alias in &seen[..3] {
        let alias = alias.as_str().unwrap();
        assert!(!alias.is_empty() && alias != ann.to_string() && alias != bob.to_string());
    }
    for header in [
        "Forwarded: for=192.0.2.7",
        "X-Forwarded-For: ::1",
        "X-Real-IP: 192.0.2.7",
    ] {
        assert_eq!(clients(&[header]), seen, "{header}");
    }
}

#[test]
fn after_an_import_the_journal_tells_the_new_epoch_alone() {
    let (server, _) = with_entries(7);
    let import = [NDJSON];
    let line = r#"{"room":"main","value":40,"max":50}"#;
    let answer = request_with(server.port(), "POST", "/api/import", &import, line);
    assert_eq!(answer.json(), json!({"rooms": 1}), "{answer:?}");
    let state = get(server.port(), "/api/rooms/main").json();
    let rev = state["rev"].as_u64().unwrap();
    assert_eq!(
        get(server.port(), &format!("{JOURNAL}?since={rev}")).lines(),
        [json!(null); 0]
    );
    let made = post(&server, &[], PLUS).json();
    assert_eq!(
        (&made["value"], &made["epoch"]),
        (&json!(41), &state["epoch"])
    );
    let lines = get(server.port(), &format!("{JOURNAL}?since={rev}")).lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (&lines[0]["rev"], &lines[0]["value"]),
        (&made["rev"], &json!(41))
    );
    let exported = get(server.port(), "/api/export").lines();
    assert_eq!(exported, [json!({"room": "main", "value": 41, "max": 50})]);
}
