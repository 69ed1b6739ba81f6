//! The copy of a state that a batch is judged on, on which the model's code runs.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::changes::Changes;
use crate::{
    ids::SessionId,
    model::{By, Model},
    rejection::Rejection,
};

/// The copy that a batch is judged on.
///
/// A model may change its state half-way and then refuse. The draft then goes back to the last
/// checkpoint, applies again what was accepted since, and makes a checkpoint there: so each action
/// is applied at most twice, however many are refused.
pub struct Draft<'a, M: Model> {
    base: &'a M::State,
    checkpoint: Option<M::State>,
    since_checkpoint: Vec<(&'a M::Action, By)>,
    state: M::State,
    changes: Changes,
    max_state_bytes: Option<usize>,
}

impl<'a, M: Model> Draft<'a, M> {
    pub fn new(base: &'a M::State, max_state_bytes: Option<usize>) -> Self {
        Self {
            base,
            checkpoint: None,
            since_checkpoint: Vec::new(),
            state: base.clone(),
            changes: Changes::default(),
            max_state_bytes,
        }
    }

    /// `session` is the one that asked.
    pub fn apply(
        &mut self,
        action: &'a M::Action,
        by: By,
        session: Option<SessionId>,
    ) -> Result<Box<RawValue>, Rejection> {
        let before = self.changes.len();
        let outcome = guarded(|| {
            M::apply(&mut self.state, action, &by)?;
            check_size(&self.state, self.max_state_bytes)?;
            self.changes.push::<M>(&self.state, action, &by, session)?;
            to_raw_value(action).map_err(|_| Rejection::internal())
        });
        match outcome {
            Ok(_) => self.since_checkpoint.push((action, by)),
            Err(_) => {
                self.changes.truncate(before);
                self.rewind();
            }
        }
        outcome
    }

    /// The state that the actions made, and what each of them changed for clients.
    pub fn into_parts(self) -> (M::State, Changes) {
        (self.state, self.changes)
    }

    fn rewind(&mut self) {
        let mut state = self.checkpoint.take().unwrap_or_else(|| self.base.clone());
        for (action, by) in self.since_checkpoint.drain(..) {
            // A model is deterministic, so what was accepted a moment ago is accepted again.
            let again = M::apply(&mut state, action, &by);
            debug_assert!(again.is_ok(), "a model is deterministic");
        }
        self.checkpoint = Some(state.clone());
        self.state = state;
    }
}

/// Runs a model's code; its panic is `internal`.
pub fn guarded<T>(run: impl FnOnce() -> Result<T, Rejection>) -> Result<T, Rejection> {
    // Whatever the code had in its hands is a copy that is thrown away after a panic.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(Rejection::internal()))
}

/// Whether a state may be so large.
///
/// # Errors
///
/// `too_large`
pub fn check_size(state: &impl Serialize, max: Option<usize>) -> Result<(), Rejection> {
    let Some(max) = max else {
        return Ok(());
    };
    let mut size = Size(0);
    serde_json::to_writer(&mut size, state).map_err(|_| Rejection::internal())?;
    if size.0 <= max {
        return Ok(());
    }
    let message =
        format!("the room's state may have {max} bytes (--max-state-bytes); nothing was changed");
    Err(Rejection::new("too_large", message))
}

/// Counts what would be written.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
