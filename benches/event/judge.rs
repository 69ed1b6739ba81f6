//! A batch is judged on a copy of the state, and adopted as if it had been committed at once.

use std::{sync::Arc, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use tallyroom::{
    Counter,
    entry::Position,
    ids::{BatchId, ClientId, Epoch, Millis},
    limits::Limits,
    model::counter::CounterAction,
    replica::{Asked, Number, Replica, Verdict, Views},
};
use uuid::Uuid;

use super::BATCHES;

/// Who acts in a batch, in turns, where there are enough actions.
const CLIENTS: usize = 64;

/// Actions without numbers: nothing is remembered of who sent them.
pub fn classic(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge/classic");
    for actions in BATCHES {
        group.throughput(Throughput::Elements(actions as u64));
        group.bench_function(BenchmarkId::from_parameter(actions), |b| {
            let mut room = Room::new();
            let asked = vec![plus(None); actions];
            b.iter(|| room.judge_and_adopt(&asked));
        });
    }
    group.finish();
}

/// Numbered actions, each its client's next.
pub fn numbered(c: &mut Criterion) {
    let mut group = c.benchmark_group("judge/numbered");
    for actions in BATCHES {
        group.throughput(Throughput::Elements(actions as u64));
        group.bench_function(BenchmarkId::from_parameter(actions), |b| {
            let mut room = Room::new();
            let mut sent = 0;
            let mut next_batch = || {
                sent += actions;
                (sent - actions..sent).map(numbered_plus).collect()
            };
            let judge = |asked: Vec<_>| (room.judge_and_adopt(&asked), asked);
            b.iter_batched(&mut next_batch, judge, BatchSize::SmallInput);
        });
    }
    group.finish();
}

fn plus(number: Option<Number>) -> Asked<CounterAction> {
    Asked {
        number,
        action: Ok(CounterAction::Plus { by: 1 }),
        hold: Duration::ZERO,
        session: None,
        name: None,
    }
}

fn numbered_plus(nth: usize) -> Asked<CounterAction> {
    let client = ClientId(Uuid::from_u128(1 + (nth % CLIENTS) as u128));
    let n = 1 + (nth / CLIENTS) as u64;
    plus(Some(Number { client, n }))
}

/// What an owner has of its room.
pub struct Room {
    replica: Replica<Counter>,
    batches: u64,
}

impl Room {
    pub fn new() -> Self {
        let nowhere = Position::start(Epoch(Uuid::from_u128(1)));
        Self {
            replica: Replica::new(nowhere, Arc::new(Limits::default())),
            batches: 0,
        }
    }

    /// What clients see after each of so many actions.
    pub fn views_of(&mut self, actions: usize) -> Views {
        self.judge_and_adopt(&vec![plus(None); actions])
    }

    pub fn position(&self) -> Position {
        self.replica.position()
    }

    /// All of them must be accepted.
    fn judge_and_adopt(&mut self, asked: &[Asked<CounterAction>]) -> Views {
        self.batches += 1;
        let id = BatchId(Uuid::from_u128(self.batches.into()));
        let judged = self
            .replica
            .judge(None, asked, id, Millis(1_800_000_000_000));
        let last = judged.verdicts.last();
        assert!(matches!(last, Some(Verdict::Accepted(_))), "{last:?}");
        self.replica.adopt(judged).views
    }
}
