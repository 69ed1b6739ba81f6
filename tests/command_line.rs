//! The program as it is called: flags over variables over defaults, checked before a port opens.

mod support;

use std::{
    collections::HashSet,
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
};

use support::{Server, await_that, command, http::get};

const FLAGS: [&str; 24] = [
    "--listen",
    "--store",
    "--keep-entries",
    "--keep-days",
    "--allow-origin",
    "--allow-host",
    "--static",
    "--workers",
    "--transport",
    "--tls-cert",
    "--tls-key",
    "--tls-self-signed",
    "--max-message-bytes",
    "--max-state-bytes",
    "--max-clients-per-room",
    "--max-connections",
    "--handshake-timeout",
    "--body-timeout",
    "--session-rate",
    "--max-rooms",
    "--backlog-bytes",
    "--slow-timeout",
    "--heartbeat",
    "--room-idle",
];

fn run(mut command: Command) -> Output {
    support::output(command.stdout(Stdio::piped()))
}

fn variable(flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_");
    format!("TALLYROOM_{}", name.to_uppercase())
}

#[test]
fn help_names_every_flag_and_its_variable() {
    for args in [&["--help"][..], &["serve", "--help"]] {
        let output = run(command(args));
        assert!(output.status.success());
        let help = String::from_utf8(output.stdout).unwrap();
        // Lines are broken anywhere between words.
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for flag in FLAGS {
            let variable = variable(flag);
            // One that takes no value is followed by what it does.
            let value = if flag == "--tls-self-signed" { "" } else { "<" };
            assert!(words.contains(&format!("{flag} {value}")), "{flag}");
            assert!(words.contains(&format!("[env: {variable}=")), "{variable}");
        }
        let listed = help
            .lines()
            .filter(|line| line.trim_start().starts_with("--"));
        assert_eq!(
            listed.count(),
            FLAGS.len(),
            "a flag is not in this test's list"
        );
    }
    let version = run(command(&["--version"])).stdout;
    let expected = format!("tallyroom {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(version).unwrap(), expected);
}

const WRONG: &[(&str, &str, &str)] = &[
    ("--listen", "6789", "HOST:PORT"),
    ("--listen", "localhost:99999", "HOST:PORT"),
    ("--listen", "::1:80", "HOST:PORT"),
    ("--listen", "", "HOST:PORT"),
    ("--store", "floppy", "disk:DIR and memory"),
    ("--allow-origin", "example.org", "https://example.org"),
    ("--allow-host", "a b", "example.org"),
    ("--workers", "-1", "65535"),
    ("--workers", "many", "65535"),
    ("--max-message-bytes", "64 kilos", "64KiB"),
    ("--max-state-bytes", "-1", "64KiB"),
    ("--max-connections", "1.5", "whole number"),
    ("--handshake-timeout", "10", "200ms"),
    ("--session-rate", "fast", "whole number"),
    ("--max-rooms", "4294967296", "whole number"),
    ("--backlog-bytes", "x", "64KiB"),
    ("--slow-timeout", "-1s", "200ms"),
    ("--heartbeat", "soon", "200ms"),
    ("--room-idle", "1 fortnight", "200ms"),
];

#[test]
fn a_wrong_setting_is_wrong_usage_and_named_with_what_is_allowed() {
    // With a port that is taken, so that whoever opened it first would end with 1.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flag, value, allowed) in WRONG {
        let by_flag = {
            let mut command = command(&["--listen", &taken]);
            command.arg(format!("{flag}={value}"));
            command
        };
        let by_variable = {
            let mut command = command(&[]);
            command
                .env("TALLYROOM_LISTEN", &taken)
                .env(variable(flag), value);
            command
        };
        for command in [by_flag, by_variable] {
            let output = run(command);
            let said = String::from_utf8(output.stderr).unwrap();
            // An empty variable may as well mean that there is none.
            if value.is_empty() && output.status.code() != Some(2) {
                continue;
            }
            assert_eq!(output.status.code(), Some(2), "{flag} {value}: {said}");
            for part in [flag, value, allowed] {
                assert!(
                    said.contains(part),
                    "{flag} {value}: {part} is not in {said}"
                );
            }
            assert!(output.stdout.is_empty());
        }
    }
}

#[test]
fn what_is_no_flag_or_command_is_wrong_usage() {
    for args in [
        &["--no-such-flag"][..],
        &["dance"],
        &["--listen"],
        &["serve", "serve"],
        &["--heartbeat", "1s", "--heartbeat", "2s"],
    ] {
        let output = run(command(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.is_empty(),
            "{args:?}"
        );
    }
}

/// Which of two values of `--max-message-bytes` a server has: a message of 50 bytes is too large
/// for the smaller.
fn takes_fifty_bytes(server: &Server) -> bool {
    let mut client = server.client();
    client.send(&format!("{:50}", support::PLUS));
    client.next() == support::Event::State(1)
}

#[test]
fn variables_set_what_flags_do_not_and_flags_win() {
    for serve in [&[][..], &["serve"]] {
        let start = |limit: &[&str]| {
            let mut command = command(serve);
            command.args(limit);
            command.env("TALLYROOM_LISTEN", "127.0.0.1:0");
            command.env("TALLYROOM_MAX_MESSAGE_BYTES", "40");
            Server::spawn(command)
        };
        assert!(
            !takes_fifty_bytes(&start(&[])),
            "{serve:?}: the variable was not taken"
        );
        let server = start(&["--max-message-bytes", "60"]);
        assert!(
            takes_fifty_bytes(&server),
            "{serve:?}: the flag did not win"
        );
    }
}

#[test]
fn several_values_of_a_variable_are_separated_by_commas() {
    let mut command = command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("TALLYROOM_ALLOW_HOST", "a.test,b.test");
    let server = Server::spawn(command);
    for (host, status) in [("a.test", 200), ("b.test", 200), ("c.test", 421)] {
        let header = format!("Host: {host}");
        let answer = support::http::request(server.port(), "GET", "/", &[&header]);
        assert_eq!(answer.status, status, "{host}");
    }
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(command(&["--listen", &address]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("taken"), "{said}");
    let running = Server::start(&[]);
    let address = format!("127.0.0.1:{}", running.port());
    assert_eq!(run(command(&["--listen", &address])).status.code(), Some(1));
    assert_eq!(get(running.port(), "/").status, 200);
}

#[test]
fn several_addresses_are_all_listened_on() {
    let server = Server::start(&["--listen", "127.0.0.1:0"]);
    let log = server.log();
    let ports: Vec<u16> = log
        .split("http://127.0.0.1:")
        .skip(1)
        .map(|rest| rest.split('/').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ports.len(), 2, "{log}");
    let mut clients = [support::join(ports[0], "/"), support::join(ports[1], "/")];
    clients[0].plus();
    assert_eq!(clients[1].next_state(), 1);
}

#[test]
fn localhost_is_both_families_on_one_port() {
    let server = Server::start_on("localhost:0", &[]);
    assert!(
        server
            .log()
            .contains(&format!("http://localhost:{}/", server.port()))
    );
    let mut four = server.client();
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("this machine has no ::1, so that half is not tested");
        return;
    }
    use tungstenite::client::IntoClientRequest;
    let url = format!("ws://localhost:{}/", server.port());
    let request = url.into_client_request().unwrap();
    let mut six = support::open_with(("::1", server.port()), request).unwrap();
    six.plus();
    assert_eq!(four.next_state(), 1);
}

#[test]
fn nothing_is_printed_on_standard_output() {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    let out = format!("{}/stdout", env!("CARGO_TARGET_TMPDIR"));
    command.stdout(fs::File::create(&out).unwrap());
    let mut server = Server::spawn(command);
    let mut client = server.client();
    client.plus();
    client.expect_state(1);
    client.send("{");
    client.expect_error("not_json");
    client.close();
    server.signal("TERM");
    server.await_exit();
    assert!(!server.log().is_empty());
    assert_eq!(fs::read_to_string(out).unwrap(), "");
}

#[test]
fn a_log_that_is_off_prints_nothing() {
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    command.env("TALLYROOM_LOG", "off").stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let port = listening_port(&mut child);
    let mut client = support::join(port, "/");
    client.plus();
    client.expect_state(1);
    client.close();
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = support::finished(child);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}

/// Where a program listens that does not say so, by what the kernel says.
fn listening_port(child: &mut Child) -> u16 {
    const LISTEN: &str = "0A";
    let mut found = None;
    await_that("it listens", || {
        let folder = format!("/proc/{}/fd", child.id());
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let sockets: HashSet<String> = files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .map(|link| link.to_string_lossy().into_owned())
            .collect();
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        found = table.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let own = sockets.contains(&format!("socket:[{}]", fields[9]));
            let port = fields[1].split_once(':').unwrap().1;
            (own && fields[3] == LISTEN).then(|| u16::from_str_radix(port, 16).unwrap())
        });
        // What listens a moment later is bound already.
        found.is_some_and(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
    });
    found.unwrap()
}

#[test]
fn files_are_served_from_a_folder() {
    let folder = format!("{}/command-line-static", env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(format!("{folder}/index.html"), "<html>mine</html>").unwrap();
    let mut command = command(&["--listen", "127.0.0.1:0"]);
    command.env("TALLYROOM_STATIC", &folder);
    let server = Server::spawn(command);
    assert_eq!(get(server.port(), "/").body, b"<html>mine</html>");
}
