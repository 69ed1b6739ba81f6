//! A journal in memory whose appends wait for a permit: what is in flight stays so until a test has
//! seen what it came for.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tallyroom::{
    entry::{Batch, Position},
    ids::RoomName,
    journal::{AppendError, Journal, ReadError, StoreFuture, memory::MemoryJournal},
};
use tokio::sync::Semaphore;

use super::{await_that, passing_on::pass_on};

pub struct HeldJournal {
    inner: MemoryJournal,
    gate: Semaphore,
    begun: AtomicUsize,
    /// What becomes of the next appends that are let through; after them all is well.
    failures: Mutex<VecDeque<AppendError>>,
}

impl HeldJournal {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryJournal::new(),
            gate: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            failures: Mutex::default(),
        })
    }

    /// Waits until so many appends have begun.
    pub fn await_appends(&self, count: usize) {
        await_that("the append begins", || {
            self.begun.load(Ordering::SeqCst) >= count
        });
    }

    /// Lets the next append that is let through fail, before it writes.
    pub fn fail(&self, why: AppendError) {
        self.failures.lock().unwrap().push_back(why);
    }

    /// Lets so many appends happen.
    pub fn release(&self, count: usize) {
        self.gate.add_permits(count);
    }
}

impl Journal for HeldJournal {
    pass_on!(inner: durability, id, open, snapshot_at, replay, save, restart, rooms);

    fn append<'a>(
        &'a self,
        room: &'a RoomName,
        batch: Arc<Batch>,
    ) -> StoreFuture<'a, Position, AppendError> {
        Box::pin(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            let failure = self.failures.lock().unwrap().pop_front();
            match failure {
                Some(why) => Err(why),
                None => self.inner.append(room, batch).await,
            }
        })
    }
}
