//! Says when actions are due, where a rate is asked for.
//!
//! The runtime's timers count whole milliseconds, which is more than many servers take for an action. So this is a
//! thread that sleeps by the kernel's clock.

use std::{
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::plan::Plan;

/// What is due within so little time is told together.
const LEAST: Duration = Duration::from_micros(50);
/// Looks so often whether anybody still listens.
const MOST: Duration = Duration::from_millis(100);

/// The thread, which ends when this is dropped or everything is due.
pub struct Pacer {
    due: Arc<Notify>,
}

impl Pacer {
    /// Starts it, where the plan has a rate.
    pub fn start(plan: &Plan, begun: Instant) -> Option<Self> {
        plan.rate?;
        let due = Arc::new(Notify::new());
        let (plan, theirs) = (plan.clone(), Arc::downgrade(&due));
        thread::spawn(move || tick(&plan, begun, &theirs));
        Some(Self { due })
    }

    /// Resolves when something may have become due since this was last called.
    pub async fn due(&self) {
        self.due.notified().await;
    }
}

fn tick(plan: &Plan, begun: Instant, due: &Weak<Notify>) {
    let mut told = 0;
    while let Some(due) = due.upgrade() {
        let now_due = plan.due_by(begun.elapsed());
        if now_due > told {
            told = now_due;
            due.notify_one();
        }
        if told == plan.actions {
            return;
        }
        drop(due);
        let next = plan.due(told).unwrap_or_default();
        thread::sleep(next.saturating_sub(begun.elapsed()).clamp(LEAST, MOST));
    }
}
