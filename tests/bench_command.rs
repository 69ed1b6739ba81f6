//! `tallyroom bench`, by the program itself: against the real server, and against servers that do what they should not.

mod support;

#[path = "bench_command/stalled.rs"]
mod stalled;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
};

use serde_json::{Value, json};
use support::{
    Server, command, finished, output,
    scripted::{Door, Guest, play},
    tls::Tls,
};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

/// What became of a run.
struct Ran {
    code: i32,
    out: String,
    said: String,
}

fn bench(url: &str, args: &[&str]) -> Command {
    let mut command = command(&["bench", "--url", url]);
    command.args(args).stdout(Stdio::piped());
    command
}

fn run(url: &str, args: &[&str]) -> Ran {
    ran(output(&mut bench(url, args)))
}

fn ran(output: std::process::Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: text(output.stdout),
        said: text(output.stderr),
    }
}

impl Ran {
    /// The object that a complete run prints, and nothing else.
    #[track_caller]
    fn complete(self) -> Value {
        assert_eq!((self.code, self.said.as_str()), (0, ""));
        let report: Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(report["complete"], true);
        report
    }

    /// The object of a run that ended with 1, and the sentence.
    #[track_caller]
    fn incomplete(self) -> (Value, String) {
        let report: Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(report["complete"], false);
        (report, sentence(self.code, &self.said))
    }

    /// What is said by a run that came to no beginning.
    #[track_caller]
    fn failed(self) -> String {
        assert_eq!(self.out, "");
        sentence(self.code, &self.said)
    }
}

/// The one line that is said by a run that fails.
#[track_caller]
fn sentence(code: i32, said: &str) -> String {
    assert_eq!(code, 1, "{said}");
    let line = said.strip_prefix("tallyroom: ").unwrap();
    let line = line.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "{said}");
    line.to_owned()
}

#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "{part:?} is not in {text:?}");
}

fn url(server: &Server, path: &str) -> String {
    format!("ws://127.0.0.1:{}{path}", server.port())
}

#[test]
fn a_run_counts_every_state_of_every_client() {
    let server = Server::start(&[]);
    // More clients than there may be requests underway by awc's default.
    // Who is there before and only listens does no harm; nor does a value that is not 0.
    let mut before = server.client_in("/r/door");
    before.plus();
    before.expect_state(1);
    let args = [
        "--subscribers",
        "110",
        "--writers",
        "3",
        "--pipeline",
        "4",
        "--actions",
        "200",
        "--json",
    ];
    let report = run(&url(&server, "/r/door"), &args).complete();
    for (field, value) in [
        ("actions", json!(200)),
        ("events", json!(200 * 113)),
        ("skipped", json!(0)),
        ("subscribers", json!(110)),
        ("writers", json!(3)),
        ("pipeline", json!(4)),
        ("rate", Value::Null),
        ("dialect", json!("classic")),
    ] {
        assert_eq!(report[field], value, "{field}");
    }
    let number = |field: &str| report[field].as_f64().unwrap();
    let (actions, events, seconds) = (
        number("actions_per_s"),
        number("events_per_s"),
        number("seconds"),
    );
    assert!(
        (actions * seconds - 200.0).abs() < 1.0 && (events * seconds - 22_600.0).abs() < 5.0,
        "{report}"
    );
    let latency: Vec<f64> = ["p50", "p90", "p99", "max"]
        .iter()
        .map(|quantile| report["latency_ms"][quantile].as_f64().unwrap())
        .collect();
    assert!(latency[0] > 0.0 && latency.is_sorted(), "{latency:?}");
    assert_eq!(report.get("rss_bytes"), None);
    assert_eq!(before.next_states(200).last(), Some(&201));
    before.expect_users(1);
}

#[test]
fn numbered_actions_are_all_settled() {
    let server = Server::start(&[]);
    let args = [
        "--v1",
        "--subscribers",
        "10",
        "--writers",
        "2",
        "--pipeline",
        "50",
        "--actions",
        "500",
        "--json",
    ];
    let report = run(&url(&server, "/r/door"), &args).complete();
    assert_eq!(
        (&report["actions"], &report["dialect"]),
        (&json!(500), &json!("tallyroom.v1"))
    );
    let told = report["events"].as_u64().unwrap() + report["skipped"].as_u64().unwrap();
    assert_eq!(told, 500 * 12);
    assert_eq!(server.client_in("/r/door").first(), 500);
}

#[test]
fn writers_that_are_too_fast_wait_as_the_server_wants_it() {
    let server = Server::start(&["--session-rate", "100"]);
    let args = [
        "--subscribers",
        "1",
        "--pipeline",
        "50",
        "--actions",
        "150",
        "--json",
    ];
    let numbered = run(&url(&server, "/r/a"), &[&args[..], &["--v1"]].concat()).complete();
    assert_eq!(numbered["actions"], 150);
    assert!(numbered["seconds"].as_f64().unwrap() > 0.3, "{numbered}");
    let (_, said) = run(&url(&server, "/r/b"), &args).incomplete();
    assert_has(&said, "an action was refused: ");
    assert_has(&said, "(rate_limited)");
}

#[test]
fn people_get_a_table() {
    let server = Server::start(&[]);
    let ran = run(
        &url(&server, "/"),
        &["--subscribers", "0", "--actions", "10"],
    );
    assert_eq!((ran.code, ran.said.as_str()), (0, ""));
    let names: Vec<&str> = ran
        .out
        .lines()
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(names, ["actions", "events", "latency", "complete"]);
    assert_has(ran.out.lines().last().unwrap(), "yes");
}

#[test]
fn a_rate_is_kept() {
    let server = Server::start(&[]);
    let args = [
        "--subscribers",
        "2",
        "--writers",
        "2",
        "--rate",
        "200",
        "--actions",
        "101",
        "--json",
    ];
    let report = run(&url(&server, "/"), &args).complete();
    assert_eq!(report["rate"], 200);
    // The last is due after half a second, however fast the server is.
    let seconds = report["seconds"].as_f64().unwrap();
    assert!((0.5..20.0).contains(&seconds), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_servers_process_is_measured() {
    let server = Server::start(&[]);
    let pid = server.pid().to_string();
    let args = ["--subscribers", "5", "--actions", "100", "--pid", &pid];
    let report = run(&url(&server, "/"), &[&args[..], &["--json"]].concat()).complete();
    let number = |field: &str| report[field].as_f64().unwrap();
    assert!(number("cpu_us_per_event") > 0.0);
    assert!(number("cpu_us_per_action") > number("cpu_us_per_event"));
    assert!(number("rss_bytes") > 1_000_000.0);
    let table = run(&url(&server, "/"), &args).out;
    let readme = include_str!("../README.md");
    let shown = readme.split("```text\n").nth(1).unwrap();
    let shown = shown.split("```").next().unwrap();
    assert_eq!(without_numbers(&table), without_numbers(shown));
    let said = run(&url(&server, "/"), &["--pid", "2147483647"]).failed();
    assert_has(&said, "the process 2147483647 cannot be measured");
}

/// A table's words, line by line.
fn without_numbers(table: &str) -> Vec<Vec<&str>> {
    let is_word = |word: &&str| !word.starts_with(|first: char| first.is_ascii_digit());
    table
        .lines()
        .map(|line| line.split_whitespace().filter(is_word).collect())
        .collect()
}

#[test]
fn tls_is_spoken_to_servers_that_are_trusted() {
    let server = Server::start(&[]);
    let tls = Tls::before(server.port());
    let args = ["--subscribers", "2", "--actions", "10", "--json"];
    for dialect in [&[][..], &["--v1"]] {
        let mut command = bench(&tls.url(), &[&args[..], dialect].concat());
        command.env("SSL_CERT_FILE", &tls.certificate);
        ran(output(&mut command)).complete();
    }
    assert_eq!(server.client().first(), 20);
    let said = run(&tls.url(), &args).failed();
    assert_has(&said, "certificate");
}

/// The only client of a run, which a script tells what it wants.
struct Alien {
    socket: WebSocket<TcpStream>,
}

impl Alien {
    /// Greets it as the classic dialect wants it, at the value 7.
    fn greet(door: &Door) -> Self {
        let mut alien = Self {
            socket: tungstenite::accept(door.accept()).unwrap(),
        };
        alien.say(&json!({"type": "users", "count": 1}));
        alien.states(&[7]);
        alien
    }

    /// Says something to the client, which may be gone by then.
    fn say(&mut self, event: &Value) {
        let _ = self.socket.send(Message::text(event.to_string()));
    }

    fn states(&mut self, values: &[i64]) {
        for value in values {
            self.say(&json!({"type": "state", "value": value}));
        }
    }

    fn hear(&mut self, actions: usize) {
        for _ in 0..actions {
            let heard = self.socket.read().unwrap();
            assert_eq!(heard, Message::text(support::PLUS));
        }
    }

    /// Reads until the client is gone.
    fn stay(mut self) {
        while self.socket.read().is_ok() {}
    }
}

const ALONE: [&str; 3] = ["--subscribers", "0", "--json"];

/// A run of one writer that keeps three actions unanswered, which are all.
fn three_actions(script: impl FnOnce(Alien) + Send + 'static) -> Ran {
    let (url, server) = play(move |door| {
        let mut alien = Alien::greet(&door);
        alien.hear(3);
        script(alien);
    });
    let ran = run(
        &url,
        &[
            &ALONE[..],
            &["--pipeline", "3", "--actions", "3", "--timeout", "20s"],
        ]
        .concat(),
    );
    server.join().unwrap();
    ran
}

#[test]
fn a_server_that_does_it_right_is_complete_whoever_it_is() {
    let ran = three_actions(|mut alien| {
        alien.say(&json!({"type": "weather", "sky": "blue"}));
        alien.socket.send(Message::Ping("here?".into())).unwrap();
        alien.states(&[8, 9]);
        assert_eq!(alien.socket.read().unwrap(), Message::Pong("here?".into()));
        alien.states(&[10]);
        // The client says goodbye.
        let goodbye = alien.socket.read().unwrap();
        assert!(matches!(goodbye, Message::Close(Some(frame)) if frame.code == CloseCode::Normal));
        alien.stay();
    });
    assert_eq!(ran.complete()["events"], 3);
}

#[test]
fn a_server_that_leaves_states_out_repeats_them_or_goes_back_is_noticed() {
    for (values, what) in [
        (&[8, 10][..], "1 state was left out"),
        (&[10], "2 states were left out"),
        (&[8, 9, 9, 10], "1 state was told twice"),
        (&[8, 9, 10, 10], "1 state was told twice"),
        (&[8, 9, 8, 9, 10], "1 state was told after newer ones"),
        (&[8, 9, 10, 9], "1 of 1 clients ended at another state"),
        (&[8, 9, 7], "went back"),
    ] {
        let ran = three_actions(|mut alien| {
            alien.states(values);
            alien.stay();
        });
        let (_, said) = ran.incomplete();
        assert_has(&said, what);
    }
}

#[test]
fn a_state_too_many_is_noticed() {
    for values in [&[8, 9, 10, 11][..], &[11], &[8, 12]] {
        let ran = three_actions(|mut alien| {
            alien.states(values);
            alien.stay();
        });
        let (_, said) = ran.incomplete();
        assert_has(&said, "somebody else acts in the room");
        assert_has(&said, "when 3 were sent");
    }
}

#[test]
fn who_closes_or_stays_silent_or_talks_nonsense_is_told_from_others() {
    let (_, said) = three_actions(|mut alien| {
        alien.states(&[8]);
        let frame = CloseFrame {
            code: CloseCode::Restart,
            reason: "".into(),
        };
        alien.socket.close(Some(frame)).unwrap();
        alien.stay();
    })
    .incomplete();
    assert_has(
        &said,
        "not complete: the server closed a connection with 1012; 1 of 1 clients did not",
    );
    let (_, said) = three_actions(drop).incomplete();
    assert_has(&said, "a connection broke");
    let (_, said) = three_actions(|mut alien| {
        alien.say(&json!({"type": "state", "value": "much"}));
        alien.stay();
    })
    .incomplete();
    assert_has(
        &said,
        r#"this is no server of the classic dialect: it said "{\"type\":\"state\","#,
    );
}

#[test]
fn a_run_takes_no_longer_than_it_may() {
    let (url, server) = play(|door| {
        let mut alien = Alien::greet(&door);
        alien.hear(1);
        alien.stay();
    });
    let (report, said) = run(&url, &[&ALONE[..], &["--timeout", "700ms"]].concat()).incomplete();
    server.join().unwrap();
    assert_has(
        &said,
        "within 700ms the run was not done; 1 of 1 clients did not see the last state",
    );
    assert_eq!(
        (&report["actions"], &report["latency_ms"]),
        (&json!(0), &Value::Null)
    );

    for (script, what) in [
        (
            greets_nobody as fn(&Door) -> TcpStream,
            "within 700ms 0 of 1 clients came in",
        ),
        (
            tells_nothing,
            "within 700ms 0 of 1 clients were told the state",
        ),
    ] {
        let (url, server) = play(move |door| {
            let mut stream = script(&door);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert_has(
            &run(&url, &[&ALONE[..], &["--timeout", "700ms"]].concat()).failed(),
            what,
        );
        server.join().unwrap();
    }
}

#[test]
fn a_room_that_does_not_come_to_rest_is_not_begun_with() {
    let (url, server) = play(|door| {
        let mut alien = Alien::greet(&door);
        let mut value = 7;
        let mut goes_on = true;
        while goes_on {
            value += 1;
            let state = json!({"type": "state", "value": value});
            goes_on = alien.socket.send(Message::text(state.to_string())).is_ok();
        }
    });
    let said = run(&url, &[&ALONE[..], &["--timeout", "1s"]].concat()).failed();
    assert_has(
        &said,
        "within 1s the room did not come to rest: others act in it",
    );
    server.join().unwrap();
}

fn greets_nobody(door: &Door) -> TcpStream {
    door.accept()
}

fn tells_nothing(door: &Door) -> TcpStream {
    tungstenite::accept(door.accept()).unwrap().into_inner()
}

#[test]
fn who_is_no_such_server_is_said_to_be_none() {
    let said = run("ws://127.0.0.1:1/", &[]).failed();
    assert!(
        said.starts_with("ws://127.0.0.1:1/: ") && said.contains("refused"),
        "{said}"
    );
    let server = Server::start(&[]);
    let said = run(&url(&server, "/nowhere"), &[]).failed();
    assert_has(&said, "the server refused a connection with the status 404");

    let (url, server) = play(|door| {
        let mut stream = door.accept();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_has(&run(&url, &ALONE).failed(), "status 200");
    server.join().unwrap();

    let (url, server) = play(|door| {
        let mut socket = tungstenite::accept(door.accept()).unwrap();
        socket.send(Message::text("Request served by 1f")).unwrap();
        while socket.read().is_ok() {}
    });
    let said = run(&url, &ALONE).failed();
    assert_has(
        &said,
        "this is no server of the classic dialect: it said \"Request served by 1f\"",
    );
    server.join().unwrap();

    let (url, server) = play(|door| Alien::greet(&door).stay());
    let said = run(&url, &[&ALONE[..], &["--v1"]].concat()).failed();
    assert_has(&said, "the server does not speak tallyroom.v1");
    server.join().unwrap();
}

#[test]
fn who_acts_in_the_same_room_is_noticed() {
    let server = Server::start(&[]);
    for (room, dialect) in [("/r/a", &[][..]), ("/r/b", &["--v1"])] {
        let url = url(&server, room);
        let mut other = server.client_in(room);
        let args = [
            "--subscribers",
            "3",
            "--rate",
            "200",
            "--actions",
            "100000",
            "--json",
        ];
        let child = bench(&url, &[&args[..], dialect].concat()).spawn().unwrap();
        let acting = thread::spawn(move || {
            other.expect_state(20);
            other.send_often(support::PLUS, 50);
            other
        });
        let (_, said) = ran(finished(child)).incomplete();
        assert_has(&said, "somebody else acts in the room");
        drop(acting.join().unwrap());
    }
}

#[test]
fn who_takes_away_in_the_same_room_is_noticed() {
    let server = Server::start(&[]);
    let url = url(&server, "/r/door");
    let mut other = server.client_in("/r/door");
    let args = [
        "--subscribers",
        "3",
        "--actions",
        "1000000",
        "--timeout",
        "50s",
        "--json",
    ];
    let child = bench(&url, &args).spawn().unwrap();
    let acting = thread::spawn(move || {
        other.expect_state(20);
        other.send(support::MINUS);
        other
    });
    let (_, said) = ran(finished(child)).incomplete();
    assert_has(&said, "the room went back: somebody else acts in it");
    drop(acting.join().unwrap());
}

/// A run in `tallyroom.v1` of one writer that keeps three actions unanswered, which are all.
fn three_numbers(script: impl FnOnce(Guest) + Send + 'static) -> Ran {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        assert_eq!(guest.hear_numbers(3), [1, 2, 3]);
        script(guest);
    });
    let flags = [
        "--v1",
        "--pipeline",
        "3",
        "--actions",
        "3",
        "--timeout",
        "20s",
    ];
    let ran = run(&url, &[&ALONE[..], &flags].concat());
    server.join().unwrap();
    ran
}

#[test]
fn what_was_not_taken_is_sent_once_more_from_where_the_server_expects_it() {
    let ran = three_numbers(|mut guest| {
        guest.ack(1, 41);
        for (n, code) in [(2, "rate_limited"), (3, "gap")] {
            guest.say(&json!({"type": "retry", "n": n, "expected": 2, "code": code, "message": "wait", "after_ms": 50}));
        }
        assert_eq!(guest.hear_numbers(2), [2, 3]);
        guest.ack(3, 43);
        guest.state(1, 43, 10);
        guest.await_end();
    });
    let report = ran.complete();
    assert_eq!(
        (&report["events"], &report["skipped"]),
        (&json!(1), &json!(2))
    );
}

#[test]
fn numbers_that_are_refused_or_never_acknowledged_are_noticed() {
    let (_, said) = three_numbers(|mut guest| {
        guest.say(
            &json!({"type": "error", "code": "out_of_range", "message": "it is full", "n": 1}),
        );
        guest.await_end();
    })
    .incomplete();
    assert_has(&said, "an action was refused: it is full (out_of_range)");
    let (_, said) = three_numbers(|mut guest| {
        guest.ack(3, 43);
        guest.state(1, 43, 9);
        guest.await_end();
    })
    .incomplete();
    assert_has(&said, "1 of 1 clients ended at another state");
    let (_, said) = three_numbers(|mut guest| {
        guest.ack(2, 42);
        guest.state(1, 43, 10);
        guest.close(1001);
    })
    .incomplete();
    assert_has(&said, "1 action was not acknowledged");
}

#[test]
fn wrong_usage_ends_with_2_and_names_what_is_allowed() {
    for (args, parts) in [
        (
            &["--subscribers", "-1"][..],
            &["--subscribers", "0 to 65535"][..],
        ),
        (&["--writers", "0"], &["--writers", "1 to 65535"]),
        (&["--subscribers", "0", "--writers", "0"], &["--writers"]),
        (&["--stalled", "-1"], &["--stalled", "0 to 65535"]),
        (&["--pipeline", "0"], &["--pipeline", "1 to 65536"]),
        (&["--actions", "0"], &["--actions", "1 to 100000000"]),
        (&["--rate", "0"], &["--rate", "1 to 10000000"]),
        (&["--rate", "fast"], &["--rate", "1 to 10000000"]),
        (&["--timeout", "soon"], &["--timeout", "200ms"]),
        (&["--pid", "0"], &["--pid", "1 to 2147483647"]),
        (
            &["--url", "localhost:6789"],
            &["--url", "ws://localhost:6789/r/door"],
        ),
        (&["door"], &["door"]),
    ] {
        let mut command = command(&["bench"]);
        let ran = ran(output(command.args(args).stdout(Stdio::piped())));
        assert_eq!(
            (ran.code, ran.out.as_str()),
            (2, ""),
            "{args:?}: {}",
            ran.said
        );
        for part in parts {
            assert_has(&ran.said, part);
        }
    }
}

#[test]
fn more_clients_than_files_may_be_open_are_not_begun_with() {
    let program = env!("CARGO_BIN_EXE_tallyroom");
    let mut limited = Command::new("sh");
    let script =
        format!("ulimit -n 200 && exec {program} bench --subscribers 500 --url ws://127.0.0.1:1/");
    limited
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let said = ran(output(&mut limited)).failed();
    assert_has(
        &said,
        "501 clients are more than the 72 that the limit of open files allows",
    );
}

#[test]
fn help_names_every_flag() {
    let mut command = command(&["bench", "--help"]);
    let help = ran(output(command.stdout(Stdio::piped()))).out;
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "--url <URL>",
        "[env: TALLYROOM_URL=]",
        "[default: ws://localhost:6789/]",
        "--subscribers <N>",
        "[default: 100]",
        "--writers <N>",
        "--stalled <N>",
        "[default: 0]",
        "--pipeline <N>",
        "--actions <N>",
        "[default: 10000]",
        "--rate <N>",
        "--v1",
        "--timeout <TIME>",
        "[default: 60s]",
        "--pid <PID>",
        "--json",
    ] {
        assert_has(&words, part);
    }
}
