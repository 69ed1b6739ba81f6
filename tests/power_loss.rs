//! When the power fails, all that was acked or shown is there, once, and the server starts by itself.
//!
//! The real program runs over a layer that keeps a log of what it asks of the file system. Of that log
//! it is made what a loss of power would have left at many moments: what was synced, and any part of
//! what was not. The real program is started on that.

mod support;

#[path = "power_loss/disk.rs"]
mod disk;
#[path = "power_loss/layer.rs"]
mod layer;
#[path = "power_loss/traffic.rs"]
mod traffic;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use disk::{Disk, Loss, Records, ends};
use fastrand::Rng;
use layer::{Switch, serve};
use rusqlite::Connection;
use support::{
    PLUS, Server,
    http::{get, request_with},
    is_long,
    kept::{Kept, check_folder},
    ledger::{self, Ledger, Planned, Said},
    numbered::Numbered,
    seed,
};
use tallyroom::{
    journal::disk::{DiskJournal, FILE, Keep},
    model::{ModelId, counter::Counter},
};
use tempfile::TempDir;
use traffic::{CLASSIC, End, Story, after_power_loss};
use uuid::Uuid;

const FLAGS: [&str; 4] = ["--session-rate", "0", "--keep-entries", "2000"];

/// What a loss of power at some moments would have left.
struct Moment {
    at: u64,
    seed: u64,
    root: TempDir,
}

/// Follows the log once, and makes the folder of each moment.
fn moments(
    log: &[u8],
    mut at: Vec<u64>,
    rng: &mut Rng,
    loss: impl Fn(&mut Rng) -> Loss,
) -> Vec<Moment> {
    at.sort_unstable();
    let (mut disk, mut records) = (Disk::default(), Records::new(log));
    let moment = |at| {
        disk.follow(&mut records, at);
        let (seed, root) = (rng.u64(..), TempDir::new().unwrap());
        let mut rng = Rng::with_seed(seed);
        let loss = loss(&mut rng);
        disk.restore(&mut rng, loss, root.path());
        leave_a_map(&mut rng, &layer::data(root.path()));
        Moment { at, seed, root }
    };
    at.into_iter().map(moment).collect()
}

/// What was only mapped may be anything or nothing.
fn leave_a_map(rng: &mut Rng, data: &Path) {
    if data.join(FILE).is_file() && rng.bool() {
        let mut bytes = vec![0; 32 * 1024];
        rng.fill(&mut bytes);
        fs::write(data.join(format!("{FILE}-shm")), bytes).unwrap();
    }
}

/// Moments anywhere in the log from there on, every other one within a few operations of a sync.
fn anywhere(log: &[u8], count: usize, from: u64, rng: &mut Rng) -> Vec<u64> {
    const FEW: usize = 3;
    let mut ends = ends(log);
    ends.retain(|end| end.at >= from);
    let syncs: Vec<usize> = (0..ends.len()).filter(|end| ends[*end].synced).collect();
    let pick = |nth| {
        let end = match nth % 2 {
            0 => rng.usize(..ends.len()),
            _ => {
                let sync = syncs[rng.usize(..syncs.len())];
                rng.usize(sync.saturating_sub(FEW)..=(sync + FEW).min(ends.len() - 1))
            }
        };
        ends[end].at
    };
    (0..count).map(pick).collect()
}

impl Story {
    /// Starts the program on what is left, and checks it against what was told by then.
    fn check(&self, moment: &Moment) {
        let Moment { at, seed, root } = moment;
        let data = layer::data(root.path());
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let server = Server::spawn(serve(&data, &FLAGS));
            let ledgers = after_power_loss(&server, &self.witnesses, *at);
            let value = server.client_in(&format!("/r/{CLASSIC}")).first();
            let shown = self.shown.iter().take_while(|(by, _)| by <= at).last();
            let shown = shown.map_or(0, |(_, value)| *value);
            assert!(
                (shown..=self.sent).contains(&value),
                "{value} after {shown} was shown"
            );
            drop(server);
            check_folder(&data);
            for room in ["main", "other"] {
                let of_room = |(witness, _): &(&traffic::Witness, &Ledger)| witness.room == room;
                let ledgers = self.witnesses.iter().zip(&ledgers).filter(of_room);
                let ledgers: Vec<&Ledger> = ledgers.map(|(_, ledger)| ledger).collect();
                ledger::verify(&ledgers, &Kept::in_folder(&data, room));
            }
        }));
        if let Err(failed) = checked {
            eprintln!("after a loss of power at {at} with the seed {seed}");
            std::panic::resume_unwind(failed);
        }
    }

    /// Checks moments on two threads, and says how many hold.
    fn check_all(&self, moments: &[Moment]) {
        let (one, other) = moments.split_at(moments.len() / 2);
        thread::scope(|scope| {
            for half in [one, other] {
                scope.spawn(|| half.iter().for_each(|moment| self.check(moment)));
            }
        });
    }
}

#[test]
fn all_that_was_told_survives_a_loss_of_power_at_any_moment() {
    let seed = seed();
    let (lives, count) = if is_long() { (6, 1000) } else { (3, 30) };
    let mut story = Story::new(seed);
    for life in 0..lives {
        let end = if life == 1 { End::Stopped } else { End::Killed };
        story.live(&FLAGS, end, |_, acked| acked > 12_000);
    }
    // With syncs that take their time, whoever is told before they are done is told too early.
    let slow_from = story.watched.now();
    story.watched.set(Switch::SyncTakes, 15);
    story.live(&FLAGS, End::Killed, |_, acked| acked > 3_000);
    let log = story.watched.log();
    let data = story.watched.data();
    assert!(
        Kept::in_folder(&data, "main").after > 0,
        "nothing was dropped"
    );
    assert!(
        fs::metadata(data.join(FILE)).unwrap().len() > 100_000,
        "there was no checkpoint"
    );
    let mut rng = Rng::with_seed(seed);
    let mut at = anywhere(&log, count, 0, &mut rng);
    at.extend(anywhere(&log, count / 2, slow_from, &mut rng));
    at.push(log.len() as u64);
    let moments = moments(&log, at, &mut rng, Loss::random);
    story.check_all(&moments);
}

/// Were nothing left out of the log, its whole is what the program left.
#[test]
fn the_layer_sees_all_that_is_written() {
    let mut story = Story::new(seed());
    story.live(&FLAGS, End::Killed, |_, acked| acked > 3_000);
    let log = story.watched.log();
    let mut rng = Rng::new();
    let all = vec![log.len() as u64];
    let moments = moments(&log, all, &mut rng, |_| Loss::NOTHING);
    let (left, made) = (story.watched.data(), layer::data(moments[0].root.path()));
    for name in fs::read_dir(&left)
        .unwrap()
        .map(|file| file.unwrap().file_name())
    {
        if !name.to_string_lossy().ends_with("-shm") {
            let bytes = |folder: &Path| fs::read(folder.join(&name)).unwrap();
            assert!(bytes(&left) == bytes(&made), "{name:?} is another one");
        }
    }
}

/// The oracle sees it where a disk says that it has what it has not.
#[test]
fn a_disk_that_lies_is_found_out() {
    let seed = seed();
    let mut story = Story::new(seed);
    let mut lies_from = None;
    story.live(&FLAGS, End::Killed, |watched, acked| {
        if acked > 1_000 && lies_from.is_none() {
            watched.set(Switch::SyncLies, 1);
            lies_from = Some(watched.now());
        }
        acked > 3_000
    });
    let log = story.watched.log();
    let mut rng = Rng::with_seed(seed);
    let late = vec![log.len() as u64];
    let moments = moments(&log, late, &mut rng, |_| Loss::ALL);
    let checked = catch_unwind(AssertUnwindSafe(|| story.check(&moments[0])));
    let said = checked.unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(said.starts_with("welcome says"), "{said}");
}

/// And where those who wait for a sync go on before it is done.
#[test]
fn acks_before_the_sync_are_found_out() {
    let seed = seed();
    let mut story = Story::new(seed);
    let mut early = None;
    story.live(&FLAGS, End::Killed, |watched, acked| {
        if acked > 500 && early.is_none() {
            watched.set(Switch::SyncTakes, 20);
            watched.set(Switch::SyncReturnsEarly, 1);
            early = Some((watched.now(), Instant::now()));
        }
        early.is_some_and(|(_, since)| since.elapsed() > Duration::from_millis(300))
    });
    let log = story.watched.log();
    let ends = ends(&log);
    let (from, _) = early.unwrap();
    let before_syncs = ends.windows(2).filter(|pair| pair[1].synced);
    let before_syncs = before_syncs.map(|pair| pair[0].at);
    let late: Vec<u64> = before_syncs.filter(|at| *at > from).collect();
    let few = late
        .iter()
        .copied()
        .step_by(late.len().div_ceil(10))
        .collect();
    let moments = moments(&log, few, &mut Rng::with_seed(seed), |_| Loss::ALL);
    let is_found_out = |moment| {
        let checked = catch_unwind(AssertUnwindSafe(|| story.check(moment)));
        let said = checked
            .err()
            .and_then(|said| said.downcast::<String>().ok());
        said.is_some_and(|said| said.starts_with("welcome says"))
    };
    assert!(moments.iter().any(is_found_out));
}

/// A numbered client and a classic one in the room `main`, who have both acted.
struct Two {
    server: Server,
    ledger: Ledger,
    session: Numbered,
    classic: support::Client,
    value: i64,
}

impl Two {
    fn start(watched: &layer::Watched) -> Self {
        let server = watched.start(&FLAGS);
        let mut classic = server.client();
        // Past what the log had when the folder was made, which is written over first.
        for value in 1..=20 {
            classic.plus();
            classic.expect_state(value);
        }
        let mut ledger = Ledger::new(Uuid::new_v4());
        let session = Numbered::enter(server.port(), "main", &mut ledger).unwrap();
        let mut two = Self {
            server,
            ledger,
            session,
            classic,
            value: 0,
        };
        two.act(50);
        two.session.settle_all(&mut two.ledger).unwrap();
        two.classic.expect_state(70);
        two.classic.plus();
        two.value = two.classic.next_state();
        two
    }

    fn act(&mut self, count: usize) {
        let first = self.ledger.last() + 1;
        for _ in 0..count {
            self.ledger.plan(Planned::plus(1));
        }
        let numbers = first..=self.ledger.last();
        self.session.send_numbers(&self.ledger, numbers).unwrap();
    }

    /// Both are told that nothing is taken, each in its own way, and everybody sees the last state.
    fn are_refused(&mut self, code: &str) {
        let last = self.ledger.last();
        let mut asked_again = Vec::new();
        while asked_again.last() != Some(&last) {
            match self
                .session
                .hear(&mut self.ledger, support::PATIENCE)
                .unwrap()
            {
                Some(Said::Retry { n, code: said, .. }) => {
                    assert!([code, "gap"].contains(&said.as_str()), "{said}");
                    asked_again.push(n);
                }
                Some(Said::State { value, .. }) => assert_eq!(value, self.value),
                Some(Said::Other) => {}
                other => panic!("{other:?}"),
            }
        }
        let unsettled: Vec<u64> = (self.ledger.settled() + 1..=last).collect();
        assert_eq!(asked_again, unsettled);
        self.classic.plus();
        self.classic.expect_error(code);
        let mut newcomer = self.server.client();
        assert_eq!(newcomer.first(), self.value);
        newcomer.plus();
        newcomer.expect_error(code);
        let (path, kind) = ("/api/rooms/main/actions", "Content-Type: application/json");
        let answer = request_with(self.server.port(), "POST", path, &[kind], PLUS);
        answer.assert_problem(if code == "store_full" { 507 } else { 503 }, code);
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }

    fn are_refused_again_and_again(&mut self, code: &str) {
        self.act(3);
        self.are_refused(code);
        self.send_again();
        self.are_refused(code);
    }

    /// What was refused is taken now, and more.
    fn go_on(&mut self) {
        self.send_again();
        self.session.settle_all(&mut self.ledger).unwrap();
        self.classic.expect_state(self.value + 3);
        self.classic.plus();
        assert_eq!(self.classic.next_state(), self.value + 4);
        self.value += 4;
    }

    /// The server is killed, and all is there.
    fn end(mut self, watched: &layer::Watched) {
        self.server.signal("KILL");
        self.server.await_exit();
        verify(&self.ledger, &watched.data(), self.value);
    }

    fn send_again(&mut self) {
        let unsettled = self.ledger.settled() + 1..=self.ledger.last();
        self.session.send_numbers(&self.ledger, unsettled).unwrap();
    }
}

fn verify(ledger: &Ledger, data: &Path, value: i64) {
    check_folder(data);
    let kept = Kept::in_folder(data, "main");
    // The others add 1 each.
    let others = usize::try_from(value - ledger.sum()).unwrap();
    assert_eq!(ledger::verify_beside(others, &[ledger], &kept), value);
}

#[test]
fn after_a_sync_that_failed_nothing_more_is_acked_and_what_was_is_there() {
    let watched = layer::Watched::new();
    let mut two = Two::start(&watched);
    watched.set(Switch::SyncFails, 1);
    two.act(3);
    two.are_refused("unavailable");
    for _ in 0..2 {
        two.send_again();
        two.are_refused("unavailable");
    }
    assert_eq!(
        watched.get(Switch::Failed),
        1,
        "later ones would have been well"
    );
    two.server.await_log("nothing more is committed");
    two.server.signal("KILL");
    two.server.await_exit();

    let log = watched.log();
    let mut rng = Rng::with_seed(seed());
    let at = vec![log.len() as u64; 10];
    let kept = moments(&log, at, &mut rng, Loss::random);
    let kept = kept.iter().map(|moment| layer::data(moment.root.path()));
    // The last is the folder as a crash of the program alone leaves it.
    for data in kept.chain([watched.data()]) {
        let server = Server::spawn(serve(&data, &FLAGS));
        let mut ledger = two.ledger.clone();
        let mut session = Numbered::enter(server.port(), "main", &mut ledger).unwrap();
        // They were in the transaction that failed, or they were not: all or none.
        assert!([50, 53].contains(&ledger.settled()), "{}", ledger.settled());
        let unsettled = ledger.settled() + 1..=ledger.last();
        session.send_numbers(&ledger, unsettled).unwrap();
        session.settle_all(&mut ledger).unwrap();
        assert_eq!(server.client().first(), two.value + 3);
        drop(server);
        verify(&ledger, &data, two.value + 3);
    }
}

/// What the kernel could not write it may take for written: a server that starts on it stands on what
/// only the memory of the machine has.
#[test]
fn what_is_acked_after_the_start_that_follows_a_failed_sync_is_on_disk() {
    for ending in ["KILL", "TERM"] {
        let watched = layer::Watched::new();
        let mut two = Two::start(&watched);
        watched.set(Switch::SyncFails, 1);
        two.act(3);
        two.are_refused("unavailable");
        two.server.signal(ending);
        two.server.await_exit();
        let server = watched.start(&FLAGS);
        two.session = Numbered::enter(server.port(), "main", &mut two.ledger).unwrap();
        two.send_again();
        two.act(20);
        two.session.settle_all(&mut two.ledger).unwrap();
        drop(server);
        let log = watched.log();
        let rng = &mut Rng::with_seed(seed());
        let left = moments(&log, vec![log.len() as u64], rng, |_| Loss::ALL);
        let data = layer::data(left[0].root.path());
        verify(&two.ledger, &data, two.value + 23);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_by_itself_when_there_is_space() {
    let watched = layer::Watched::new();
    let mut two = Two::start(&watched);
    for _ in 0..2 {
        watched.set(Switch::Full, 1);
        two.are_refused_again_and_again("store_full");
        watched.set(Switch::Full, 0);
        two.go_on();
    }
    two.server.await_log("the store has space again");
    two.end(&watched);
}

#[test]
fn a_write_that_failed_refuses_and_goes_on_by_itself_when_writes_succeed() {
    let watched = layer::Watched::new();
    let mut two = Two::start(&watched);
    // At once, and after a part was written.
    for how in [1, 2, 2, 1] {
        watched.set(Switch::WriteFails, how);
        two.are_refused_again_and_again("unavailable");
        watched.set(Switch::WriteFails, 0);
        two.go_on();
    }
    two.end(&watched);
}

#[test]
fn what_cannot_be_read_is_refused_and_there_again_when_reads_succeed() {
    let watched = layer::Watched::new();
    let server = watched.start(&FLAGS);
    let mut other = server.client_in("/r/other");
    other.send_often(PLUS, 300);
    other.expect_state(300);
    drop(server);
    let mut two = Two::start(&watched);
    let port = two.server.port();
    watched.set(Switch::ReadFails, 1);
    for path in ["/api/rooms/other", "/api/rooms/other/journal"] {
        get(port, path).assert_problem(503, "unavailable");
    }
    let (path, kind) = ("/api/rooms/other/actions", "Content-Type: application/json");
    request_with(port, "POST", path, &[kind], PLUS).assert_problem(503, "unavailable");
    // What is known goes on.
    assert_eq!(get(port, "/api/rooms/main").status, 200);
    two.act(3);
    two.session.settle_all(&mut two.ledger).unwrap();
    two.value += 3;
    two.classic.expect_state(two.value);
    watched.set(Switch::ReadFails, 0);
    assert_eq!(two.server.client_in("/r/other").first(), 300);
    two.end(&watched);
}

#[test]
fn a_start_on_a_full_disk_says_so_and_leaves_all_as_it_was() {
    let watched = layer::Watched::new();
    // In a new folder, and in one with a value.
    for value in [0, 1] {
        watched.set(Switch::Full, 1);
        let refused = watched.serve(&FLAGS).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        let file = watched.data().join(FILE).display().to_string();
        assert!(
            said.contains(&file) && said.contains("no space left"),
            "{said}"
        );
        watched.set(Switch::Full, 0);
        let mut server = watched.start(&FLAGS);
        let mut client = server.client();
        assert_eq!(client.first(), value);
        client.plus();
        client.expect_state(value + 1);
        server.signal("TERM");
        server.await_exit();
        check_folder(&watched.data());
    }
}

/// Each kind of error in turn, and well in between.
#[test]
fn a_disk_that_fails_now_and_then_loses_nothing_when_the_power_fails() {
    let seed = seed();
    let mut story = Story::new(seed);
    let mut rng = Rng::with_seed(seed);
    // It is killed while all is well, or while it is not.
    let (mut looks, enough) = (0, rng.usize(400..440));
    let errors = [
        (Switch::WriteFails, 1),
        (Switch::WriteFails, 2),
        (Switch::ReadFails, 1),
    ];
    story.live(&FLAGS, End::Killed, |watched, acked| {
        let (switch, to) = errors[looks / 40 % errors.len()];
        looks += 1;
        watched.set(switch, if looks % 40 > 20 { to } else { 0 });
        acked > 4_000 && looks > enough
    });
    let failed = story.watched.get(Switch::Failed);
    assert!(failed > 10, "{failed} failed");
    let log = story.watched.log();
    let at = anywhere(&log, 12, 0, &mut rng);
    let moments = moments(&log, at, &mut rng, Loss::random);
    story.check_all(&moments);
}

/// The database itself is written by checkpoints alone, and its log has all that they are to write.
#[test]
fn a_checkpoint_whose_writes_fail_costs_nothing() {
    let seed = seed();
    let mut story = Story::new(seed);
    story.watched.set(Switch::FailsOf, b'b');
    let mut begun = None;
    story.live(&FLAGS, End::Killed, |watched, acked| {
        // Not while the database is made.
        begun = begun.or_else(|| Some(watched.now()));
        let failed = watched.get(Switch::Failed);
        watched.set(Switch::WriteFails, [2, 1, 0][usize::from(failed).min(2)]);
        failed >= 2 && acked > 12_000
    });
    let log = story.watched.log();
    let mut rng = Rng::with_seed(seed);
    let at = anywhere(&log, 15, begun.unwrap(), &mut rng);
    let moments = moments(&log, at, &mut rng, Loss::random);
    story.check_all(&moments);
}

#[test]
fn a_disk_that_is_full_now_and_then_loses_nothing_when_the_power_fails() {
    let seed = seed();
    let mut story = Story::new(seed);
    let mut rng = Rng::with_seed(seed);
    // It is killed while all is well, or while it is not.
    let (mut looks, enough) = (0, rng.usize(400..440));
    story.live(&FLAGS, End::Killed, |watched, acked| {
        looks += 1;
        let full = looks % 40 > 20;
        watched.set(Switch::Full, full.into());
        acked > 4_000 && looks > enough
    });
    let log = story.watched.log();
    let at = anywhere(&log, 12, 0, &mut rng);
    let moments = moments(&log, at, &mut rng, Loss::random);
    story.check_all(&moments);
}

/// A checkpoint that a reader holds up counts what it wrote as brought over, and syncs it only with a
/// later one. Where that sync fails the kernel may forget what both wrote, and SQLite writes only the
/// rest again: so that nothing more may be committed, nor the log be removed.
#[test]
fn after_a_checkpoint_whose_sync_failed_nothing_more_is_acked_and_what_was_is_there() {
    let seed = seed();
    let mut story = Story::new(seed);
    let data = story.watched.data();
    let (mut reader, mut was_read, mut looks) = (None, false, 0);
    let written = || fs::metadata(data.join(FILE)).unwrap().modified().unwrap();
    // Nothing is dropped, so that what a checkpoint wrote is not written again by the next.
    let flags = &FLAGS[..2];
    story.watched.set(Switch::FailsOf, b'b');
    story.live(flags, End::Stopped, |watched, acked| {
        if acked > 3_000 && !was_read {
            let (_reader, since) = reader.get_or_insert_with(|| (reading(&data), written()));
            // A checkpoint came as far as the reader lets it come.
            was_read = written() > *since;
            if was_read {
                reader = None;
                watched.set(Switch::SyncFails, 1);
            }
        }
        looks += u32::from(watched.get(Switch::Failed) == 1);
        looks > 20
    });
    let failed = story.watched.now();
    let log = story.watched.log();
    let rng = &mut Rng::with_seed(seed);
    let stopped = moments(&log, vec![failed], rng, |_| Loss::ALL);
    story.check_all(&stopped);
    story.live(flags, End::Killed, |_, acked| acked > 12_000);
    let log = story.watched.log();
    let at = anywhere(&log, 6, failed, rng);
    story.check_all(&moments(&log, at, rng, Loss::random));
}

/// A connection that reads what there is now.
fn reading(data: &Path) -> Connection {
    let reader = Connection::open(data.join(FILE)).unwrap();
    let read = "BEGIN; SELECT count(*) FROM rooms";
    reader.execute_batch(read).unwrap();
    reader
}

/// A short life in which a folder is made, and all is done to it that is ever done: and the values that
/// were shown, with when they were.
struct Life {
    watched: layer::Watched,
    shown: Vec<(u64, &'static str, i64)>,
    ledger: Ledger,
}

impl Life {
    const ROOMS: [&str; 2] = ["main", "door"];

    fn lead() -> Self {
        let mut life = Self {
            watched: layer::Watched::new(),
            shown: Vec::new(),
            ledger: Ledger::new(Uuid::new_v4()),
        };
        life.serve(|life, port| {
            life.plus(port, "door", 1);
            life.number(port, 20);
            life.await_snapshot(20);
        });
        life.serve(|life, port| {
            life.plus(port, "door", 2);
            let (path, kind) = ("/api/import", "Content-Type: application/x-ndjson");
            let room = r#"{"room":"door","value":100}"#;
            let answer = request_with(port, "POST", path, &[kind], room);
            assert_eq!(answer.status, 200, "{answer:?}");
            life.note("door", 100);
            life.number(port, 40);
            life.await_snapshot(40);
        });
        life.serve(|life, port| life.plus(port, "door", 101));
        life
    }

    /// A server whose rooms soon go to rest, and drop then what their snapshots hold.
    fn serve(&mut self, act: impl FnOnce(&mut Self, u16)) {
        let flags = ["--keep-entries", "10", "--room-idle", "1s"];
        let mut server = self.watched.start(&flags);
        act(self, server.port());
        server.signal("TERM");
        server.await_exit();
    }

    fn await_snapshot(&self, rev: u64) {
        let database = reading(&self.watched.data());
        database.execute_batch("COMMIT").unwrap();
        support::await_that("a room goes to rest", || {
            let count = "SELECT count(*) FROM snapshots WHERE rev = ?1";
            let count: u64 = database.query_row(count, [rev], |row| row.get(0)).unwrap();
            count == 1
        });
    }

    fn note(&mut self, room: &'static str, value: i64) {
        self.shown.push((self.watched.now(), room, value));
    }

    fn plus(&mut self, port: u16, room: &'static str, value: i64) {
        let mut client = support::join(port, &format!("/r/{room}"));
        client.first();
        client.plus();
        client.expect_state(value);
        self.note(room, value);
    }

    /// One by one, so that each is a commit.
    fn number(&mut self, port: u16, until: u64) {
        let mut session = Numbered::enter(port, "main", &mut self.ledger).unwrap();
        for n in self.ledger.last() + 1..=until {
            self.ledger.plan(Planned::plus(1));
            session.send_numbers(&self.ledger, [n]).unwrap();
            session.settle_all(&mut self.ledger).unwrap();
            self.note("main", n as i64);
        }
    }

    /// All that was shown by then is in, and nothing but what came next.
    fn check(&self, moment: &Moment) {
        let data = layer::data(moment.root.path());
        drop(DiskJournal::open(&data, ModelId::of::<Counter>(), Keep::default()).unwrap());
        check_folder(&data);
        for room in Self::ROOMS {
            let kept = Kept::in_folder(&data, room);
            let mut state = kept.state;
            kept.entries
                .iter()
                .for_each(|entry| state.apply(&entry.action));
            let values = |by_then: bool| {
                let shown = self.shown.iter().filter(move |shown| shown.1 == room);
                shown.filter(move |shown| (shown.0 <= moment.at) == by_then)
            };
            let least = values(true).next_back().map_or(0, |shown| shown.2);
            let most = values(false).next().map_or(least, |shown| shown.2);
            assert!(
                [least, most].contains(&state.value),
                "{room} has {} after {least} at {} with the seed {}",
                state.value,
                moment.at,
                moment.seed
            );
        }
    }
}

#[test]
fn a_folder_survives_a_loss_of_power_after_each_operation_of_its_life() {
    let life = Life::lead();
    assert!(
        Kept::in_folder(&life.watched.data(), "main").after > 0,
        "nothing was dropped"
    );
    let log = life.watched.log();
    let at = ends(&log).into_iter().map(|end| end.at);
    let loss = |rng: &mut Rng| {
        if rng.bool() {
            Loss::ALL
        } else {
            Loss::random(rng)
        }
    };
    let moments = moments(&log, at.collect(), &mut Rng::with_seed(seed()), loss);
    moments.iter().for_each(|moment| life.check(moment));
}
