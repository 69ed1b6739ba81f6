//! The leases that the sessions of a worker share: an owner that dies takes nobody with it for good,
//! and a room that everybody left goes to rest.

mod support;

use std::{
    io::{self, Read},
    net::{Shutdown, TcpStream},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use support::{
    Client, Event, PLUS, await_that,
    faulty::{Fault, Faulty, OPEN},
    held::HeldJournal,
    in_process::InProcess,
    raw::{PING, Raw, TEXT, frame},
};
use tallyroom::{journal::memory::MemoryJournal, limits::Limits, model::counter::Counter};

/// So many that each worker has some.
const SESSIONS: usize = 6;

fn clients(server: &InProcess, count: usize) -> Vec<Client> {
    (0..count).map(|_| server.client()).collect()
}

/// The next that an owner is asked to append kills it.
fn kill(journal: &Faulty) {
    let mut appends = journal.appends.lock().unwrap();
    appends.push_back(Fault::PanicBefore);
}

#[test]
fn when_an_owner_dies_its_sessions_close_and_newcomers_get_another_at_once() {
    let journal = Faulty::new(&[]);
    let server = InProcess::start(Counter, journal.clone(), Limits::default());
    for life in 0..5 {
        let mut old = clients(&server, SESSIONS);
        assert_eq!(old[0].first(), life);
        kill(&journal);
        old[0].plus();
        let mut first = old.swap_remove(0);
        assert_eq!(first.expect_close(), Some(1011));
        // The others still hold the lease of the old owner, or give it back now.
        let mut new = clients(&server, SESSIONS);
        assert_eq!(new.last().unwrap().users, SESSIONS, "they are in one room");
        new[0].plus();
        for client in &mut new {
            client.expect_state(life + 1);
        }
        for mut client in old {
            assert_eq!(client.expect_close(), Some(1011));
        }
        for client in new {
            client.close();
        }
    }
    assert_eq!(server.client().first(), 5);
}

/// Whoever comes while an owner dies is let in by the next, or closed, and never left waiting.
#[test]
fn who_comes_while_an_owner_dies_is_closed_or_let_in() {
    const LIVES: usize = 20;
    let journal = Faulty::new(&[]);
    let server = InProcess::start(Counter, journal.clone(), Limits::default());
    for _ in 0..LIVES {
        journal.gate.forget_permits(OPEN);
        let begun = journal.begun.load(Ordering::SeqCst);
        let mut acting = server.client();
        acting.plus();
        await_that("the append begins", || {
            journal.begun.load(Ordering::SeqCst) > begun
        });
        kill(&journal);
        thread::scope(|scope| {
            let port = server.port();
            let coming: Vec<_> = (0..3 * SESSIONS)
                .map(|nth| {
                    scope.spawn(move || {
                        let mut client = support::open(port, "/").unwrap();
                        if nth % 2 == 0 {
                            // It may be closed before it acts.
                            client.send_often_or_end(PLUS, 1);
                        }
                        let mut told = client.next();
                        while matches!(told, Event::Users(_)) {
                            told = client.next();
                        }
                        match told {
                            Event::Closed(code) => assert_eq!(code, Some(1011)),
                            Event::State(_) => {}
                            other => panic!("{other:?}"),
                        }
                    })
                })
                .collect();
            journal.gate.add_permits(OPEN);
            for coming in coming {
                coming.join().unwrap();
            }
        });
        assert_eq!(acting.expect_close(), Some(1011));
        await_that("the room is as before", || server.client().users == 1);
    }
}

#[test]
fn a_room_that_everybody_left_goes_to_rest_and_can_be_entered_again() {
    let limits = || Limits {
        room_idle: Some(Duration::from_millis(50)),
        max_rooms: Some(1),
        ..Limits::default()
    };
    let server = InProcess::start(Counter, Arc::new(MemoryJournal::new()), limits());
    for visit in 0..5 {
        let mut visitors = clients(&server, SESSIONS);
        assert_eq!(visitors[0].first(), visit);
        visitors[0].plus();
        visitors[SESSIONS - 1].expect_state(visit + 1);
        // As long as one is there it stays, whoever else leaves.
        let stays = visitors.remove(visit as usize % SESSIONS);
        for (nth, client) in visitors.into_iter().enumerate() {
            match nth % 3 {
                0 => client.close(),
                1 => drop(client),
                _ => support::raw::reset(client.into_stream()),
            }
        }
        let mut other = support::open(server.port(), "/r/other").unwrap();
        assert_eq!(other.next(), Event::Error("overloaded".to_owned()));
        assert_eq!(other.expect_close(), Some(1013));
        drop(stays);
        // There is place for one room: the other one is let in when this one rests.
        await_that("it goes to rest", || {
            let mut other = support::open(server.port(), "/r/other").unwrap();
            let let_in = other.next() == Event::Users(1);
            if let_in {
                other.close();
            }
            let_in
        });
        await_that("it can be entered again", || {
            let mut again = support::open(server.port(), "/").unwrap();
            again.next() == Event::Users(1) && again.next() == Event::State(visit + 1)
        });
        await_that("everybody has left", || {
            let mut newcomer = support::open(server.port(), "/").unwrap();
            newcomer.next() == Event::Users(1)
        });
    }
}

/// Sessions that leave while their actions are underway keep the room until these are done.
#[test]
fn what_was_asked_by_the_last_who_left_is_in_before_the_room_rests() {
    for _ in 0..5 {
        let journal = HeldJournal::new();
        let limits = Limits {
            room_idle: Some(Duration::from_millis(10)),
            ..Limits::default()
        };
        let server = InProcess::start(Counter, journal.clone(), limits);
        let mut visitors = clients(&server, SESSIONS);
        for client in &mut visitors {
            client.plus();
        }
        journal.await_appends(1);
        for client in visitors {
            client.close();
        }
        journal.release(SESSIONS);
        await_that("what they asked is in", || {
            server.client().first() == SESSIONS as i64
        });
    }
}

/// Whether nothing comes for a while.
fn is_silent(mut stream: &TcpStream) -> bool {
    let patience = stream.read_timeout().unwrap();
    let a_while = Some(Duration::from_millis(300));
    stream.set_read_timeout(a_while).unwrap();
    let read = stream.read(&mut [0]);
    stream.set_read_timeout(patience).unwrap();
    read.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock)
}

/// A server whose room waits for an append to go to rest, and somebody who waits for that room.
fn at_a_room_going_to_rest(journal: &Arc<HeldJournal>) -> (InProcess, Raw) {
    const IDLE: Duration = Duration::from_millis(10);
    let limits = Limits {
        room_idle: Some(IDLE),
        ..Limits::default()
    };
    let server = InProcess::start(Counter, journal.clone(), limits);
    let mut last = server.client();
    last.plus();
    journal.await_appends(1);
    last.close();
    let mut waiting = None;
    await_that("a newcomer has to wait", || {
        // Nobody is there for so long that it goes to rest.
        thread::sleep(10 * IDLE);
        let newcomer = Raw::open(server.port(), "/");
        waiting = is_silent(&newcomer.stream).then_some(newcomer);
        waiting.is_some()
    });
    (server, waiting.unwrap())
}

/// A room that goes to rest waits for what is underway, and whoever comes meanwhile waits for it: they
/// are answered at once, heard of when they go, and their actions count when they stay.
#[test]
fn who_comes_while_a_room_goes_to_rest_is_connected_and_then_let_in() {
    let journal = HeldJournal::new();
    let (server, mut waiting) = at_a_room_going_to_rest(&journal);
    let action = frame(TEXT, PLUS.as_bytes());
    waiting.write(&frame(PING, b"?")).unwrap();
    waiting.write(&action).unwrap();

    let mut leaving = Raw::open(server.port(), "/");
    leaving.stream.shutdown(Shutdown::Write).unwrap();
    let mut told = Vec::new();
    leaving.stream.read_to_end(&mut told).unwrap();
    assert_eq!(told, b"", "it is not in its room");

    journal.release(2);
    assert_eq!(waiting.next(), Event::Users(1));
    assert_eq!(waiting.next(), Event::State(1));
    assert_eq!(waiting.next(), Event::State(2));
    // Who left was never in.
    assert!(is_silent(&waiting.stream));
}

/// A server that stops while somebody waits for a room does not wait for that.
#[test]
fn who_waits_for_a_room_when_the_server_stops_is_closed() {
    let journal = HeldJournal::new();
    let (server, mut waiting) = at_a_room_going_to_rest(&journal);
    drop(server);
    journal.release(1);
    let mut told = waiting.read_to_end();
    assert_eq!(told.pop(), Some(Event::Closed(Some(1012))));
}
