//! What a client sends is made an action.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tallyroom::{
    Counter, Fields, Rejection,
    model::counter::CounterAction,
    protocol::{action_of, read_action, v1},
};

/// One message each; in `tallyroom.v1` it has its number.
pub fn classic_and_numbered(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    for (name, text) in [
        ("plus", r#"{"action":"plus"}"#),
        ("plus_by", r#"{"action":"plus","by":25}"#),
    ] {
        group.bench_function(format!("classic/{name}"), |b| {
            b.iter(|| read_action::<Counter>(black_box(text)).unwrap());
        });
    }
    for (name, text) in [
        ("plus", r#"{"action":"plus","n":4711}"#),
        ("plus_by", r#"{"action":"plus","by":25,"n":4711}"#),
    ] {
        group.bench_function(format!("numbered/{name}"), |b| {
            b.iter(|| numbered(black_box(text)).unwrap());
        });
    }
    group.finish();
}

/// As a session of `tallyroom.v1` reads it.
fn numbered(text: &str) -> Result<(u64, CounterAction), Rejection> {
    let mut fields = Fields::parse(text)?;
    let n = v1::take_number(&mut fields)?;
    Ok((n, action_of::<Counter>(&fields)?))
}
