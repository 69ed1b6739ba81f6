//! Every action is applied exactly once, whatever happens to the server and to connections: the real
//! program on disk, killed again and again while clients act.

mod support;

#[path = "exactly_once/client.rs"]
mod client;
#[path = "exactly_once/site.rs"]
mod site;

use std::{collections::BTreeMap, fs, thread};

use client::{Acting, post_with_keys};
use fastrand::Rng;
use site::Site;
use support::{
    is_long,
    kept::{Kept, check_folder},
    ledger::{Ledger, verify},
    seed,
};
use tempfile::TempDir;

/// A room whose value stays within narrow limits, so that what is refused depends on the state, and
/// one without.
const ROOMS: [&str; 2] = ["narrow", "wide"];

/// How many sockets' clients, and how many of plain HTTP, each room has.
const CLIENTS: usize = 3;
const POSTING: usize = 1;

/// What clients must have met, so that nothing passes for tested that never came about.
const MEETS: [&str; 8] = [
    "resent",
    "refused",
    "gap",
    "rate_limited",
    "replaced",
    "read late",
    "deaf",
    "posted again",
];

/// What the write-ahead log of SQLite may have grown to: twice what makes a checkpoint due.
const MAX_LOG_BYTES: u64 = 2 * 1000 * 16 * 1024;

#[test]
fn nothing_acked_is_lost_and_nothing_is_applied_twice_whenever_the_server_is_killed() {
    /// How many servers are killed side by side, to use the waits for starting.
    const LANES: u64 = 2;
    let seed = seed();
    let kills = if is_long() { 2000 } else { 200 };
    let met: Vec<_> = thread::scope(|scope| {
        let start = |lane| {
            let rng = Rng::with_seed(seed.wrapping_add(lane));
            scope.spawn(move || kill_often(kills / LANES, rng))
        };
        let lanes: Vec<_> = (0..LANES).map(start).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    eprintln!("{met:?}");
    for what in MEETS {
        let often = met.iter().filter_map(|met| met.get(what));
        assert!(often.sum::<u64>() > 0, "nobody met: {what}");
    }
}

/// Kills one server so often under load, and compares what is kept with what was told. Gives how
/// often clients met what.
fn kill_often(kills: u64, mut rng: Rng) -> BTreeMap<String, u64> {
    let folder = TempDir::new().unwrap();
    let site = Site::new(folder.path());
    let ledgers = thread::scope(|scope| {
        let mut acting = Vec::new();
        for room in ROOMS {
            for _ in 0..CLIENTS {
                let (site, rng) = (&site, rng.fork());
                acting.push((room, scope.spawn(move || Acting::new(room, rng).act(site))));
            }
            for _ in 0..POSTING {
                let (site, rng) = (&site, rng.fork());
                acting.push((room, scope.spawn(move || post_with_keys(site, room, rng))));
            }
        }
        for _ in 0..kills {
            site.live_and_die(&mut rng);
            // One that failed need not be waited for.
            if acting.iter().any(|(_, client)| client.is_finished()) {
                break;
            }
        }
        let last = site.finish();
        let ended = acting.into_iter();
        let ledgers: Vec<_> = ended
            .map(|(room, client)| (room, client.join().unwrap()))
            .collect();
        for room in ROOMS {
            check(&last.server, room, &ledgers);
        }
        ledgers
    });
    // However short all their lives were, each cleared away what those before it had left.
    let log = fs::metadata(folder.path().join("tallyroom.db-wal")).unwrap();
    assert!(log.len() < MAX_LOG_BYTES, "a log of {} bytes", log.len());
    // What is in the database is what was told by HTTP, after one kill more.
    check_folder(folder.path());
    for room in ROOMS {
        let of_room = of_room(room, &ledgers);
        verify(&of_room, &Kept::in_folder(folder.path(), room));
    }
    site.met()
}

fn of_room<'a>(room: &str, ledgers: &'a [(&str, Vec<Ledger>)]) -> Vec<&'a Ledger> {
    let ledgers = ledgers.iter().filter(|(of, _)| *of == room);
    ledgers.flat_map(|(_, ledgers)| ledgers).collect()
}

fn check(server: &support::Server, room: &str, ledgers: &[(&str, Vec<Ledger>)]) {
    let ledgers = of_room(room, ledgers);
    let kept = Kept::by_http(server.port(), room);
    let value = verify(&ledgers, &kept);
    let told = support::http::get(server.port(), &format!("/api/rooms/{room}")).json();
    assert_eq!(
        (told["value"].as_i64(), told["rev"].as_u64()),
        (Some(value), Some(kept.end()))
    );
    let settled: u64 = ledgers.iter().map(|ledger| ledger.settled()).sum();
    eprintln!(
        "{room}: {} clients, {settled} settled, {} accepted",
        ledgers.len(),
        kept.entries.len()
    );
    assert!(
        settled > 1000 && kept.entries.len() > 1000,
        "hardly anything was done"
    );
}
