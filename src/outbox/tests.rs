use proptest::prelude::*;

use super::*;
use crate::{limits::MAX_EVENTS_BEHIND, presence::TELL_AT_ONCE};

fn states(numbers: std::ops::Range<u32>) -> StateFrames {
    let every: Vec<u8> = numbers.clone().flat_map(u32::to_be_bytes).collect();
    StateFrames {
        newest: Bytes::copy_from_slice(&every[every.len() - 4..]),
        every: every.into(),
        events: u64::from(numbers.end - numbers.start),
    }
}

/// As one batch has them for all kinds of sessions.
fn all(every: StateFrames) -> States {
    States {
        newest: Some(every.newest.clone()),
        every: Some(every),
    }
}

fn users(count: usize) -> UsersFrame {
    let frame = format!("users {count}").into();
    UsersFrame { count, frame }
}

fn enter(recent: &mut Recent) -> Outbox {
    enter_as(Takes::Every, recent)
}

fn enter_as(takes: Takes, recent: &mut Recent) -> Outbox {
    let mut outbox = Outbox::default();
    outbox.enter(recent, SessionId(1), takes, users(0), Bytes::new());
    outbox.clear_own();
    outbox
}

fn drain(outbox: &mut Outbox, recent: &mut Recent) -> Vec<u32> {
    let mut numbers = Vec::new();
    while let Some(frames) = outbox.next(Some(recent)) {
        if frames.starts_with(b"users") {
            continue;
        }
        let words = frames.chunks_exact(4);
        numbers.extend(words.map(|word| u32::from_be_bytes(word.try_into().unwrap())));
    }
    numbers
}

#[test]
fn a_newcomer_gets_users_and_then_the_state_and_no_count_twice() {
    let mut recent = Recent::new(None);
    recent.push_users(users(1));
    let mut outbox = Outbox::default();
    assert!(
        outbox.next(Some(&mut recent)).is_none(),
        "it is not let in yet"
    );
    outbox.enter(
        &mut recent,
        SessionId(1),
        Takes::Every,
        users(2),
        "state".into(),
    );
    recent.push_users(users(2));
    assert_eq!(outbox.next(Some(&mut recent)).unwrap(), "users 2");
    assert_eq!(outbox.next(Some(&mut recent)).unwrap(), "state");
    assert!(outbox.next(Some(&mut recent)).is_none());
    assert!(!outbox.is_behind(Some(&recent)));
}

#[test]
fn tiny_frames_of_its_own_count_with_what_it_takes_to_keep_them() {
    let mut outbox = Outbox::default();
    for _ in 0..1000 {
        outbox.push_own(Bytes::from_static(b"\x8a\0"));
    }
    assert!(outbox.own_bytes() > 50_000, "{}", outbox.own_bytes());
    while outbox.next(None).is_some() {}
    assert_eq!(outbox.own_bytes(), 0);
}

#[test]
fn every_count_of_a_small_room_is_told_and_of_a_crowded_one_the_newest() {
    let mut recent = Recent::new(None);
    let mut outbox = enter(&mut recent);
    for count in [2, 1, TELL_AT_ONCE] {
        recent.push_users(users(count));
    }
    let mut told = || outbox.next(Some(&mut recent));
    assert_eq!(told().unwrap(), "users 2");
    assert_eq!(told().unwrap(), "users 1");
    assert_eq!(told().unwrap(), "users 50");
    assert_eq!(told(), None);
    for count in [51, 52, 51] {
        recent.push_users(users(count));
    }
    assert_eq!(outbox.next(Some(&mut recent)).unwrap(), "users 51");
    assert_eq!(outbox.next(Some(&mut recent)), None);
    recent.push_users(users(52));
    recent.push_users(users(51));
    assert_eq!(
        outbox.next(Some(&mut recent)),
        None,
        "it was told that last"
    );
}

#[test]
fn who_fell_off_the_end_is_told_the_newest_state_and_then_the_newest_count() {
    let mut recent = Recent::new(Some(40));
    let mut outbox = enter(&mut recent);
    recent.push_users(users(3));
    recent.push_states(all(states(0..20)));
    assert_eq!(
        outbox.next(Some(&mut recent)).unwrap(),
        states(19..20).every
    );
    assert_eq!(outbox.next(Some(&mut recent)).unwrap(), "users 3");
    assert_eq!(outbox.next(Some(&mut recent)), None);
    assert!(recent.is_empty());
}

#[test]
fn who_keeps_up_gets_every_state_and_nothing_stays_behind() {
    let mut recent = Recent::new(Some(64));
    let mut outboxes = [enter(&mut recent), enter(&mut recent)];
    for number in 0..100 {
        recent.push_states(all(states(number..number + 1)));
        for outbox in &mut outboxes {
            assert_eq!(drain(outbox, &mut recent), [number]);
        }
        assert!(recent.is_empty());
    }
}

#[test]
fn who_takes_the_newest_state_is_told_it_once_and_costs_nothing_meanwhile() {
    let mut recent = Recent::new(None);
    let mut outbox = enter_as(Takes::Newest, &mut recent);
    assert!(!outbox.is_behind(Some(&recent)));
    for number in 0..10_000 {
        recent.push_states(all(states(number..number + 1)));
    }
    recent.push_users(users(2));
    recent.push_users(users(3));
    assert!(recent.is_empty() && outbox.is_behind(Some(&recent)));
    assert_eq!(
        outbox.next(Some(&mut recent)).unwrap(),
        states(9999..10_000).every
    );
    assert_eq!(outbox.next(Some(&mut recent)).unwrap(), "users 3");
    assert_eq!(outbox.next(Some(&mut recent)), None);
    let mut newcomer = enter_as(Takes::Newest, &mut recent);
    assert_eq!(
        newcomer.next(Some(&mut recent)),
        None,
        "from before it came"
    );
}

#[test]
fn who_is_4096_events_behind_gets_them_all_and_who_is_further_only_the_newest() {
    let mut recent = Recent::new(None);
    let (mut slow, mut slower) = (enter(&mut recent), enter(&mut recent));
    recent.push_states(all(states(0..1)));
    assert_eq!(slow.next(Some(&mut recent)).unwrap().len(), 4);
    for number in 1..=4096 {
        recent.push_states(all(states(number..number + 1)));
    }
    assert_eq!(drain(&mut slower, &mut recent), [4096]);
    assert_eq!(
        drain(&mut slow, &mut recent),
        (1..=4096).collect::<Vec<_>>()
    );
    assert!(recent.is_empty());
}

#[test]
fn the_backlog_is_bounded_in_bytes_and_the_newest_chunk_is_always_kept() {
    let mut recent = Recent::new(Some(100));
    let mut outbox = enter(&mut recent);
    recent.push_states(all(states(0..1000)));
    assert_eq!(drain(&mut outbox, &mut recent).len(), 1000);
    for number in 0..1000 {
        recent.push_states(all(states(number..number + 1)));
        assert!(recent.kept().0 <= 100);
    }
    assert_eq!(drain(&mut outbox, &mut recent), [999]);
}

#[test]
fn merged_frames_keep_every_state_or_the_newest() {
    let mut merged = states(0..2);
    merged.append(states(2..4), 16);
    assert_eq!((merged.events, merged.every.len()), (4, 16));
    assert_eq!(merged.newest, states(3..4).every);
    merged.append(states(4..6), 16);
    assert_eq!((merged.events, merged.every.len()), (2, 8));
}

#[test]
fn a_count_that_was_told_already_keeps_nothing_that_nobody_waits_for() {
    let mut recent = Recent::new(None);
    let mut outbox = enter(&mut recent);
    recent.push_users(users(TELL_AT_ONCE));
    recent.push_users(users(TELL_AT_ONCE));
    while outbox.next(Some(&mut recent)).is_some() {}
    assert!(recent.is_empty());
}

proptest! {
    /// Whatever happens in whatever order: states only rise, the newest always comes, nothing
    /// is kept that nobody waits for, and nobody waits for what is gone.
    #[test]
    fn any_interleaving_ends_at_the_newest_state(steps in prop::collection::vec((0..6u8, 0..4usize, 1..9u32), 1..200)) {
        let mut recent = Recent::new(Some(40));
        let mut sessions: Vec<Option<(Outbox, i64)>> = (0..4).map(|_| None).collect();
        let mut last = -1;
        for (step, who, events) in steps {
            match (step, &mut sessions[who]) {
                (0, slot @ None) => {
                    let takes = [Takes::Every, Takes::Newest][who % 2];
                    *slot = Some((enter_as(takes, &mut recent), last));
                }
                (1, slot @ Some(_)) => slot.take().unwrap().0.leave(&mut recent),
                (2 | 3, _) => {
                    let from = (last + 1) as u32;
                    recent.push_states(all(states(from..from + events)));
                    last += i64::from(events);
                }
                (4, _) => recent.push_users(users(45 + events as usize)),
                (_, Some((outbox, seen))) => for number in drain(outbox, &mut recent) {
                    prop_assert!(i64::from(number) > *seen);
                    *seen = i64::from(number);
                },
                _ => {}
            }
        }
        for (outbox, seen) in sessions.iter_mut().flatten() {
            for number in drain(outbox, &mut recent) {
                prop_assert!(i64::from(number) > *seen);
                *seen = i64::from(number);
            }
            prop_assert_eq!(*seen, last);
            prop_assert!(!outbox.is_behind(Some(&recent)));
        }
        prop_assert!(recent.is_empty());
        prop_assert_eq!(recent.kept(), (0, 0));
    }
}

/// A server's frame with so long a payload.
fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0x81];
    match len {
        0..126 => frame.push(len as u8),
        126..65_536 => {
            frame.push(126);
            frame.extend((len as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.resize(frame.len() + len, number);
    frame
}

fn framed(numbers: std::ops::Range<u8>, len: usize) -> States {
    let frames: Vec<Vec<u8>> = numbers.map(|number| frame(number, len)).collect();
    let newest = Bytes::from(frames.last().unwrap().clone());
    States {
        every: Some(StateFrames {
            every: frames.concat().into(),
            newest: newest.clone(),
            events: frames.len() as u64,
        }),
        newest: Some(newest),
    }
}

/// Writes so many bytes at a time, and gives all that was written.
fn write(outbox: &mut Outbox, recent: &mut Recent, at_a_time: usize) -> Vec<u8> {
    let mut wire = Vec::new();
    while outbox.is_behind(Some(recent)) {
        let before = wire.len();
        for piece in outbox.upcoming(Some(recent)) {
            let left = at_a_time - (wire.len() - before);
            wire.extend(&piece[..piece.len().min(left)]);
        }
        outbox.wrote(Some(recent), wire.len() - before);
    }
    wire
}

/// The payloads of a row of frames, which are whole, by their first byte and length.
fn read(mut wire: &[u8]) -> Vec<(u8, usize)> {
    let mut read = Vec::new();
    while let [_, short, rest @ ..] = wire {
        let (len, rest) = match short {
            126 => (
                usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                &rest[2..],
            ),
            127 => {
                let (len, rest) = rest.split_first_chunk::<8>().unwrap();
                (u64::from_be_bytes(*len) as usize, rest)
            }
            _ => (usize::from(*short), rest),
        };
        assert!(rest[..len].iter().all(|byte| *byte == rest[0]));
        read.push((rest[0], len));
        wire = &rest[len..];
    }
    assert!(wire.is_empty());
    read
}

#[test]
fn whatever_a_socket_takes_at_a_time_frames_come_whole_and_in_order() {
    for len in [1, 125, 126, 65_535, 65_536] {
        for at_a_time in [1, 2, 3, 100, 128, 129, 1000, 70_000, usize::MAX] {
            if len / at_a_time > 1000 {
                continue;
            }
            for takes in [Takes::Every, Takes::Newest] {
                let mut recent = Recent::new(None);
                let mut outbox = enter_as(takes, &mut recent);
                outbox.push_own(frame(b'o', 3).into());
                recent.push_states(framed(0..3, len));
                recent.push_states(framed(3..4, len));
                let told = read(&write(&mut outbox, &mut recent, at_a_time));
                let states = match takes {
                    Takes::Every => vec![(0, len), (1, len), (2, len), (3, len)],
                    Takes::Newest => vec![(3, len)],
                };
                assert_eq!(told, [vec![(b'o', 3)], states].concat());
                assert!(recent.is_empty());
            }
        }
    }
}

#[test]
fn a_frame_that_is_cut_is_finished_first_and_what_is_behind_it_may_be_passed_over() {
    let mut recent = Recent::new(None);
    let mut outbox = enter(&mut recent);
    recent.push_states(framed(0..100, 10));
    outbox.wrote(Some(&mut recent), 12 + 5);
    assert_eq!(
        outbox.own,
        [[1; 7].to_vec()],
        "and nothing else is kept alive"
    );
    // A pong waits until the frame is whole; the states that nobody took are gone by then.
    outbox.push_own(frame(b'p', 1).into());
    for _ in 0..=MAX_EVENTS_BEHIND {
        recent.push_states(framed(200..201, 10));
    }
    let wire = write(&mut outbox, &mut recent, usize::MAX);
    assert_eq!(wire[..7], [1; 7]);
    assert_eq!(read(&wire[7..]), [(b'p', 1), (200, 10)]);
}

#[test]
fn between_two_frames_of_a_chunk_nothing_is_cut() {
    let mut recent = Recent::new(None);
    let mut outbox = enter(&mut recent);
    recent.push_states(framed(0..3, 10));
    outbox.wrote(Some(&mut recent), 12);
    assert!(outbox.own.is_empty() && outbox.is_behind(Some(&recent)));
    outbox.push_own(frame(b'p', 1).into());
    let told = read(&write(&mut outbox, &mut recent, usize::MAX));
    assert_eq!(told, [(b'p', 1), (1, 10), (2, 10)]);
    assert!(recent.is_empty());
}

#[test]
fn one_that_leaves_in_the_middle_of_a_chunk_keeps_nothing() {
    let mut recent = Recent::new(None);
    let mut outbox = enter(&mut recent);
    recent.push_states(framed(0..3, 10));
    outbox.wrote(Some(&mut recent), 13);
    outbox.leave(&mut recent);
    assert!(recent.is_empty());
    assert_eq!(outbox.upcoming(None).flatten().count(), 11);
}

#[test]
fn what_is_thrown_away_is_not_what_is_half_written() {
    let mut outbox = Outbox::default();
    outbox.push_own(frame(b'a', 10).into());
    outbox.push_own(frame(b'b', 10).into());
    outbox.wrote(None, 5);
    outbox.clear_own();
    outbox.push_own(frame(b'c', 1).into());
    let rest = write(&mut outbox, &mut Recent::new(None), usize::MAX);
    assert_eq!(rest[..7], [b'a'; 7]);
    assert_eq!(read(&rest[7..]), [(b'c', 1)]);
    assert_eq!(outbox.own_bytes(), 0);
    outbox.push_own(frame(b'd', 10).into());
    outbox.clear_own();
    assert!(!outbox.is_behind(None));
}
