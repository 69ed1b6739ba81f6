//! The way of one event, in the parts that are pure: what a client sent is read, a batch is judged and
//! adopted, what it made is encoded, and the sessions take it. `benches/README.md` tells more.

#[path = "event/encode.rs"]
mod encode;
#[path = "event/judge.rs"]
mod judge;
#[path = "event/outbox.rs"]
mod outbox;
#[path = "event/parse.rs"]
mod parse;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// One action alone, as many as a busy room has at a time, and the most that a batch takes.
const BATCHES: [usize; 3] = [1, 64, tallyroom::limits::MAX_BATCH_ACTIONS];

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    targets =
        parse::classic_and_numbered,
        judge::classic,
        judge::numbered,
        encode::classic_and_v1,
        outbox::every,
        outbox::newest,
}
criterion_main!(benches);
