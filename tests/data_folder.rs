//! Data folders of every format that was ever written: each is opened and gone on with, and what is
//! damaged in one is found.

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use actix_web::rt::Runtime;
use rusqlite::{Connection, OpenFlags, Params, types};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::to_raw_value};
use support::{
    PLUS, Server, await_that,
    http::{self, get, request_with},
    in_process::InProcess,
    v1::V1,
};
use tallyroom::{
    check::{CheckError, Sound, check},
    entry::{Position, Snapshot},
    ids::{Millis, RoomName},
    journal::{
        Journal,
        disk::{DiskJournal, FILE, Inspection, Keep, OpenError},
    },
    limits::Limits,
    model::{By, Model, ModelId, Stored, counter::Counter},
    rejection::Rejection,
};
use tempfile::TempDir;
use uuid::Uuid;

const ANN: &str = "11111111-1111-4111-8111-111111111111";

/// What the present program writes; with a new format comes a new one, and this stays for ever.
const NEWEST: &str = "format-2-runs";

/// What was told of a fixture before its server was killed: a file beside the database.
const TOLD: &str = "told.json";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}"))
}

/// A copy of a folder that a server left behind.
fn folder(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for file in fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    folder
}

fn start(folder: &Path) -> Server {
    Server::start(&["--store", &format!("disk:{}", folder.display())])
}

fn state(server: &Server, room: &str) -> Value {
    get(server.port(), &format!("/api/rooms/{room}")).json()
}

/// What a database says of itself, as any tool reads it.
fn meta(folder: &Path, key: &str) -> String {
    let select = "SELECT value FROM meta WHERE key = ?1";
    database(folder)
        .query_row(select, [key], |row| row.get(0))
        .unwrap()
}

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join(FILE)).unwrap()
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
    const EPOCH: &str = "c9b8c93c-951c-41e4-8fbb-d33453d40523";
    let folder = folder("format-1");
    let older = check_all(folder.path()).1.unwrap_err();
    assert!(
        matches!(older, CheckError::Open(OpenError::Older { .. })),
        "{older}"
    );
    let server = start(folder.path());
    assert_eq!(
        state(&server, "door"),
        json!({"room": "door", "epoch": EPOCH, "rev": 8, "value": 40, "users": 0})
    );
    assert_eq!(
        state(&server, "main"),
        json!({"room": "main", "epoch": EPOCH, "rev": 7, "value": -7, "users": 0})
    );
    assert_eq!(
        state(&server, "nobody-was-here"),
        json!({"room": "nobody-was-here", "epoch": EPOCH, "rev": 0, "value": 0, "users": 0})
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
    assert_eq!(
        meta(folder.path(), "store"),
        "cfb5c901-627f-471d-84b5-7731ca5541bd"
    );
}

#[test]
fn format_2_left_by_a_killed_server_is_gone_on_with() {
    const EPOCH: &str = "4f03f99b-d89d-489c-b90d-798116ada206";
    const BEGUN: &str = "d5c2b5bd-371c-4341-a5c1-5d25106f3adf";
    let folder = folder("format-2");
    let server = start(folder.path());
    assert_eq!(
        state(&server, "door"),
        json!({"room": "door", "epoch": EPOCH, "rev": 9, "value": 7, "users": 0})
    );
    assert_eq!(
        state(&server, "main"),
        json!({"room": "main", "epoch": EPOCH, "rev": 3, "value": -3, "users": 0})
    );
    assert_eq!(
        state(&server, "begun"),
        json!({"room": "begun", "epoch": BEGUN, "rev": 1, "value": 41, "users": 0})
    );
    assert_eq!(
        state(&server, "nobody-was-here"),
        json!({"room": "nobody-was-here", "epoch": EPOCH, "rev": 0, "value": 0, "users": 0})
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
    assert_eq!(
        meta(folder.path(), "store"),
        "dd5a253a-6a7c-4051-9141-66bfc28cf5e6"
    );
}

#[test]
fn the_newest_folder_is_gone_on_with_as_its_killed_server_told_it() {
    let folder = folder(NEWEST);
    let told = fs::read(folder.path().join(TOLD)).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let server = start(folder.path());
    for state in told["states"].as_array().unwrap() {
        assert_eq!(
            self::state(&server, state["room"].as_str().unwrap()),
            *state
        );
    }
    for journal in told["journals"].as_array().unwrap() {
        let path = journal["path"].as_str().unwrap();
        let entries = journal["entries"].as_array().unwrap();
        assert_eq!(get(server.port(), path).lines(), *entries, "{path}");
    }
    let dropped = get(server.port(), "/api/rooms/trimmed/journal");
    dropped.assert_problem(410, "gone");
    assert_eq!(dropped.json()["first"], 31);
    let repeats = told["repeats"].as_array().unwrap();
    assert_eq!(repeats.len(), REPEATS.len());
    for repeat in repeats {
        assert_eq!(ask_again(&server, &repeat["key"], &repeat["room"]), *repeat);
    }
    // Where each room was shown to end it goes on.
    for state in told["states"].as_array().unwrap() {
        let room = state["room"].as_str().unwrap();
        let (status, made, _) = post(&server, room, "a-new-key", json!({"action": "plus"}));
        assert_eq!(status, 200, "{room}: {made}");
        assert_eq!(made["epoch"], state["epoch"], "{room}");
        assert_eq!(made["rev"], state["rev"].as_u64().unwrap() + 1, "{room}");
        assert_eq!(made["value"], state["value"].as_i64().unwrap() + 1);
    }
    drop(server);
    check_all(folder.path()).1.unwrap();
    assert_eq!(meta(folder.path(), "store"), told["store"]);
}

/// The counter as a later version might keep it: a bare number, and one action without a name.
struct Newer;

#[derive(Serialize, Deserialize)]
struct Add {
    by: i64,
}

impl Model for Newer {
    const NAME: &'static str = Counter::NAME;
    const VERSION: u32 = Counter::VERSION + 1;
    type State = i64;
    type Action = Add;

    fn apply(state: &mut i64, add: &Add, _: &By) -> Result<(), Rejection> {
        *state += add.by;
        Ok(())
    }

    fn migrate(stored: Stored, from: u32) -> Result<Value, Rejection> {
        assert_eq!(from, Counter::VERSION);
        Ok(match stored {
            Stored::State(state) => state["value"].clone(),
            Stored::Action(action) => {
                assert_eq!(action["action"], "plus");
                json!({"by": action["by"].as_i64().unwrap_or(1)})
            }
        })
    }
}

/// From entries alone and from a snapshot, of which the latter ends in the middle of the journal.
#[test]
fn an_older_versions_rooms_are_brought_up_and_gone_on_with_over_restarts() {
    const ROOMS: [&str; 4] = ["crowd", "killed", "main", "trimmed"];
    let folder = folder(NEWEST);
    let told = fs::read(folder.path().join(TOLD)).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let mut states = told["states"].as_array().unwrap().clone();
    states.retain(|state| ROOMS.contains(&state["room"].as_str().unwrap()));
    assert_eq!(states.len(), ROOMS.len());
    for round in 1..=3 {
        let server = InProcess::start(
            Newer,
            Arc::new(open_when_free(folder.path())),
            Limits::default(),
        );
        for state in &mut states {
            let path = format!("/api/rooms/{}", state["room"].as_str().unwrap());
            assert_eq!(get(server.port(), &path).json(), *state, "round {round}");
            let path = format!("{path}/actions");
            let json = ["Content-Type: application/json"];
            let made = request_with(server.port(), "POST", &path, &json, r#"{"by":7}"#);
            assert_eq!(made.status, 200, "{made:?}");
            state["rev"] = (state["rev"].as_u64().unwrap() + 1).into();
            state["value"] = (state["value"].as_i64().unwrap() + 7).into();
            assert_eq!(made.json()["value"], state["value"]);
        }
    }
    drop(open_when_free(folder.path()));
    let versions = rows(
        &database(folder.path()),
        "SELECT DISTINCT version FROM batches ORDER BY version",
        [],
    );
    assert_eq!(versions.len(), 2, "{versions:?}");
    let older = check_all(folder.path()).1.unwrap_err();
    assert!(
        matches!(older, CheckError::Open(OpenError::NewerModel { .. })),
        "{older}"
    );
}

/// Opens the newer version's journal when the server before has given the folder free.
fn open_when_free(folder: &Path) -> DiskJournal {
    let mut opened = None;
    await_that("the folder is free", || {
        match DiskJournal::open(folder, ModelId::of::<Newer>(), Keep::default()) {
            Ok(journal) => opened = Some(journal),
            Err(OpenError::InUse { .. }) => {}
            Err(err) => panic!("{err}"),
        }
        opened.is_some()
    });
    opened.unwrap()
}

/// The fixtures hold what their names say, or the tests of them show nothing.
#[test]
fn the_newest_folder_holds_what_rows_can_hold() {
    let folder = folder(NEWEST);
    assert!(folder.path().join(format!("{FILE}-wal")).exists());
    let database = database(folder.path());
    let number = |query: &str| -> i64 {
        database
            .query_row(query, [], |row| row.get(0))
            .expect(query)
    };
    assert!(number(CROWDED) > 0, "a batch of several clients with runs");
    assert!(number("SELECT count(*) FROM batches WHERE refusals IS NOT NULL") > 1);
    assert!(number("SELECT count(*) FROM batches WHERE part > 0") > 1);
    assert!(number("SELECT count(*) FROM batches WHERE clients IS NULL") > 1);
    assert_eq!(number("SELECT count(DISTINCT epoch) FROM rooms"), 2);
    let first = "SELECT min(after_rev) FROM batches JOIN rooms USING (room) WHERE name = 'trimmed'";
    assert_eq!(number(first), 30);
}

/// A change of the tables or of what stands in them wants a new `FORMAT`, a fixture of it, and a way
/// from this one.
#[test]
fn a_new_folder_has_the_tables_of_the_newest_fixture() {
    let (kept, new) = (folder(NEWEST), TempDir::new().unwrap());
    drop(open_journal(new.path()));
    for query in [
        "PRAGMA application_id",
        "PRAGMA user_version",
        "PRAGMA page_size",
        "PRAGMA journal_mode",
        "PRAGMA encoding",
        "SELECT * FROM sqlite_schema ORDER BY name",
        "SELECT key, length(value) FROM meta ORDER BY key",
        "SELECT * FROM meta WHERE key IN ('model', 'version')",
    ] {
        let (kept, new) = (database(kept.path()), database(new.path()));
        assert_eq!(rows(&new, query, []), rows(&kept, query, []), "{query}");
    }
}

/// What is read of the fixture and written again stands there byte by byte.
#[test]
fn rows_are_written_as_they_stand_in_the_newest_fixture() {
    const BATCHES: &str = "SELECT batches.*, NULL AS room FROM batches JOIN rooms USING (room)
        WHERE name = ?1 ORDER BY rev, part";
    const SNAPSHOT: &str = "SELECT snapshots.*, NULL AS room FROM snapshots JOIN rooms USING (room)
        WHERE name = ?1 ORDER BY rev DESC, part DESC LIMIT 1";
    let (kept, new) = (folder(NEWEST), TempDir::new().unwrap());
    let inspection = Inspection::open(kept.path(), ModelId::of::<Counter>()).unwrap();
    let journal = open_journal(new.path());
    let mut copied = Vec::new();
    for room in inspection.rooms(None, 100).unwrap() {
        let of_room = inspection.kept(&room).unwrap().unwrap();
        if of_room.begins == of_room.start {
            copy(&inspection, &journal, &room, of_room.start);
            copied.push(room);
        }
    }
    assert_eq!(
        copied.len(),
        5,
        "all but the one whose beginning is dropped"
    );
    drop(journal);
    let (kept, new) = (database(kept.path()), database(new.path()));
    for room in &copied {
        let stand = |query| rows(&kept, query, [room.as_str()]);
        assert!(!stand(BATCHES).is_empty(), "{room}");
        assert_eq!(rows(&new, BATCHES, [room.as_str()]), stand(BATCHES));
        let snapshots = stand(SNAPSHOT);
        assert_eq!(snapshots.is_empty(), room.as_str() == "killed");
        if !snapshots.is_empty() {
            assert_eq!(rows(&new, SNAPSHOT, [room.as_str()]), snapshots);
        }
    }
}

/// Writes to a journal what another has of a room, and its newest snapshot.
fn copy(from: &Inspection, to: &DiskJournal, room: &RoomName, start: Position) {
    let runtime = Runtime::new().unwrap();
    let nowhere = runtime.block_on(to.open(room)).unwrap().end;
    let begun = from.snapshot(room, start).unwrap();
    let begun = begun.unwrap_or_else(|| Snapshot {
        position: start,
        at: Millis(0),
        model: "counter".to_owned(),
        version: 1,
        state: to_raw_value(&Value::Null).unwrap(),
        settled: Vec::new(),
        ordinals: 0,
    });
    runtime.block_on(to.restart(room, nowhere, begun)).unwrap();
    for batch in from.replay(room, start, usize::MAX).unwrap() {
        runtime.block_on(to.append(room, batch)).unwrap();
    }
    // A room that was never put to rest has none.
    if let Some(newest) = from.kept(room).unwrap().unwrap().snapshots.last() {
        let newest = from.snapshot(room, *newest).unwrap().unwrap();
        runtime.block_on(to.save(room, newest)).unwrap();
    }
}

/// What the same requests leave behind is the same, but for times and ids that are drawn.
#[test]
fn requests_leave_the_rows_that_they_left_in_the_newest_fixture() {
    let new = TempDir::new().unwrap();
    let store = format!("disk:{}", new.path().display());
    let server = Server::start(&["--store", &store, "--room-idle", "1s"]);
    post_form(&server);
    await_snapshots(new.path());
    drop(server);
    let kept = folder(NEWEST);
    for query in [
        "SELECT rev, part, after_rev, after_part, version, clients, entries, refusals
            FROM batches JOIN rooms USING (room) WHERE name = 'form' ORDER BY rev, part",
        "SELECT json_remove(snapshot, '$.at', '$.position.epoch', '$.position.batch', '$.settled')
            FROM snapshots JOIN rooms USING (room) WHERE name = 'form' ORDER BY rev DESC LIMIT 1",
        "SELECT json_remove(value, '$.at') FROM snapshots JOIN rooms USING (room),
            json_each(snapshot, '$.settled') WHERE name = 'form' AND rev =
            (SELECT max(rev) FROM snapshots JOIN rooms USING (room) WHERE name = 'form')",
    ] {
        let stands = rows(&database(kept.path()), query, []);
        assert!(!stands.is_empty(), "{query}");
        assert_eq!(rows(&database(new.path()), query, []), stands);
    }
}

/// What a query gives, with the types that the values have in the database.
fn rows(database: &Connection, query: &str, given: impl Params) -> Vec<Vec<types::Value>> {
    let mut statement = database.prepare(query).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    // The number of a room says nothing.
    let columns: Vec<usize> = (0..names.len())
        .filter(|&nth| names[nth] != "room")
        .collect();
    let mut rows = statement.query(given).unwrap();
    let mut all = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        all.push(columns.iter().map(|&nth| row.get(nth).unwrap()).collect());
    }
    all
}

fn open_journal(folder: &Path) -> DiskJournal {
    let keep = Keep {
        entries: None,
        days: None,
    };
    DiskJournal::open(folder, ModelId::of::<Counter>(), keep).unwrap()
}

/// Batches with several clients, and with something asked for several times in a row.
const CROWDED: &str = "SELECT count(*) FROM batches WHERE json_array_length(clients) > 1
    AND EXISTS (SELECT 1 FROM json_each(entries) WHERE json_array_length(value) = 4)";

const BOB: &str = "22222222-2222-4222-8222-222222222222";

/// Keys that were answered before the kill, by room: the last number of a client, an older one, a
/// refused one, and keys used once.
const REPEATS: [(&str, &str); 8] = [
    ("form", "11111111-1111-4111-8111-111111111111:7"),
    ("form", "11111111-1111-4111-8111-111111111111:3"),
    ("form", "11111111-1111-4111-8111-111111111111:1"),
    ("form", "order-7"),
    ("crowd", "11111111-1111-4111-8111-111111111111:1"),
    ("imported", "order-8"),
    ("trimmed", "22222222-2222-4222-8222-222222222222:1"),
    ("killed", "22222222-2222-4222-8222-222222222222:2"),
];

/// Each of the counter's actions, refusals of both kinds, and a key that is used once.
fn post_form(server: &Server) {
    for (key, action, status) in [
        ("1", json!({"action": "plus", "by": 3}), 200),
        ("2", json!({"action": "limits", "min": -2, "max": 4}), 200),
        ("3", json!({"action": "plus", "by": 2}), 422),
        ("4", json!({"action": "double"}), 400),
        ("5", json!({"action": "minus"}), 200),
        ("6", json!({"action": "set", "value": -1}), 200),
        ("7", json!({"action": "reset"}), 200),
        ("order-7", json!({"action": "plus"}), 200),
    ] {
        let key = match key.parse::<u64>() {
            Ok(n) => format!("{ANN}:{n}"),
            Err(_) => key.to_owned(),
        };
        let (found, body, replayed) = post(server, "form", &key, action);
        assert_eq!((found, replayed), (status, false), "{key}: {body}");
    }
}

/// The answer to a key that was answered before.
fn ask_again(server: &Server, key: &Value, room: &Value) -> Value {
    let (key, room) = (key.as_str().unwrap(), room.as_str().unwrap());
    let (status, answer, replayed) = post(server, room, key, json!({"action": "plus"}));
    assert!(replayed, "{room} {key}: {answer}");
    json!({"room": room, "key": key, "status": status, "answer": answer})
}

/// Writes the fixture of the present format; `tests/fixtures/README.md` says when and how.
#[test]
#[ignore = "it writes a fixture, once for each format"]
fn write_the_newest_fixture() {
    let fixture = fixture(NEWEST);
    assert!(
        !fixture.exists(),
        "{NEWEST} is there; what once was written is never written again, so name another one"
    );
    let folder = TempDir::new().unwrap();
    let store = format!("disk:{}", folder.path().display());
    let start = |idle| {
        let flags = [
            "--store",
            &store,
            "--keep-entries",
            "10",
            "--room-idle",
            idle,
        ];
        Server::start(&flags)
    };
    let rest_and_stop = |mut server: Server| {
        await_snapshots(folder.path());
        server.signal("TERM");
        assert!(server.await_exit().success());
    };
    let bob = |room: &str, server: &Server, numbers: std::ops::RangeInclusive<u64>| {
        for n in numbers {
            let plus = json!({"action": "plus"});
            assert_eq!(post(server, room, &format!("{BOB}:{n}"), plus).0, 200);
        }
    };
    // A room that is put to rest keeps a snapshot; its second one lets what is before the first go.
    let server = start("1s");
    bob("trimmed", &server, 1..=30);
    rest_and_stop(server);
    let server = start("1s");
    bob("trimmed", &server, 31..=60);
    post_form(&server);
    crowd(&server, folder.path());
    let mut nobody = server.client();
    nobody.send_often(PLUS, 50);
    nobody.expect_state(50);
    nobody.close();
    let import = request_with(
        server.port(),
        "POST",
        "/api/import",
        &["Content-Type: application/x-ndjson"],
        r#"{"room":"imported","value":40,"max":50}"#,
    );
    assert_eq!(import.status, 200, "{import:?}");
    let (status, ..) = post(&server, "imported", "order-8", json!({"action": "plus"}));
    assert_eq!(status, 200);
    rest_and_stop(server);
    // What only the write-ahead log has.
    let mut server = start("1h");
    bob("trimmed", &server, 61..=62);
    bob("killed", &server, 1..=2);
    let (status, ..) = post(&server, "imported", "order-9", json!({"action": "plus"}));
    assert_eq!(status, 200);
    let told = told(&server, folder.path());
    server.signal("KILL");
    server.await_exit();
    fs::create_dir(&fixture).unwrap();
    for file in [FILE.to_owned(), format!("{FILE}-wal")] {
        fs::copy(folder.path().join(&file), fixture.join(&file)).unwrap();
    }
    let told = serde_json::to_string_pretty(&told).unwrap();
    fs::write(fixture.join(TOLD), told + "\n").unwrap();
}

/// Waits until each room has a snapshot of where it ends.
fn await_snapshots(folder: &Path) {
    let without = "SELECT count(*) FROM rooms WHERE
        coalesce((SELECT max(rev) FROM batches WHERE batches.room = rooms.room), 0) >
        coalesce((SELECT max(rev) FROM snapshots WHERE snapshots.room = rooms.room), -1)";
    await_that("the rooms are put to rest", || {
        let left: i64 = database(folder)
            .query_row(without, [], |row| row.get(0))
            .unwrap();
        left == 0
    });
}

/// Lets several clients act at the same time until a batch has several of them.
fn crowd(server: &Server, folder: &Path) {
    let ids = [ANN, BOB].map(|id| id.parse::<Uuid>().unwrap());
    let mut clients = ids.map(|id| V1::join(server.port(), "/r/crowd", id));
    let mut unnumbered = server.client_in("/r/crowd");
    let mut first = 1;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(folder.join(FILE), flags).unwrap();
    await_that("a batch has several clients", || {
        unnumbered.send_often(PLUS, 5);
        for client in &mut clients {
            client.send_plus(first..first + 20);
        }
        for client in &mut clients {
            client.expect_ack(first + 19);
        }
        first += 20;
        let crowded: i64 = database.query_row(CROWDED, [], |row| row.get(0)).unwrap();
        crowded > 0
    });
}

/// All that a server tells of its rooms and of what it answered before.
fn told(server: &Server, folder: &Path) -> Value {
    let rooms = ["form", "crowd", "main", "imported", "trimmed", "killed"];
    let path = |room: &str| match room {
        "trimmed" => "/api/rooms/trimmed/journal?since=30".to_owned(),
        room => format!("/api/rooms/{room}/journal"),
    };
    let journal = |room: &str| {
        let answer = get(server.port(), &path(room));
        assert_eq!(answer.status, 200, "{answer:?}");
        json!({"path": path(room), "entries": answer.lines()})
    };
    let again = |(room, key): (&str, &str)| ask_again(server, &json!(key), &json!(room));
    let states = rooms.into_iter().chain(["nobody-was-here"]);
    json!({
        "store": meta(folder, "store"),
        "states": states.map(|room| state(server, room)).collect::<Vec<_>>(),
        "journals": rooms.map(journal),
        "repeats": REPEATS.map(again),
    })
}

#[test]
fn a_folder_is_checked_while_a_server_has_it_open() {
    let folder = folder("format-2");
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
        let folder = folder("format-2");
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
    let folder = folder("format-2");
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
    let folder = folder("format-2");
    let store = format!("disk:{}", folder.path().display());
    let run = || {
        let mut command = support::command(&["check", "--store", &store]);
        support::output(command.stdout(Stdio::piped()))
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
        let output = support::output(&mut support::command(&["check", "--store", store]));
        assert_eq!(output.status.code(), Some(code), "{store}");
        assert!(!output.stderr.is_empty());
    }
    assert!(!missing.exists());
}
