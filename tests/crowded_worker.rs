//! A worker with thousands of sessions has time for everybody: it sees to a few of them and then to its
//! other connections, so that nobody waits for all.

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use support::{Event, Server, await_that, command, finished, http::get};

const SESSIONS: usize = 2000;
const ACTIONS: usize = 500;

#[test]
fn others_are_answered_while_thousands_are_told_of_every_action() {
    let server = Server::start(&["--workers", "1", "--session-rate", "0"]);
    let port = server.port();
    let room = || get(port, "/api/rooms/main").json();
    let (url, sessions) = (format!("ws://127.0.0.1:{port}/"), SESSIONS.to_string());
    let actions = ACTIONS.to_string();
    let crowd = ["bench", "--url", &url, "--subscribers", &sessions];
    let flood = ["--actions", &actions, "--pipeline", "8"];
    let bench = command(&[&crowd[..], &flood].concat()).spawn().unwrap();
    await_that("the flood begins", || room()["value"] != 0);
    // Neither does a newcomer wait for the end.
    let newcomer = server.client();
    let told = newcomer.first() as usize;
    assert!(told < ACTIONS, "it waited for the end");
    drop(newcomer);
    let (mut seen, mut longest) = (BTreeSet::new(), Duration::ZERO);
    loop {
        let start = Instant::now();
        let value = room()["value"].as_u64().unwrap() as usize;
        longest = longest.max(start.elapsed());
        if value == ACTIONS {
            break;
        }
        seen.insert(value);
    }
    assert!(seen.len() > 10, "only at {seen:?} something was answered");
    assert!(
        longest < Duration::from_secs(5),
        "an answer took {longest:?}"
    );
    let ended = finished(bench);
    assert!(ended.status.success(), "not everybody was told everything");
    await_that("the crowd has left", || room()["users"] == 0);
    let mut after = server.client();
    after.plus();
    assert_eq!(after.next(), Event::State(ACTIONS as i64 + 1));
}
