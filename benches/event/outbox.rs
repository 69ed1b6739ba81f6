//! The sessions of one worker take what batches have for them, on both ways: whole frames, as the embedded transport
//! asks for them, and as they are written, which is the direct transport's. No socket takes them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tallyroom::{
    framing,
    ids::SessionId,
    limits::Limits,
    outbox::{Outbox, Recent, States, Takes, UsersFrame},
    protocol::classic,
    room::{Shown, every_state},
};

use super::judge::Room;

const SESSIONS: usize = 1000;
/// Of one batch.
const ACTIONS: usize = 64;
/// How many frames go into one write at most, as with the direct transport.
const PIECES: usize = 16;

/// How many batches there are before the sessions take anything.
const BEHIND: [usize; 2] = [1, 16];

const WAYS: [(&str, Way); 2] = [("next", take_whole), ("written", take_as_written)];
/// How a session takes all there is for it.
type Way = fn(&mut Outbox, &mut Recent);

/// Sessions that are told every state, as in the classic dialect.
pub fn every(c: &mut Criterion) {
    measure(c, "outbox/every", Takes::Every);
}

/// Sessions that are told the newest state, as in `tallyroom.v1`.
pub fn newest(c: &mut Criterion) {
    measure(c, "outbox/newest", Takes::Newest);
}

fn measure(c: &mut Criterion, name: &str, takes: Takes) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(SESSIONS as u64));
    let states = states();
    for (name, take) in WAYS {
        for batches in BEHIND {
            group.bench_function(BenchmarkId::new(name, batches), |b| {
                let mut recent = Recent::new(Limits::default().backlog_bytes);
                let mut sessions: Vec<_> =
                    (0..SESSIONS).map(|_| enter(&mut recent, takes)).collect();
                b.iter(|| {
                    for _ in 0..batches {
                        recent.push_states(states.clone());
                    }
                    for session in &mut sessions {
                        take(session, &mut recent);
                    }
                });
                assert!(recent.is_empty(), "something is left that nobody took");
            });
        }
    }
    group.finish();
}

/// What a batch has for all kinds of sessions.
fn states() -> States {
    let mut room = Room::new();
    let views = room.views_of(ACTIONS);
    let last = views.get(views.len() - 1).to_vec();
    States {
        every: Some(every_state(views.iter())),
        newest: Some(Shown::new(room.position(), last).v1()),
    }
}

/// A session that has been told all there was when it came.
fn enter(recent: &mut Recent, takes: Takes) -> Outbox {
    let users = UsersFrame {
        count: SESSIONS,
        frame: framing::text(&classic::users(SESSIONS)),
    };
    let mut outbox = Outbox::default();
    outbox.enter(recent, SessionId(1), takes, users.clone(), users.frame);
    outbox.clear_own();
    outbox
}

fn take_whole(outbox: &mut Outbox, recent: &mut Recent) {
    while let Some(frames) = outbox.next(Some(recent)) {
        black_box(frames);
    }
}

fn take_as_written(outbox: &mut Outbox, recent: &mut Recent) {
    loop {
        let pieces = outbox.upcoming(Some(recent)).take(PIECES);
        let bytes = pieces.map(|piece| black_box(piece).len()).sum();
        if bytes == 0 {
            return;
        }
        outbox.wrote(Some(recent), bytes);
    }
}
