//! Data folders of every format that was ever written: each is opened and gone on with, and what is
//! damaged in one is found.

mod support;

use std::{fs, path::Path, process::Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};
use support::{
    Server,
    http::{self, get},
};
use tallyroom::{
    check::{CheckError, Sound, check},
    journal::disk::{FILE, OpenError},
    model::counter::Counter,
};
use tempfile::TempDir;

/// A copy of a folder that a server of that format left behind.
fn folder(format: u32) -> TempDir {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"));
    let folder = TempDir::new().unwrap();
    for file in fs::read_dir(fixture).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn start(folder: &Path) -> Server {
    Server::start(&["--store", &format!("disk:{}", folder.display())])
}

fn state(server: &Server, room: &str) -> Value {
    let mut state = get(server.port(), &format!("/api/rooms/{room}")).json();
    state.as_object_mut().unwrap().remove("epoch");
    state
}

fn check_all(folder: &Path) -> (Vec<Sound>, Result<(), CheckError>) {
    let mut sound = Vec::new();
    let checked = check::<Counter>(folder, |room| sound.extend(room.as_ref().ok().cloned()));
    (sound, checked)
}

/// Posts an action by a key, and gives its status, its body, and whether it was answered before.
fn post(server: &Server, room: &str, key: &str, action: Value) -> (u16, Value, bool) {
    let body = action.to_string();
    let request = format!(
        "POST /api/rooms/{room}/actions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = http::exchange(server.port(), request.as_bytes());
    let replayed = answer.header("idempotent-replayed") == Some("true");
    (answer.status, answer.json(), replayed)
}

#[test]
fn format_1_which_knew_no_numbers_is_brought_up() {
    let folder = folder(1);
    let older = check_all(folder.path()).1.unwrap_err();
    assert!(
        matches!(older, CheckError::Open(OpenError::Older { .. })),
        "{older}"
    );
    let server = start(folder.path());
    assert_eq!(
        state(&server, "door"),
        json!({"room": "door", "rev": 8, "value": 40, "users": 0})
    );
    assert_eq!(
        state(&server, "main"),
        json!({"room": "main", "rev": 7, "value": -7, "users": 0})
    );
    let (status, made, _) = post(
        &server,
        "door",
        "a-new-key",
        json!({"action": "plus", "by": 10}),
    );
    assert_eq!(
        (status, &made["rev"], &made["value"]),
        (200, &json!(9), &json!(50))
    );
    let (status, ..) = post(&server, "door", "another", json!({"action": "plus"}));
    assert_eq!(status, 422, "the limits are known");
    let journal = get(server.port(), "/api/rooms/door/journal?since=7");
    let first: Value = serde_json::from_str(journal.text().lines().next().unwrap()).unwrap();
    assert_eq!(first["action"], json!({"action": "set", "value": 40}));
    drop(server);
    assert!(check_all(folder.path()).1.is_ok());
}

#[test]
fn format_2_left_by_a_killed_server_is_gone_on_with() {
    const ANN: &str = "11111111-1111-4111-8111-111111111111";
    let folder = folder(2);
    let server = start(folder.path());
    assert_eq!(
        state(&server, "door"),
        json!({"room": "door", "rev": 9, "value": 7, "users": 0})
    );
    assert_eq!(
        state(&server, "main"),
        json!({"room": "main", "rev": 3, "value": -3, "users": 0})
    );
    assert_eq!(
        state(&server, "begun"),
        json!({"room": "begun", "rev": 1, "value": 41, "users": 0})
    );
    let plus = || json!({"action": "plus"});
    // What was settled before is answered as it was then: the last, older ones, and by a key.
    for (key, status, rev) in [
        (format!("{ANN}:10"), 200, json!(9)),
        (format!("{ANN}:9"), 422, Value::Null),
        (format!("{ANN}:7"), 422, Value::Null),
        (format!("{ANN}:1"), 200, json!(9)),
        ("order-7".to_owned(), 200, json!(7)),
        (
            "22222222-2222-4222-8222-222222222222:1".to_owned(),
            400,
            Value::Null,
        ),
    ] {
        let (found, body, replayed) = post(&server, "door", &key, plus());
        assert_eq!(
            (found, &body["rev"], replayed),
            (status, &rev, true),
            "{key}: {body}"
        );
    }
    let (status, made, replayed) = post(&server, "door", &format!("{ANN}:11"), plus());
    assert_eq!((status, &made["value"], replayed), (200, &json!(8), false));
    drop(server);
    let (sound, checked) = check_all(folder.path());
    checked.unwrap();
    let told: Vec<_> = sound
        .iter()
        .map(|room| (room.room.as_str(), room.last.0, room.clients))
        .collect();
    assert_eq!(told, [("begun", 1, 1), ("door", 10, 3), ("main", 3, 0)]);
}

#[test]
fn a_folder_is_checked_while_a_server_has_it_open() {
    let folder = folder(2);
    let server = start(folder.path());
    for key in 0..20 {
        let (status, ..) = post(
            &server,
            "main",
            &format!("key-{key}"),
            json!({"action": "plus"}),
        );
        assert_eq!(status, 200);
        let (sound, checked) = check_all(folder.path());
        checked.unwrap();
        assert_eq!(sound[2].last.0, 4 + key);
    }
}

#[test]
fn damage_is_found_and_named() {
    let cases = [
        (
            "DELETE FROM batches WHERE room = 1 AND rev = 3",
            3,
            "one before it",
        ),
        (
            "DELETE FROM batches WHERE room = 1 AND rev = 6 AND part = 1",
            7,
            "one before it",
        ),
        (
            "UPDATE batches SET after_id = id WHERE room = 1 AND rev = 4",
            4,
            "one before it",
        ),
        (
            "UPDATE batches SET entries = replace(entries, '[0,', '[7,') WHERE room = 1 AND rev = 5",
            5,
            "",
        ),
        (
            "UPDATE batches SET entries = replace(entries, 'plus', 'mul') WHERE room = 1 AND rev = 2",
            2,
            "again",
        ),
        (
            "UPDATE batches SET entries = replace(entries, 'plus', 'minus') WHERE room = 1 AND rev = 2",
            7,
            "another state",
        ),
        (
            "UPDATE batches SET entries = replace(entries, '[0,4,', '[0,9,') WHERE room = 1 AND rev = 4",
            4,
            "number 9",
        ),
        (
            "UPDATE batches SET entries = '[]' WHERE room = 1 AND rev = 9",
            9,
            "",
        ),
        (
            "UPDATE batches SET entries = 'x' WHERE room = 1 AND rev = 9",
            9,
            "",
        ),
        (
            "UPDATE snapshots SET snapshot = json_set(snapshot, '$.settled[0].n', 6) WHERE room = 1",
            7,
            "other numbers",
        ),
        (
            "UPDATE snapshots SET snapshot = json_remove(snapshot, '$.settled[1]') WHERE room = 1",
            7,
            "other numbers",
        ),
        (
            "UPDATE snapshots SET snapshot = json_set(snapshot, '$.state.value', 8) WHERE room = 1",
            7,
            "another state",
        ),
        (
            "DELETE FROM snapshots WHERE room = 1; DELETE FROM batches WHERE room = 1 AND rev < 4",
            4,
            "are gone",
        ),
        (
            "DELETE FROM batches WHERE room = 1 AND rev > 5",
            7,
            "never came to",
        ),
    ];
    for (damage, rev, says) in cases {
        let folder = folder(2);
        let database = Connection::open(folder.path().join(FILE)).unwrap();
        database.execute_batch(damage).unwrap();
        assert!(database.changes() > 0, "{damage}");
        drop(database);
        let (sound, checked) = check_all(folder.path());
        let said = checked.expect_err(damage).to_string();
        assert!(said.contains("room door is damaged"), "{damage}: {said}");
        assert!(
            said.contains(&format!("at revision {rev}:")),
            "{damage}: {said}"
        );
        assert!(said.contains(says), "{damage}: {said}");
        assert_eq!(sound.len(), 2, "the other rooms are sound");
    }
}

#[test]
fn a_file_that_is_torn_is_found() {
    let folder = folder(2);
    let file = folder.path().join(FILE);
    fs::remove_file(folder.path().join(format!("{FILE}-wal"))).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() - 4096 - 1000;
    bytes[middle..middle + 900].fill(0x5a);
    fs::write(&file, bytes).unwrap();
    assert!(check_all(folder.path()).1.is_err());
}

#[test]
fn a_folder_that_is_missing_is_not_made() {
    let parent = TempDir::new().unwrap();
    let missing = parent.path().join("missing");
    let said = check_all(&missing).1.unwrap_err().to_string();
    assert!(said.contains("missing"), "{said}");
    assert!(!missing.exists());
}

#[test]
fn the_command_prints_a_line_for_each_room_and_ends_with_what_is_damaged() {
    let folder = folder(2);
    let store = format!("disk:{}", folder.path().display());
    let run = || {
        let mut command = support::command(&["check", "--store", &store]);
        command.stdout(Stdio::piped()).output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let sound = run();
    assert_eq!(sound.status.code(), Some(0));
    let lines = text(&sound.stdout);
    assert_eq!(lines.lines().count(), 3);
    assert!(
        lines.contains("room door: sound, revision 9, entries kept from 1 on"),
        "{lines}"
    );
    assert!(text(&sound.stderr).contains("all sound; rooms: 3"));

    let database = Connection::open(folder.path().join(FILE)).unwrap();
    database
        .execute_batch("DELETE FROM batches WHERE room = 1 AND rev = 3")
        .unwrap();
    let damaged = run();
    assert_eq!(damaged.status.code(), Some(1));
    assert!(text(&damaged.stdout).contains("room main: sound"));
    assert!(text(&damaged.stderr).contains("room door is damaged at revision 3: "));

    let missing = folder.path().join("missing");
    let missing_store = format!("disk:{}", missing.display());
    for (store, code) in [(&*missing_store, 1), ("memory", 1), ("floppy", 2)] {
        let output = support::command(&["check", "--store", store])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{store}");
        assert!(!output.stderr.is_empty());
    }
    assert!(!missing.exists());
}
