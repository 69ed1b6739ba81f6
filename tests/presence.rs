//! Who is here: whoever comes is counted, and whoever goes, however that happens, is not.

mod support;

use std::{
    net::Shutdown,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use support::{
    Client, Event, PATIENCE, PLUS, Server,
    raw::{self, Raw, TEXT, frame, header},
};

#[test]
fn joins_and_leaves_are_told_to_those_who_are_there() {
    let server = Server::start(&[]);
    let mut ann = server.client();
    let mut bob = support::open(server.port(), "/").unwrap();
    assert_eq!(bob.next(), Event::Users(2));
    assert_eq!(ann.next(), Event::Users(2));
    let mut cid = server.client();
    assert_eq!(ann.next(), Event::Users(3));
    bob.expect_users(3);
    bob.close();
    assert_eq!(ann.next(), Event::Users(2));
    assert_eq!(cid.next(), Event::Users(2));
    ann.close();
    assert_eq!(cid.next(), Event::Users(1));
}

/// One that came and went between two looks at the outbox of another was never told to it.
#[test]
fn the_shortest_visit_is_told_to_those_who_are_there() {
    const VISITS: usize = 100;
    let server = Server::start(&[]);
    let mut witness = server.client();
    for _ in 0..VISITS {
        drop(Raw::open(server.port(), "/"));
    }
    // Visits may overlap, but each coming and each going is told.
    let mut last = 1;
    for _ in 0..2 * VISITS {
        match witness.next() {
            Event::Users(count) => {
                assert_eq!(count.abs_diff(last), 1, "{last} and then {count}");
                last = count;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(last, 1);
}

/// A newcomer was told how many there were before it came, after how many there are with it.
#[test]
fn a_newcomer_is_not_told_an_older_count_than_the_one_that_it_came_with() {
    let server = Server::start(&[]);
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..60 {
        clients.push(server.client());
    }
    let all = clients.len();
    for (others, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.users, others + 1);
        if client.users < all {
            let told = client.expect_users(all);
            assert!(told[0] > client.users, "{} and then {told:?}", client.users);
            assert!(told.is_sorted_by(|one, next| one < next), "{told:?}");
        }
    }
    let mut last = clients.pop().unwrap();
    last.plus();
    assert_eq!(last.next(), Event::State(1));
}

#[test]
fn whoever_leaves_in_whatever_way_leaves_no_ghost() {
    let server = Server::start(&[]);
    let mut witness = server.client();
    let half_a_message = |client: &mut Raw| {
        let message = frame(TEXT, PLUS.as_bytes());
        client.write(&message[..9]).unwrap();
    };
    let ways: [(&str, &dyn Fn(Raw)); 9] = [
        ("a close frame", &|mut client| {
            client.write(&frame(raw::CLOSE, &[0x03, 0xe8])).unwrap();
            client.read_to_end();
        }),
        ("a close frame and nothing read", &|mut client| {
            client.write(&frame(raw::CLOSE, &[0x03, 0xe8])).unwrap();
        }),
        ("the end of the connection", &drop),
        ("a reset", &Raw::reset),
        ("the end of what it sends", &|client| {
            client.stream.shutdown(Shutdown::Write).unwrap();
            // It stays open on this side until the server has ended it.
            let mut client = client;
            client.read_to_end();
        }),
        ("its end in the middle of a message", &|mut client| {
            half_a_message(&mut client);
        }),
        ("a reset in the middle of a message", &|mut client| {
            half_a_message(&mut client);
            client.reset();
        }),
        ("a reset in the middle of a large frame", &|mut client| {
            client.write(&header(TEXT, 60_000)).unwrap();
            client.write(&[0; 30_000]).unwrap();
            client.reset();
        }),
        ("a reset with actions underway", &|mut client| {
            client
                .write(&frame(TEXT, br#"{"action":"reset"}"#).repeat(100))
                .unwrap();
            client.reset();
        }),
    ];
    for (name, leave) in ways {
        let client = Raw::join(server.port(), "/");
        witness.expect_users(2);
        leave(client);
        assert_eq!(witness.expect_users(1), [1], "{name}");
    }
}

#[test]
fn one_that_is_gone_before_it_is_let_in_leaves_no_ghost() {
    let server = Server::start(&[]);
    let mut witness = server.client();
    for _ in 0..50 {
        Raw::open(server.port(), "/").reset();
        drop(Raw::open(server.port(), "/"));
    }
    let last = server.client();
    // The count is 2 whenever one of them is let in, too: what counts is where it ends.
    drop(last);
    ends_at(&mut witness, &server, 1);
}

/// Waits until a newcomer is told that it is one more than `count`.
fn ends_at(witness: &mut Client, server: &Server, count: usize) {
    support::await_that("no ghost is left", || {
        let mut newcomer = support::open(server.port(), "/").unwrap();
        let told = newcomer.next();
        newcomer.close();
        told == Event::Users(count + 1)
    });
    witness.expect_users(count);
}

#[test]
fn a_silent_peer_is_taken_as_gone_and_one_that_answers_pings_stays() {
    let server = Server::start(&["--heartbeat", "300ms"]);
    let mut witness = server.client();
    let silent = Raw::join(server.port(), "/");
    witness.expect_users(2);
    let start = Instant::now();
    assert_eq!(witness.expect_users(1), [1]);
    assert!(
        start.elapsed() >= Duration::from_millis(500),
        "it was not asked"
    );
    drop(silent);
    // The witness did nothing but answer pings; it still counts and is counted.
    let start = Instant::now();
    let mut pings = 0;
    let mut idle = Raw::join(server.port(), "/");
    while pings < 5 {
        let (opcode, payload) = idle.next_frame().unwrap();
        if opcode == 9 {
            pings += 1;
            idle.write(&frame(raw::PONG, &payload)).unwrap();
        }
        assert!(start.elapsed() < PATIENCE);
    }
    idle.write(&frame(TEXT, PLUS.as_bytes())).unwrap();
    assert_eq!(idle.next(), Event::State(1));
}

#[test]
fn a_client_that_acts_all_the_time_is_not_asked_whether_it_is_there() {
    let server = Server::start(&["--heartbeat", "1s"]);
    let mut busy = Raw::join(server.port(), "/");
    let start = Instant::now();
    let mut value = 0;
    while start.elapsed() < Duration::from_millis(2500) {
        busy.write(&frame(TEXT, PLUS.as_bytes())).unwrap();
        value += 1;
        // It answers no ping, and would be out by now.
        assert_eq!(busy.next(), Event::State(value));
    }
}

#[test]
fn nobody_is_told_the_same_count_twice_in_a_row() {
    let server = Server::start(&[]);
    let mut witness = server.client();
    let (tell, told) = mpsc::channel();
    let reading = thread::spawn(move || {
        loop {
            match witness.next() {
                Event::Users(count) => tell.send(count).unwrap(),
                Event::State(_) => return,
                other => panic!("{other:?}"),
            }
        }
    });
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..40 {
                    match turn % 3 {
                        0 => server.client().close(),
                        1 => drop(server.client()),
                        _ => Raw::open(server.port(), "/").reset(),
                    }
                }
            });
        }
    });
    let mut last = server.client();
    last.plus();
    reading.join().unwrap();
    let counts: Vec<usize> = std::iter::once(1).chain(told).collect();
    assert!(
        counts.windows(2).all(|pair| pair[0] != pair[1]),
        "{counts:?}"
    );
}

#[test]
fn two_hundred_joins_cost_far_fewer_counts_than_one_for_each_pair() {
    const JOINS: usize = 200;
    let server = Server::start(&[]);
    let mut streams: Vec<_> = (0..JOINS)
        .map(|_| support::connect(("127.0.0.1", server.port())))
        .collect();
    for stream in &mut streams {
        Raw::ask(stream, "/");
    }
    let mut all = 0;
    let mut clients = Vec::new();
    for stream in streams {
        let mut client = Raw::answered(stream);
        let mut counts = Vec::new();
        while counts.last() != Some(&JOINS) {
            match client.next() {
                Event::Users(count) => counts.push(count),
                Event::State(0) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(
            counts.windows(2).all(|pair| pair[0] != pair[1]),
            "{counts:?}"
        );
        all += counts.len();
        clients.push(client);
    }
    let each_pair = JOINS * JOINS / 2;
    assert!(all < each_pair / 2, "{all} counts were told");
    clients.truncate(1);
    while clients[0].next() != Event::Users(1) {}
}
