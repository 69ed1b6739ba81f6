//! The commands that ask a running server, each by the program itself: what they print, how they end.

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    PATIENCE, Server, await_that, command, finished,
    http::get,
    kept::Kept,
    network::Network,
    output,
    scripted::{Door, play},
    tls::Tls,
};

/// A server and what its commands need to find it.
struct Place {
    server: Server,
}

impl Place {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(flags: &[&str]) -> Self {
        Self {
            server: Server::start(flags),
        }
    }

    fn url(&self) -> String {
        format!("http://localhost:{}/", self.server.port())
    }

    /// What a command prints that ends well, which says nothing else.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        out(&self.url(), args)
    }
}

fn ask(url: &str, args: &[&str]) -> Command {
    let mut command = command(args);
    command.env("TALLYROOM_URL", url).stdout(Stdio::piped());
    command
}

#[track_caller]
fn out(url: &str, args: &[&str]) -> String {
    let (code, out, said) = text(output(&mut ask(url, args)));
    assert_eq!((code, said.as_str()), (0, ""), "{args:?}");
    out
}

/// What is said by a command that fails, which is one line and nothing on standard output.
#[track_caller]
fn failure(url: &str, args: &[&str]) -> String {
    failed(output(&mut ask(url, args)))
}

#[track_caller]
fn failed(output: Output) -> String {
    let (code, out, said) = text(output);
    assert_eq!((code, out.as_str()), (1, ""), "{said}");
    let line = said.strip_prefix("tallyroom: ").unwrap();
    let line = line.strip_suffix('\n').unwrap();
    assert!(!line.is_empty() && !line.contains('\n'), "{said}");
    line.to_owned()
}

fn text(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn an_action_is_done_and_the_value_printed() {
    let place = Place::new();
    for (args, value) in [
        (&["plus", "door"][..], "1"),
        (&["plus", "door", "--by", "5"], "6"),
        (&["minus", "door", "--by=1000000"], "-999994"),
        (&["set", "door", "-5"], "-5"),
        (&["set", "door", "9007199254740991"], "9007199254740991"),
        (&["reset", "door"], "0"),
        (&["minus", "door"], "-1"),
        (&["plus", "main"], "1"),
        (&["plus", "--timeout", "0", "door"], "0"),
    ] {
        assert_eq!(place.out(args), format!("{value}\n"), "{args:?}");
    }
    let mut seen = place.server.client_in("/r/door");
    assert_eq!(seen.first(), 0);
    seen.plus();
    assert_eq!(place.out(&["plus", "door"]), "2\n");
}

#[test]
fn the_server_is_named_by_flag_over_variable() {
    let place = Place::new();
    let url = place.url();
    assert_eq!(
        out("http://127.0.0.1:1/", &["plus", "a", "--url", &url]),
        "1\n"
    );
    let without_slash = url.trim_end_matches('/');
    assert_eq!(out(without_slash, &["plus", "a"]), "2\n");
}

#[test]
fn what_the_room_refuses_is_said_with_its_reason() {
    let place = Place::new();
    place.out(&["set", "door", "9007199254740991"]);
    let said = failure(&place.url(), &["plus", "door"]);
    assert!(
        said.starts_with("refused: the value would be 9007199254740992"),
        "{said}"
    );
    assert!(said.ends_with("(out_of_range)"), "{said}");
    assert_eq!(place.out(&["minus", "door"]), "9007199254740990\n");
}

#[test]
fn wrong_usage_ends_with_2_before_anything_is_asked() {
    for (args, parts) in [
        (&["plus"][..], &["<ROOM>"][..]),
        (&["plus", "a b"], &["a b", "1 to 64 characters"]),
        (&["plus", "door", "--by", "0"], &["--by", "1..=1000000"]),
        (&["plus", "door", "--by", "-1"], &["--by", "1..=1000000"]),
        (
            &["minus", "door", "--by", "1000001"],
            &["--by", "1..=1000000"],
        ),
        (&["minus", "door", "--by", "x"], &["--by", "x"]),
        (&["plus", "door", "3"], &["3"]),
        (&["reset", "door", "--by", "3"], &["--by"]),
        (&["set", "door"], &["<VALUE>"]),
        (&["set", "door", "1.5"], &["1.5", "VALUE"]),
        (&["set", "door", "9007199254740992"], &["9007199254740991"]),
        (&["set", "door", "-9007199254740992"], &["9007199254740991"]),
        (
            &["plus", "door", "--timeout", "soon"],
            &["--timeout", "200ms"],
        ),
        (&["plus", "door", "--timeout=-1s"], &["--timeout", "200ms"]),
        (
            &["plus", "door", "--url", "localhost:6789"],
            &["--url", "http://localhost:6789/"],
        ),
        (
            &["plus", "door", "--url", "http://u:p@localhost/"],
            &["--url", "allowed is"],
        ),
        (&["watch"], &["<ROOM>"]),
        (&["watch", "door", "--timeout", "1s"], &["--timeout"]),
        (&["journal"], &["<ROOM>"]),
        (&["journal", "door", "--since", "-1"], &["--since", "-1"]),
        (&["journal", "door", "--since", "x"], &["--since", "x"]),
        (&["export", "a", "b c"], &["b c", "1 to 64 characters"]),
        (&["import", "file"], &["file"]),
        (&["--store", "memory", "plus", "door"], &["--store"]),
    ] {
        let (code, out, said) = text(output(&mut ask("http://127.0.0.1:1/", args)));
        assert_eq!((code, out.as_str()), (2, ""), "{args:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{args:?}: {part} is not in {said}");
        }
    }
}

#[test]
fn help_names_the_flags_of_each_command_and_their_variables() {
    let remote = [
        "--url <URL>",
        "[env: TALLYROOM_URL=]",
        "[default: http://localhost:6789/]",
    ];
    let patience = [
        "--timeout <TIME>",
        "[env: TALLYROOM_TIMEOUT=]",
        "[default: 30s]",
    ];
    for (command, flags, waits) in [
        ("watch", &["<ROOM>"][..], false),
        ("plus", &["<ROOM>", "--by <N>", "[default: 1]"], true),
        ("minus", &["<ROOM>", "--by <N>", "[default: 1]"], true),
        ("set", &["<ROOM>", "<VALUE>"], true),
        ("reset", &["<ROOM>"], true),
        ("journal", &["<ROOM>", "--since <REV>", "--csv"], true),
        ("export", &["[ROOM]..."], true),
        ("import", &[], true),
    ] {
        let output = support::command(&[command, "--help"]);
        let (code, help, _) = text(captured(output));
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, 0);
        let patience = patience.iter().filter(|_| waits);
        for part in flags.iter().chain(&remote).chain(patience) {
            assert!(words.contains(part), "{command}: {part} is not in {words}");
        }
        assert_eq!(words.contains("--timeout <"), waits, "{command}");
    }
}

fn captured(mut command: Command) -> Output {
    output(command.stdout(Stdio::piped()))
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let network = Network::to(0);
    let child = ask(&network.url(), &["plus", "door"]).spawn().unwrap();
    // It has found nobody by then, or else finds the server at once: both must do.
    thread::sleep(Duration::from_millis(300));
    let place = Place::new();
    network.lead_to(place.server.port());
    let (code, out, said) = text(finished(child));
    assert_eq!((code, out.as_str(), said.as_str()), (0, "1\n", ""));
}

#[test]
fn an_action_that_was_not_sent_in_time_is_said_not_to_be() {
    let start = Instant::now();
    let said = failure("http://127.0.0.1:1/", &["plus", "door", "--timeout", "1s"]);
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(
        said.starts_with("no answer within 1s; the action was not sent"),
        "{said}"
    );
    assert!(
        said.contains("http://127.0.0.1:1/") && said.contains("refused"),
        "{said}"
    );
}

#[test]
fn an_action_that_may_be_taken_is_said_to_be() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        assert_eq!(guest.hear(), json!({"action": "plus", "n": 1}));
        guest.await_end();
    });
    let said = failure(&url, &["plus", "door", "--timeout", "1s"]);
    assert!(
        said.starts_with("no answer within 1s; the action was sent, so it may be taken or not"),
        "{said}"
    );
    assert!(said.contains("look at the room's value"), "{said}");
    server.join().unwrap();
}

#[test]
fn a_room_that_begins_anew_meanwhile_leaves_it_open() {
    let (url, server) = play(|door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        guest.hear();
        guest.greet(2, 0);
        guest.await_end();
    });
    let said = failure(&url, &["set", "door", "7"]);
    assert!(said.starts_with("the room began anew"), "{said}");
    assert!(said.contains("it may be taken or not"), "{said}");
    server.join().unwrap();
}

#[test]
fn who_interrupts_an_action_is_told_whether_it_was_sent() {
    let (told, sent) = mpsc::channel();
    let (url, server) = play(move |door| {
        let mut guest = door.welcome();
        guest.greet(1, 0);
        guest.hear();
        told.send(()).unwrap();
        guest.await_end();
    });
    let child = ask(&url, &["plus", "door"]).spawn().unwrap();
    sent.recv_timeout(PATIENCE).unwrap();
    interrupt(&child);
    let said = failed(finished(child));
    assert!(
        said.starts_with("interrupted; the action was sent"),
        "{said}"
    );
    server.join().unwrap();
}

#[test]
fn a_server_that_shuts_the_door_is_no_matter_of_patience() {
    let deny = |door: Door| {
        let mut stream = door.accept();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        stream
            .write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            .unwrap();
    };
    for args in [&["plus", "door"][..], &["watch", "door"]] {
        let (url, server) = play(deny);
        let said = failure(&url, args);
        assert!(said.contains(&url) && said.contains("403"), "{said}");
        server.join().unwrap();
    }
}

#[test]
fn an_action_whose_answer_is_lost_after_its_commit_is_in_once() {
    let place = Place::new();
    let port = place.server.port();
    let network = Network::to(port);
    network.lose_answers(true);
    let args = ["plus", "door", "--by", "5"];
    let child = ask(&network.url(), &args).spawn().unwrap();
    let rev = || get(port, "/api/rooms/door").json()["rev"].clone();
    await_that("it is committed", || rev() == 1);
    await_that("its answer is lost", || network.lost() > 0);
    network.lose_answers(false);
    network.cut();
    let ended = text(finished(child));
    assert_eq!(ended, (0, "5\n".to_owned(), String::new()));
    let journal = Kept::by_http(port, "door");
    assert_eq!(journal.entries.len(), 1, "{journal:?}");
    assert_eq!(journal.entries[0].n, Some(1));
}

#[test]
fn actions_are_counted_once_while_the_server_is_killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("disk:{}", folder.path().display());
    let start = || Server::start(&["--store", &store]);
    let network = Network::to(0);
    let counting = thread::spawn({
        let url = network.url();
        move || {
            let values = (0..15).map(|_| out(&url, &["plus", "door"]));
            values
                .map(|value| value.trim().parse().unwrap())
                .collect::<Vec<u64>>()
        }
    });
    let mut round = 0_u64;
    while !counting.is_finished() {
        let server = start();
        network.lead_to(server.port());
        thread::sleep(Duration::from_millis(60 + round * 53 % 200));
        round += 1;
        server.signal("KILL");
    }
    assert_eq!(counting.join().unwrap(), (1..=15).collect::<Vec<_>>());
    assert_eq!(start().client_in("/r/door").first(), 15);
}

/// A `watch` whose lines are read.
struct Watching {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Watching {
    fn start(url: &str) -> Self {
        let mut child = ask(url, &["watch", "door"]).spawn().unwrap();
        let (tell, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }

    /// The next line in which a field has this value.
    fn expect(&self, field: &str, value: impl Into<Value>) -> Value {
        let value = value.into();
        loop {
            let line = self.next();
            if line[field] == value {
                return line;
            }
        }
    }
}

#[test]
fn watching_tells_of_every_change_and_ends_well_when_interrupted() {
    let place = Place::new();
    let watching = Watching::start(&place.url());
    let first = watching.next();
    assert!(first["epoch"].is_string(), "{first}");
    assert_eq!(
        first,
        json!({"room": "door", "connection": "live", "epoch": first["epoch"], "rev": 0, "value": 0, "users": 1})
    );
    let mut other = place.server.client_in("/r/door");
    watching.expect("users", 2);
    other.plus();
    let line = watching.expect("value", 1);
    assert_eq!(
        (line["rev"].as_u64(), line["users"].as_u64()),
        (Some(1), Some(2))
    );
    other.close();
    watching.expect("users", 1);
    interrupt(&watching.child);
    let (code, _, said) = text(finished(watching.child));
    assert_eq!((code, said.as_str()), (0, ""));
}

#[test]
fn watching_goes_on_when_the_server_is_back() {
    let network = Network::to(0);
    let watching = Watching::start(&network.url());
    let line = watching.next();
    assert_eq!(
        (&line["connection"], &line["value"]),
        (&json!("lost"), &Value::Null)
    );
    assert!(line["why"].is_string(), "{line}");
    for value in [1, 2] {
        let place = Place::new();
        network.lead_to(place.server.port());
        watching.expect("connection", "live");
        place.out(&["set", "door", &value.to_string()]);
        watching.expect("value", value);
        network.lead_to(0);
        drop(place);
        let line = watching.expect("connection", "lost");
        assert_eq!(line["value"], value);
    }
    interrupt(&watching.child);
    assert!(finished(watching.child).status.success());
}

/// Reads a line and goes away, as `head -1` does.
fn read_as_head(child: &mut Child) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let read = out.read_line(&mut String::new());
        drop(out);
        tell.send(read.unwrap()).unwrap();
    });
    assert!(told.recv_timeout(PATIENCE).unwrap() > 0);
}

#[test]
fn watching_ends_quietly_when_nobody_reads_any_more() {
    let place = Place::new();
    let mut child = ask(&place.url(), &["watch", "door"]).spawn().unwrap();
    // Nothing more happens in the room.
    read_as_head(&mut child);
    let (code, _, said) = text(finished(child));
    assert_eq!((code, said.as_str()), (0, ""));
}

#[test]
fn in_a_terminal_one_line_is_always_current() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let place = Place::new();
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new())
        .unwrap()
        .into_string()
        .unwrap();
    let screen = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name)
        .unwrap();
    let mut watch = ask(&place.url(), &["watch", "door"]);
    let child = watch.env("TERM", "xterm").stdout(screen).spawn().unwrap();
    drop(watch);
    let (tell, pieces) = mpsc::channel();
    let mut reader = std::fs::File::from(terminal);
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(len @ 1..) = reader.read(&mut buffer) {
            let _ = tell.send(String::from_utf8_lossy(&buffer[..len]).into_owned());
        }
    });
    let mut shown = String::new();
    let mut expect = |part: &str| {
        while !shown.contains(part) {
            shown.push_str(&pieces.recv_timeout(PATIENCE).unwrap());
        }
        std::mem::take(&mut shown)
    };
    let first = expect("door: 0   1 here   live");
    assert!(
        first.contains("\r\x1b[2K") && !first.contains('\n'),
        "{first:?}"
    );
    place.out(&["plus", "door"]);
    expect("door: 1   1 here   live");
    let url = place.url();
    drop(place);
    expect("not connected, trying again");
    interrupt(&child);
    assert!(finished(child).status.success(), "{url}");
    expect("\n");
}

#[test]
fn a_request_that_nobody_answers_fails_with_a_sentence() {
    for args in [&["journal", "door"][..], &["export"], &["import"]] {
        let said = failure("http://127.0.0.1:1/", args);
        assert!(
            said.contains("http://127.0.0.1:1/") && said.contains("refused"),
            "{said}"
        );
        let (url, server) = play(|door| {
            let mut stream = door.accept();
            // It takes the request and says nothing.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let said = failure(&url, &[args, &["--timeout", "300ms"]].concat());
        assert!(said.contains("no answer within 300ms"), "{said}");
        server.join().unwrap();
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_all() {
    let (url, server) = play(|door| {
        let mut stream = door.accept();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n";
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let output = output(&mut ask(&url, &["journal", "door"]));
    let (code, out, said) = text(output);
    assert_eq!((code, out.as_str()), (1, "line\n"), "{said}");
    assert!(said.contains("this is not all"), "{said}");
    server.join().unwrap();
}

#[test]
fn a_journal_is_printed_as_lines_or_csv_from_a_revision_on() {
    let place = Place::new();
    assert_eq!(place.out(&["journal", "door"]), "");
    place.out(&["plus", "door", "--by", "5"]);
    place.out(&["set", "door", "-7"]);
    let journal = place.out(&["journal", "door"]);
    let lines: Vec<Value> = journal
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["rev"].as_u64().unwrap(),
                &line["n"],
                &line["action"],
                &line["value"],
            )
        })
        .collect();
    let plus = json!({"action": "plus", "by": 5});
    let set = json!({"action": "set", "value": -7});
    let (one, five, seven) = (json!(1), json!(5), json!(-7));
    assert_eq!(told, [(1, &one, &plus, &five), (2, &one, &set, &seven)]);
    assert_ne!(lines[0]["client"], lines[1]["client"]);
    assert_eq!(
        place
            .out(&["journal", "door", "--since", "1"])
            .lines()
            .count(),
        1
    );
    assert_eq!(place.out(&["journal", "door", "--since", "9"]), "");
    let csv = place.out(&["journal", "--csv", "door", "--since=1"]);
    let (head, rest) = csv.split_once("\r\n").unwrap();
    assert_eq!(head, "rev,at,client,n,action,value");
    assert!(
        rest.starts_with("2,20") && rest.ends_with(",-7\r\n"),
        "{csv}"
    );
}

#[test]
fn a_long_journal_comes_whole_and_may_be_left_early() {
    const ENTRIES: usize = 9_000;
    let place = Place::with(&["--session-rate", "0"]);
    let mut client = place.server.client_in("/r/door");
    for _ in 0..10 {
        client.send_often(support::PLUS, ENTRIES / 10);
        client.next_states(ENTRIES / 10);
    }
    let journal = place.out(&["journal", "door"]);
    assert_eq!(journal.lines().count(), ENTRIES);
    let mut child = ask(&place.url(), &["journal", "door"]).spawn().unwrap();
    read_as_head(&mut child);
    let (code, _, said) = text(finished(child));
    assert_eq!((code, said.as_str()), (0, ""));
}

#[test]
fn a_journal_begins_with_what_is_kept_where_nobody_says_otherwise() {
    let (url, server) = play(|door| {
        let gone = r#"{"detail":"the journal begins at revision 8","code":"gone","first":8}"#;
        let gone = format!(
            "HTTP/1.1 410 Gone\r\nContent-Length: {}\r\n\r\n{gone}",
            gone.len()
        );
        let line = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"rev\":8}";
        for (asked, answer) in [("since=0", &*gone), ("since=7", line), ("since=3", &*gone)] {
            let mut stream = door.accept();
            let mut head = [0; 4096];
            let len = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            assert!(head.contains(asked), "{head}");
            // Each request comes by a connection of its own.
            let answer = answer.replacen("\r\n", "\r\nConnection: close\r\n", 1);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let output = output(&mut ask(&url, &["journal", "door"]));
    let (code, out, said) = text(output);
    assert_eq!((code, out.as_str()), (0, "{\"rev\":8}"), "{said}");
    assert_eq!(
        said,
        "tallyroom: what came before revision 8 is no longer kept\n"
    );
    let said = failure(&url, &["journal", "door", "--since", "3"]);
    assert_eq!(said, "the journal begins at revision 8 (gone)");
    server.join().unwrap();
}

/// What a command does with this on its standard input.
fn feed(url: &str, args: &[&str], input: &str) -> Output {
    let mut child = ask(url, args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    finished(child)
}

#[test]
fn values_go_from_one_server_to_another() {
    let (from, to) = (Place::new(), Place::new());
    assert_eq!(from.out(&["export"]), "");
    from.out(&["set", "door", "-5"]);
    from.out(&["plus", "bar"]);
    let mut limited = from.server.client_in("/r/bar");
    limited.send(r#"{"action":"limits","min":0,"max":9}"#);
    limited.expect_state(1);
    let exported = from.out(&["export"]);
    let bar = r#"{"room":"bar","value":1,"min":0,"max":9}"#;
    assert_eq!(
        exported,
        format!("{bar}\n{{\"room\":\"door\",\"value\":-5}}\n")
    );
    assert_eq!(from.out(&["export", "bar"]), format!("{bar}\n"));
    assert_eq!(from.out(&["export", "bar", "door"]), exported);
    to.out(&["plus", "door"]);
    let imported = text(feed(&to.url(), &["import"], &exported));
    assert_eq!(
        imported,
        (0, "imported 2 rooms\n".to_owned(), String::new())
    );
    assert_eq!(to.out(&["export"]), exported);
    assert_eq!(to.out(&["plus", "door"]), "-4\n");
    let said = failure(&to.url(), &["plus", "bar", "--by", "9"]);
    assert!(said.contains("outside 0 to 9"), "{said}");
    let one = text(feed(&to.url(), &["import"], r#"{"room":"new","value":3}"#));
    assert_eq!(one.1, "imported 1 room\n");
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_imported() {
    let place = Place::new();
    let lines = "{\"room\":\"a\",\"value\":1}\n{\"room\":\"b\",\"value\":\"x\"}\n";
    let said = failed(feed(&place.url(), &["import"], lines));
    assert!(
        said.starts_with("line 2: ") && said.contains("value"),
        "{said}"
    );
    assert_eq!(place.out(&["export"]), "");
}

#[test]
fn an_import_without_an_answer_may_be_done() {
    let (url, server) = play(|door| {
        let mut stream = door.accept();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let args = ["import", "--timeout", "1s"];
    let said = failed(feed(&url, &args, "{\"room\":\"a\",\"value\":1}\n"));
    assert!(said.contains("no answer within 1s"), "{said}");
    assert!(said.contains("the rooms may be set or not"), "{said}");
    server.join().unwrap();
}

#[test]
fn a_server_behind_tls_is_asked_where_its_certificate_is_trusted() {
    let place = Place::new();
    let tls = Tls::before(place.server.port());
    let trusting = |args: &[&str]| {
        let mut command = ask(&tls.url(), args);
        command.env("SSL_CERT_FILE", &tls.certificate);
        text(output(&mut command))
    };
    let counted = trusting(&["plus", "door", "--by", "3"]);
    assert_eq!(counted, (0, "3\n".to_owned(), String::new()));
    let (code, journal, said) = trusting(&["journal", "door"]);
    assert_eq!((code, journal.lines().count(), said.as_str()), (0, 1, ""));
    // With what the system trusts, or with nothing, the server is not believed to be who it says.
    let said = failure(&tls.url(), &["plus", "door", "--timeout", "2s"]);
    assert!(said.contains("certificate"), "{said}");
    assert_eq!(place.out(&["plus", "door"]), "4\n");
}
