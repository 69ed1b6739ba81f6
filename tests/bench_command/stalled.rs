//! `--stalled`: clients that read nothing while the run goes on.

use std::time::Duration;

use serde_json::json;
use tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::{
    ALONE, Alien, Ran, assert_has, run,
    support::{PATIENCE, PLUS, Server, await_that, scripted::play},
    url,
};

#[test]
fn stalled_clients_catch_up_and_the_others_see_every_state() {
    let server = Server::start(&["--session-rate", "0"]);
    let args = [
        "--subscribers",
        "2",
        "--stalled",
        "3",
        "--pipeline",
        "100",
        "--actions",
        "20000",
    ];
    for (room, dialect) in [("/r/a", &[][..]), ("/r/b", &["--v1"])] {
        let args = [&args[..], dialect, &["--json"]].concat();
        let report = run(&url(&server, room), &args).complete();
        let expected = json!({"count": 3, "caught_up": 3, "dropped": 0});
        assert_eq!(report["stalled"], expected);
        let told = report["events"].as_u64().unwrap() + report["skipped"].as_u64().unwrap();
        assert_eq!(told, 20_000 * 3, "of the others");
    }
    let ran = run(&url(&server, "/r/a"), &args);
    assert_eq!((ran.code, ran.said.as_str()), (0, ""));
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert_has(&words.join(" "), "stalled 3 3 caught up 0 dropped complete");
}

#[test]
fn stalled_clients_that_the_server_drops_are_told_from_those_that_catch_up() {
    let server = Server::start(&["--session-rate", "0", "--slow-timeout", "1s"]);
    let args = [
        "--subscribers",
        "2",
        "--stalled",
        "3",
        "--rate",
        "5000",
        "--actions",
        "15000",
        "--json",
    ];
    let report = run(&url(&server, "/r/door"), &args).complete();
    let expected = json!({"count": 3, "caught_up": 0, "dropped": 3});
    assert_eq!(report["stalled"], expected);
    assert_eq!(report["events"], 15_000 * 3);
}

/// A run of one action with a stalled client, to which the script says what it wants when the action is through.
fn one_stalled(script: impl FnOnce(&mut Alien) + Send + 'static) -> Ran {
    let (url, server) = play(|door| {
        let mut clients = [(); 2].map(|()| Alien {
            socket: tungstenite::accept(door.accept()).unwrap(),
        });
        for client in &mut clients {
            client.say(&json!({"type": "users", "count": 2}));
            client.states(&[7]);
        }
        let [first, second] = &mut clients;
        let (writer, stalled) = match first.acts_before(second) {
            true => (first, second),
            false => (second, first),
        };
        stalled.fill();
        writer.states(&[8]);
        script(stalled);
        clients.into_iter().for_each(Alien::stay);
    });
    let flags = ["--stalled", "1", "--actions", "1", "--timeout", "5s"];
    let ran = run(&url, &[&ALONE[..], &flags].concat());
    server.join().unwrap();
    ran
}

impl Alien {
    /// Whether it sends an action, and not the other.
    fn acts_before(&mut self, other: &mut Self) -> bool {
        let mut acts = None;
        await_that("one of them acts", || {
            acts = [&mut *self, &mut *other].into_iter().position(|client| {
                let stream = client.socket.get_ref();
                stream.set_nonblocking(true).unwrap();
                let heard = client.socket.read();
                client.socket.get_ref().set_nonblocking(false).unwrap();
                heard.is_ok_and(|heard| heard == Message::text(PLUS))
            });
            acts.is_some()
        });
        acts == Some(0)
    }

    /// Says so much that nobody means until the client, who reads nothing, takes no more.
    fn fill(&mut self) {
        let limit = |limit| self.socket.get_ref().set_write_timeout(limit).unwrap();
        limit(Some(Duration::from_millis(300)));
        let weather = json!({"type": "weather", "sky": "blue".repeat(10_000)}).to_string();
        let takes = |_| self.socket.send(Message::text(&*weather)).is_ok();
        assert!(!(0..1000).all(takes), "it reads");
        let limit = |limit| self.socket.get_ref().set_write_timeout(limit).unwrap();
        limit(Some(PATIENCE));
    }

    fn close(&mut self, code: CloseCode) {
        let reason = "".into();
        let _ = self.socket.close(Some(CloseFrame { code, reason }));
    }
}

#[test]
fn a_stalled_client_reads_nothing_before_the_last_action_is_through_and_then_everything() {
    let stalled =
        |caught_up, dropped| json!({"count": 1, "caught_up": caught_up, "dropped": dropped});
    let report = one_stalled(|alien| alien.states(&[8])).complete();
    assert_eq!(report["stalled"], stalled(1, 0));
    let report = one_stalled(|alien| alien.close(CloseCode::Again)).complete();
    assert_eq!(report["stalled"], stalled(0, 1));

    let (report, said) = one_stalled(|alien| alien.close(CloseCode::Error)).incomplete();
    assert_has(
        &said,
        "not complete: the server closed a connection with 1011; ",
    );
    assert_has(
        &said,
        "1 of 1 stalled clients did not come to the last state",
    );
    assert_eq!(report["stalled"], stalled(0, 0));
    let (_, said) = one_stalled(|alien| alien.states(&[7, 7])).incomplete();
    assert_has(&said, "within 5s stalled clients did not catch up; 1 of 1 ");
}
