//! What a batch made is put on the wire, once for all sessions of a dialect.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use tallyroom::room::{Shown, every_state};

use super::{BATCHES, judge::Room};

/// In the classic dialect each state is an event; in `tallyroom.v1` the last one is, however many there are.
pub fn classic_and_v1(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let mut room = Room::new();
    // A room that is in use has a value of some digits.
    room.views_of(123_456);
    for actions in BATCHES {
        let views = room.views_of(actions);
        group.throughput(Throughput::Elements(actions as u64));
        group.bench_function(BenchmarkId::new("classic", actions), |b| {
            b.iter(|| every_state(black_box(&views).iter()));
        });
    }
    let views = room.views_of(1);
    let position = room.position();
    group.throughput(Throughput::Elements(1));
    group.bench_function("v1", |b| {
        b.iter(|| Shown::new(position, black_box(&views).get(0).to_vec()).v1());
    });
    group.finish();
}
