//! What is on disk: all that anybody was shown, whatever happens to the process.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use rusqlite::Connection;
use serde_json::json;
use support::{
    Event, PLUS, Server, await_that, command, command_at, http::request_with, output, v1::V1,
};
use tallyroom::{
    journal::disk::{DiskJournal, FILE, Keep, OpenError},
    model::ModelId,
};
use tempfile::TempDir;
use uuid::Uuid;

fn store(folder: &Path) -> String {
    format!("disk:{}", folder.display())
}

fn start(folder: &Path) -> Server {
    Server::start(&["--store", &store(folder), "--session-rate", "0"])
}

/// What the program says when it cannot start, and with which exit code.
fn refusal(folder: &Path) -> (Option<i32>, String) {
    let flags = ["--listen", "127.0.0.1:0", "--store", &store(folder)];
    let output = output(&mut command(&flags));
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn rooms_come_back_with_their_values_and_limits() {
    let folder = TempDir::new().unwrap();
    let mut server = start(folder.path());
    let mut client = server.client_in("/r/door");
    for action in [
        r#"{"action":"set","value":40}"#,
        r#"{"action":"limits","min":0,"max":41}"#,
        PLUS,
    ] {
        client.send(action);
    }
    client.expect_state(41);
    client.close();
    server.signal("TERM");
    assert_eq!(server.await_exit().code(), Some(0));

    let server = start(folder.path());
    let mut client = server.client_in("/r/door");
    assert_eq!(client.first(), 41);
    client.plus();
    client.expect_error("out_of_range");
    assert_eq!(server.client().first(), 0, "another room");
}

/// Why a client that knows of no settled number may not send its first action again without end: the room that applied
/// it would take it as new.
#[test]
fn a_client_whose_time_is_over_is_forgotten_in_the_same_life_of_its_room() {
    const MONTH: u64 = 31 * 24 * 3600 * 1000;
    let folder = TempDir::new().unwrap();
    let [ann, bob] = [(); 2].map(|()| Uuid::new_v4());
    let act = |server: &Server, id: Uuid, n: u64| {
        let mut session = V1::join(server.port(), "/r/door", id);
        session.send(n, json!({"action": "plus"}));
        session.expect_ack(n);
        session.welcome
    };
    let mut server = start(folder.path());
    let before = act(&server, ann, 1);
    server.signal("KILL");
    server.await_exit();

    let database = Connection::open(folder.path().join(FILE)).unwrap();
    let aged = database.execute("UPDATE batches SET at = at - ?1", [MONTH]);
    assert_eq!(aged.unwrap(), 1);
    drop(database);

    let server = start(folder.path());
    let known = V1::join(server.port(), "/r/door", ann);
    assert_eq!(known.n(), 1, "nobody has acted since");
    act(&server, bob, 1);
    let after = V1::join(server.port(), "/r/door", ann);
    assert_eq!((after.n(), &after.first), (0, &json!(2)));
    assert_eq!(after.welcome["epoch"], before["epoch"]);
    assert_eq!(after.welcome["rev"], 2);
}

/// The value is never less than what somebody was shown, nor more than what was sent.
#[test]
fn what_anybody_was_shown_survives_a_kill_at_any_moment() {
    const ROUNDS: u64 = 20;
    const CLIENTS: i64 = 4;
    const SENT: i64 = 2000;
    let folder = TempDir::new().unwrap();
    let (mut shown, mut sent) = (0, 0);
    for round in 0..ROUNDS {
        let mut server = start(folder.path());
        let first = server.client().first();
        assert!(
            (shown..=sent).contains(&first),
            "round {round}: {first} after {shown} was shown and {sent} sent"
        );
        let clients: Vec<_> = (0..CLIENTS).map(|_| server.client()).collect();
        // Before any of them acts, so that all states are yet to come.
        let mut witness = server.client();
        thread::scope(|scope| {
            let readers = clients.into_iter().map(|mut client| {
                scope.spawn(move || {
                    client.send_until_cut(PLUS, SENT as usize);
                    let mut last = first;
                    while let Event::State(_) | Event::Users(_) = {
                        let event = client.next();
                        if let Event::State(value) = event {
                            assert_eq!(value, last + 1, "a state was left out");
                            last = value;
                        }
                        event
                    } {}
                    last
                })
            });
            let readers: Vec<_> = readers.collect();
            // At another moment in each round: after so many states.
            for _ in 0..round * 97 % 700 {
                witness.next_state();
            }
            server.signal("KILL");
            let seen = readers.into_iter().map(|reader| reader.join().unwrap());
            shown = seen.max().unwrap();
        });
        server.await_exit();
        sent = first + CLIENTS * SENT;
    }
    let first = start(folder.path()).client().first();
    assert!((shown..=sent).contains(&first));
}

#[test]
fn a_long_journal_is_gone_on_from_its_snapshot_and_old_entries_are_dropped() {
    let folder = TempDir::new().unwrap();
    let flags = [
        "--store",
        &store(folder.path()),
        "--session-rate",
        "0",
        "--keep-entries",
        "5000",
    ];
    let mut server = Server::start(&flags);
    let mut client = server.client();
    let mut value = 0;
    while value < 60_000 {
        client.send_often(PLUS, 500);
        value += 500;
        client.expect_state(value);
    }
    server.signal("KILL");
    server.await_exit();
    let database = Connection::open(folder.path().join(FILE)).unwrap();
    let number = |query: &str| {
        database
            .query_row(query, [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let (first, last) = (
        number("SELECT min(after_rev) FROM batches"),
        number("SELECT max(rev) FROM batches"),
    );
    assert_eq!(last, 60_000);
    assert!(
        (10_000..=55_000).contains(&first),
        "entries are kept from {first} on"
    );
    let snapshot = number("SELECT min(rev) FROM snapshots");
    // The kill may have come before the entries went that the snapshot holds.
    assert!(
        first <= snapshot,
        "entries {snapshot} to {first} are missing"
    );
    drop(database);
    assert_eq!(Server::start(&flags).client().first(), 60_000);
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = TempDir::new().unwrap();
    let server = start(folder.path());
    let (code, said) = refusal(folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("open in another process"), "{said}");
    assert!(
        said.contains(&folder.path().display().to_string()),
        "{said}"
    );
    drop(server);
    drop(start(folder.path()));
}

#[test]
fn what_is_no_data_folder_of_ours_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join(FILE);
    let foreign = Connection::open(&file).unwrap();
    foreign.execute_batch("CREATE TABLE photos (id)").unwrap();
    drop(foreign);
    let before = fs::read(&file).unwrap();
    let (code, said) = refusal(folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("is not a database of tallyroom"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), before);

    fs::write(
        &file,
        "no database at all, but long enough to be read as a header",
    )
    .unwrap();
    let (code, said) = refusal(folder.path());
    assert_eq!(code, Some(1));
    assert!(said.contains(FILE), "{said}");

    let no_folder = folder.path().join("file");
    fs::write(&no_folder, "").unwrap();
    let (code, said) = refusal(&no_folder);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot be used"), "{said}");
}

/// Runs the program as somebody whom the file system refuses things: the superuser may write
/// everywhere, so its tests hand the program and the folder over to nobody.
struct Plain {
    top: TempDir,
    program: PathBuf,
    /// `None`: as whoever runs the tests.
    user: Option<u32>,
}

impl Plain {
    const NOBODY: u32 = 65534;

    fn new() -> Self {
        let top = TempDir::new().unwrap();
        let data = top.path().join("data");
        fs::create_dir(&data).unwrap();
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_tallyroom"));
        let user = (data.metadata().unwrap().uid() == 0).then_some(Self::NOBODY);
        if user.is_some() {
            set_mode(top.path(), 0o755);
            let copy = top.path().join("tallyroom");
            // By another process: a file that this one has open for writing is busy in every child
            // that another test starts meanwhile, and cannot be run.
            let copied = Command::new("cp").args([&program, &copy]).status();
            assert!(copied.unwrap().success());
            set_mode(&copy, 0o755);
            program = copy;
            chown(&data, user, user).unwrap();
        }
        Self { top, program, user }
    }

    fn folder(&self) -> PathBuf {
        self.top.path().join("data")
    }

    fn command(&self) -> Command {
        let store = store(&self.folder());
        let mut command = command_at(
            &self.program,
            &["--listen", "127.0.0.1:0", "--store", &store],
        );
        command.current_dir(self.top.path());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// What is said when it does not start; a server that does is ended, and fails the test.
    #[track_caller]
    fn refusal(&self) -> String {
        let mut child = self.command().spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            said += &line.unwrap();
            if said.contains("open http://") {
                child.kill().unwrap();
            }
        }
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{said}");
        said
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_folder_that_may_not_be_written_ends_the_start() {
    let plain = Plain::new();
    set_mode(&plain.folder(), 0o555);
    let said = plain.refusal();
    assert!(said.contains("data cannot be used"), "{said}");
    set_mode(&plain.folder(), 0o755);
}

/// It was opened for reading alone, and every action was refused by a server that seemed well.
#[test]
fn a_database_that_may_not_be_written_ends_the_start() {
    let plain = Plain::new();
    let (folder, file) = (plain.folder(), plain.folder().join(FILE));
    let mut server = Server::spawn(plain.command());
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
    client.close();
    server.signal("TERM");
    server.await_exit();
    let before = fs::read(&file).unwrap();
    for (path, locked, open) in [(&folder, 0o555, 0o755), (&file, 0o444, 0o644)] {
        set_mode(path, locked);
        let said = plain.refusal();
        let names = format!("{} cannot be written", file.display());
        assert!(said.contains(&names), "{locked:o}: {said}");
        set_mode(path, open);
        assert_eq!(fs::read(&file).unwrap(), before);
        let left = fs::read_dir(&folder).unwrap().count();
        assert_eq!(left, 2, "the database and the lock");
    }
    // What only the log has is left where a server was killed.
    let server = Server::spawn(plain.command());
    server.client().plus();
    drop(server);
    for path in [file.clone(), folder.join(format!("{FILE}-wal"))] {
        set_mode(&path, 0o444);
        let said = plain.refusal();
        assert!(said.contains("cannot be written"), "{said}");
        set_mode(&path, 0o644);
    }
    assert!((1..=2).contains(&Server::spawn(plain.command()).client().first()));
}

#[test]
fn another_models_rooms_and_a_newer_format_are_refused() {
    let folder = TempDir::new().unwrap();
    let poll = ModelId {
        name: "poll",
        version: 1,
    };
    drop(DiskJournal::open(folder.path(), poll, Keep::default()).unwrap());
    let (code, said) = refusal(folder.path());
    assert_eq!(code, Some(1));
    assert!(
        said.contains("\"poll\"") && said.contains("\"counter\""),
        "{said}"
    );

    let database = Connection::open(folder.path().join(FILE)).unwrap();
    database.pragma_update(None, "user_version", 1000).unwrap();
    drop(database);
    let newer = DiskJournal::open(folder.path(), poll, Keep::default());
    assert!(matches!(newer, Err(OpenError::Newer { found: 1000, .. })));
}

#[test]
fn the_folder_is_what_any_tool_can_read() {
    let folder = TempDir::new().unwrap();
    let server = start(folder.path());
    let mut client = server.client_in("/r/door");
    client.send(r#"{"action":"plus","by":3}"#);
    client.expect_state(3);
    // While the server runs.
    let query = "SELECT name, rev, json_extract(entries, '$[0][2].by')
        FROM batches JOIN rooms USING (room)";
    let read = || {
        let database = Connection::open(folder.path().join(FILE)).unwrap();
        database
            .query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
    };
    let (name, rev, by): (String, i64, i64) = read();
    assert_eq!((name.as_str(), rev, by), ("door", 1, 3));
}

#[test]
fn a_visit_writes_nothing() {
    let folder = TempDir::new().unwrap();
    let server = start(folder.path());
    server.client_in("/r/looked-at").close();
    let mut acting = server.client_in("/r/changed");
    acting.plus();
    acting.expect_state(1);
    let database = Connection::open(folder.path().join(FILE)).unwrap();
    let names: Vec<String> = database
        .prepare("SELECT name FROM rooms")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(names, ["changed"]);
}

/// What was imported is all that there is after a kill: neither the values nor the numbers from
/// before come back.
#[test]
fn an_import_survives_a_kill_and_what_it_replaced_does_not() {
    let folder = TempDir::new().unwrap();
    let mut server = start(folder.path());
    let ann = Uuid::new_v4();
    let mut session = V1::join(server.port(), "/r/door", ann);
    session.send_plus(1..=3);
    session.expect_state(3);
    let ndjson = ["Content-Type: application/x-ndjson"];
    let line = r#"{"room":"door","value":7,"max":8}"#;
    let answer = request_with(server.port(), "POST", "/api/import", &ndjson, line);
    assert_eq!(answer.json(), json!({"rooms": 1}), "{answer:?}");
    let imported = session.next("welcome");
    assert_ne!(imported["epoch"], session.welcome["epoch"]);
    server.signal("KILL");
    server.await_exit();

    let server = start(folder.path());
    let mut session = V1::join(server.port(), "/r/door", ann);
    assert_eq!(session.welcome, imported);
    assert_eq!((session.n(), &session.first), (0, &json!(7)));
    session.send(4, json!({"action": "plus"}));
    assert_eq!(session.next("retry")["expected"], 1);
    session.send_plus([1]);
    session.expect_state(8);
    session.send_plus([2]);
    assert_eq!(
        session.next("error")["code"],
        "out_of_range",
        "the limits are as imported"
    );
}

/// By default the folder is `data`, where the program was started.
#[test]
fn without_a_flag_rooms_are_on_disk() {
    let folder = TempDir::new().unwrap();
    let run = || {
        let mut command: Command = command(&["--listen", "127.0.0.1:0"]);
        command.env_remove("TALLYROOM_STORE");
        command.current_dir(folder.path());
        Server::spawn(command)
    };
    let mut server = run();
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
    server.signal("KILL");
    server.await_exit();
    assert!(folder.path().join("data").join(FILE).is_file());
    assert_eq!(run().client().first(), 1);
}

/// It was written to unseen, and gone with the process.
#[test]
fn what_is_removed_while_it_is_open_is_no_longer_promised() {
    let folder = TempDir::new().unwrap();
    let server = start(folder.path());
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
    fs::remove_file(folder.path().join(FILE)).unwrap();
    client.plus();
    client.expect_error("unavailable");
    assert_eq!(server.client().first(), 1, "the state is still served");
    await_that("it is logged", || {
        server.log().contains("was removed or replaced")
    });
}
