//! A journal in memory that fails as it is told to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::value::RawValue;
use tallyroom::{
    entry::{Batch, Entry, Position, Refusal, Snapshot},
    ids::{BatchId, ClientId, RoomName},
    journal::{AppendError, Journal, Opened, ReadError, StoreFuture, memory::MemoryJournal},
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    ledger::{Ledger, Planned},
    passing_on::pass_on,
};

pub struct Faulty {
    pub inner: Arc<MemoryJournal>,
    /// What becomes of the next appends; after them all is well.
    pub appends: Mutex<VecDeque<Fault>>,
    reads: Mutex<VecDeque<Fault>>,
    pub saves_fail: bool,
    /// An append takes a permit before it begins.
    pub gate: Semaphore,
    pub begun: AtomicUsize,
    /// A batch that the store was given, and did not say so, and writes later.
    late: Mutex<Option<Arc<Batch>>>,
    /// Another owner's only client.
    pub other: Mutex<Ledger>,
}

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Full,
    Unavailable,
    UnknownBefore,
    UnknownAfter,
    /// It is written when the next append has come.
    UnknownLate,
    /// It is in, another owner's batch is behind it, and the answer is lost.
    UnknownOvertaken,
    FailedBefore,
    FailedAfter,
    PanicBefore,
    PanicAfter,
    /// Another owner was first.
    Conflict,
    /// Another owner was first, and had the same client's same number.
    ConflictOfNumbers,
}

impl Fault {
    pub const ALL: [Self; 12] = [
        Self::Full,
        Self::Unavailable,
        Self::UnknownBefore,
        Self::UnknownAfter,
        Self::UnknownLate,
        Self::UnknownOvertaken,
        Self::FailedBefore,
        Self::FailedAfter,
        Self::PanicBefore,
        Self::PanicAfter,
        Self::Conflict,
        Self::ConflictOfNumbers,
    ];
}

pub const OPEN: usize = 1_000_000;

impl Faulty {
    pub fn new(appends: &[Fault]) -> Arc<Self> {
        Self::on(Arc::new(MemoryJournal::new()), appends)
    }

    /// One owner's way to a journal that others have, too.
    pub fn on(inner: Arc<MemoryJournal>, appends: &[Fault]) -> Arc<Self> {
        Arc::new(Self {
            inner,
            appends: Mutex::new(appends.iter().copied().collect()),
            reads: Mutex::default(),
            saves_fail: false,
            gate: Semaphore::new(OPEN),
            begun: AtomicUsize::new(0),
            late: Mutex::default(),
            other: Mutex::new(Ledger::new(Uuid::new_v4())),
        })
    }

    pub fn fail_reads(&self, faults: &[Fault]) {
        self.reads.lock().unwrap().extend(faults);
    }

    fn read_fault(&self) -> Result<(), ReadError> {
        match self.reads.lock().unwrap().pop_front() {
            None => Ok(()),
            Some(fault) => Err(ReadError::Unavailable(format!("{fault:?}, on purpose"))),
        }
    }

    /// Another owner appends an action of its own client.
    async fn append_other(&self, room: &RoomName, like: &Batch) {
        let (client, n) = {
            let mut other = self.other.lock().unwrap();
            (other.client, other.plan(Planned::plus(100)))
        };
        let action = RawValue::from_string(Planned::plus(100).body()).unwrap();
        let entry = (Some(ClientId(client)), Some(n), action);
        let end = self.append_one(room, like, entry).await;
        self.other.lock().unwrap().settle(n, end.rev.0);
    }

    /// Another owner appends the first entry of a batch, as the same client asked it for it; unless its
    /// number is settled or is not the client's next.
    async fn append_same(&self, room: &RoomName, batch: &Batch) {
        let settled = self.settled(room).await;
        let is_next = |first: &&Entry| {
            let last = first
                .client
                .and_then(|client| settled.get(&client).copied());
            first.n == Some(last.unwrap_or(0) + 1)
        };
        match batch.entries.first().filter(is_next) {
            Some(first) => {
                let entry = (first.client, first.n, first.action.clone());
                self.append_one(room, batch, entry).await;
            }
            None => self.append_other(room, batch).await,
        }
    }

    /// The last number of each client that is in.
    async fn settled(&self, room: &RoomName) -> HashMap<ClientId, u64> {
        let start = self.inner.open(room).await.unwrap().start;
        let batches = self.inner.replay(room, start, usize::MAX).await.unwrap();
        let mut settled = HashMap::new();
        let mut settle = |client, n: u64| {
            let last = settled.entry(client).or_insert(0);
            *last = n.max(*last);
        };
        for batch in batches {
            for entry in &batch.entries {
                settle(entry.client.unwrap(), entry.n.unwrap());
            }
            for Refusal { client, refused } in &batch.refusals {
                settle(*client, refused.n);
            }
        }
        settled
    }

    async fn append_one(
        &self,
        room: &RoomName,
        like: &Batch,
        (client, n, action): (Option<ClientId>, Option<u64>, Box<RawValue>),
    ) -> Position {
        let after = self.inner.open(room).await.unwrap().end;
        let batch = Batch {
            id: BatchId(Uuid::new_v4()),
            after,
            at: like.at,
            version: like.version,
            entries: vec![Entry {
                rev: after.rev.next(),
                client,
                n,
                action,
                acting: None,
            }],
            refusals: Vec::new(),
        };
        self.inner.append(room, Arc::new(batch)).await.unwrap()
    }
}

impl Journal for Faulty {
    pass_on!(inner: durability, id, replay, snapshot_at, restart, rooms);

    fn append<'a>(
        &'a self,
        room: &'a RoomName,
        batch: Arc<Batch>,
    ) -> StoreFuture<'a, Position, AppendError> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            let late = self.late.lock().unwrap().take();
            if let Some(late) = late {
                // It may be too late for it.
                let _ = self.inner.append(room, late).await;
            }
            let fault = self.appends.lock().unwrap().pop_front();
            let why = || "on purpose".to_owned();
            match fault.unwrap_or(Fault::None) {
                Fault::None => {}
                Fault::Full => return Err(AppendError::Full),
                Fault::Unavailable => return Err(AppendError::Unavailable(why())),
                Fault::UnknownBefore => return Err(AppendError::Unknown(why())),
                Fault::UnknownAfter => {
                    self.inner.append(room, batch).await?;
                    return Err(AppendError::Unknown(why()));
                }
                Fault::UnknownLate => {
                    *self.late.lock().unwrap() = Some(batch);
                    return Err(AppendError::Unknown(why()));
                }
                Fault::UnknownOvertaken => {
                    self.inner.append(room, batch.clone()).await?;
                    self.append_other(room, &batch).await;
                    return Err(AppendError::Unknown(why()));
                }
                Fault::FailedBefore => return Err(AppendError::Failed(why())),
                Fault::FailedAfter => {
                    self.inner.append(room, batch).await?;
                    return Err(AppendError::Failed(why()));
                }
                Fault::PanicBefore => panic!("on purpose, in the store"),
                Fault::PanicAfter => {
                    self.inner.append(room, batch).await?;
                    panic!("on purpose, in the store that has written");
                }
                Fault::Conflict => self.append_other(room, &batch).await,
                Fault::ConflictOfNumbers => self.append_same(room, &batch).await,
            }
            self.inner.append(room, batch).await
        })
    }

    fn open<'a>(&'a self, room: &'a RoomName) -> StoreFuture<'a, Opened, ReadError> {
        Box::pin(async move {
            self.read_fault()?;
            self.inner.open(room).await
        })
    }

    fn save<'a>(
        &'a self,
        room: &'a RoomName,
        snapshot: Snapshot,
    ) -> StoreFuture<'a, (), ReadError> {
        if self.saves_fail {
            let err = ReadError::Unavailable("on purpose".to_owned());
            return Box::pin(std::future::ready(Err(err)));
        }
        self.inner.save(room, snapshot)
    }
}
