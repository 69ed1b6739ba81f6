//! Rooms: each has a value of its own, and keeps it while nobody is there.

mod support;

use std::{
    thread,
    time::{Duration, Instant},
};

use support::{
    Event, PLUS, Server,
    http::{get, handshake},
    raw::{Raw, TEXT, frame},
};

#[test]
fn the_root_is_the_room_main() {
    let server = Server::start(&[]);
    let mut root = server.client();
    let mut main = server.client_in("/r/main");
    root.expect_users(2);
    main.plus();
    assert_eq!((root.next_state(), main.next_state()), (1, 1));
}

#[test]
fn rooms_know_nothing_of_each_other() {
    let server = Server::start(&[]);
    let names = ["a", "A", "a-", "a_", "0", &"x".repeat(64), &"X".repeat(64)];
    let mut rooms: Vec<_> = names
        .iter()
        .map(|name| server.client_in(&format!("/r/{name}")))
        .collect();
    for (times, room) in rooms.iter_mut().enumerate() {
        room.send_often(PLUS, times + 1);
    }
    for (times, room) in rooms.iter_mut().enumerate() {
        let expected = (1..=times as i64 + 1).map(Event::State);
        for state in expected {
            assert_eq!(room.next(), state);
        }
    }
    for (times, name) in names.iter().enumerate() {
        let mut newcomer = support::open(server.port(), &format!("/r/{name}")).unwrap();
        assert_eq!(newcomer.next(), Event::Users(2));
        assert_eq!(newcomer.next(), Event::State(times as i64 + 1));
    }
}

#[test]
fn a_name_that_is_none_is_not_found_as_page_and_as_socket() {
    let server = Server::start(&[]);
    let too_long = format!("/r/{}", "x".repeat(65));
    for path in [
        "/r/",
        "/r",
        "/r/a.b",
        "/r/a%20b",
        "/r/%C3%A9",
        "/r/a%2Fb",
        "/r/a/b",
        "/r/..",
        "/r/%00",
        "/r/a+b",
        "/r/%2e%2e",
        "/r/a~",
        "/main",
        "//",
        &too_long,
    ] {
        get(server.port(), path).assert_problem(404, "not_found");
        let answer = handshake(server.port(), path, &[]);
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
    }
    // A name may be written with escapes; it is the same room.
    let mut plain = server.client_in("/r/ab");
    plain.plus();
    plain.expect_state(1);
    assert_eq!(server.client_in("/r/%61b").first(), 1);
}

#[test]
fn a_query_does_not_change_the_room() {
    let server = Server::start(&[]);
    let mut plain = server.client_in("/r/a");
    let _other = server.client_in("/r/a?x=1&room=b");
    assert_eq!(plain.next(), Event::Users(2));
    assert_eq!(get(server.port(), "/?room=b").status, 200);
}

/// A room that goes to rest while somebody joins it must neither forget what was told nor let the
/// newcomer wait for ever.
#[test]
fn a_room_keeps_its_value_however_often_it_goes_to_rest() {
    let server = Server::start(&["--room-idle", "50ms"]);
    const VISITS: usize = 60;
    const VISITORS: usize = 3;
    const PATHS: [&str; 3] = ["/", "/r/one", "/r/two"];
    let counted: Vec<i64> = thread::scope(|scope| {
        let visitors: Vec<_> = (0..PATHS.len() * VISITORS)
            .map(|visitor| {
                let server = &server;
                scope.spawn(move || {
                    // One room has all its visitors, so that their stays overlap, one has two, and
                    // one has a single one, so that it goes to rest between most visits.
                    let path = PATHS[[0, 0, 0, 0, 0, 0, 1, 1, 2][visitor]];
                    let mut random = visitor as u64 + 1;
                    for _ in 0..VISITS {
                        let mut client = server.client_in(path);
                        let before = client.first();
                        client.plus();
                        client.send(r#"{"action":"set","value":9007199254740992}"#);
                        // Its refusal says that the action before it is committed.
                        let mut told = client.next();
                        while told != Event::Error("out_of_range".to_owned()) {
                            let rises = matches!(told, Event::Users(_))
                                || matches!(told, Event::State(value) if value > before);
                            assert!(rises, "{told:?} after {before}");
                            told = client.next();
                        }
                        match next(&mut random) % 3 {
                            0 => client.close(),
                            1 => drop(client),
                            _ => support::raw::reset(client.into_stream()),
                        }
                        // Around the time after which a room goes to rest.
                        thread::sleep(Duration::from_millis(30 + next(&mut random) % 50));
                    }
                })
            })
            .collect();
        for visitor in visitors {
            visitor.join().unwrap();
        }
        let newcomers = PATHS.iter().map(|path| server.client_in(path).first());
        newcomers.collect()
    });
    let visits = VISITS as i64;
    assert_eq!(counted, [6 * visits, 2 * visits, visits]);
}

/// A linear congruential generator (Knuth's MMIX): pauses that differ, and the same in each run.
fn next(random: &mut u64) -> u64 {
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

#[test]
fn an_action_sent_with_the_farewell_counts_even_if_the_room_goes_to_rest_at_once() {
    let server = Server::start(&["--room-idle", "10ms"]);
    let act_and_close = [
        frame(TEXT, PLUS.as_bytes()),
        frame(support::raw::CLOSE, &[3, 232]),
    ];
    let act_and_close = act_and_close.concat();
    for turn in 0..50 {
        let mut client = Raw::join(server.port(), "/r/short");
        client.write(&act_and_close).unwrap();
        assert_eq!(
            client.read_to_end().last(),
            Some(&Event::Closed(Some(1000)))
        );
        let start = Instant::now();
        support::await_that("the action counts", || {
            server.client_in("/r/short").first() == turn + 1
        });
        thread::sleep(Duration::from_millis(
            start.elapsed().as_millis() as u64 % 20,
        ));
    }
}

#[test]
fn a_room_too_many_is_refused_until_another_has_gone_to_rest() {
    let server = Server::start(&["--max-rooms", "2", "--room-idle", "50ms"]);
    let mut first = server.client_in("/r/first");
    let second = server.client_in("/r/second");
    let mut third = support::open(server.port(), "/r/third").unwrap();
    assert_eq!(third.next(), Event::Error("overloaded".to_owned()));
    assert_eq!(third.expect_close(), Some(1013));
    let again = server.client_in("/r/second");
    first.plus();
    assert_eq!(first.next_state(), 1);
    drop((second, again));
    support::await_that("there is place for a third room", || {
        let mut third = support::open(server.port(), "/r/third").unwrap();
        third.next() == Event::Users(1)
    });
    first.plus();
    assert_eq!(first.next_state(), 2);
}
