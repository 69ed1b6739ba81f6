//! What a batch changes for clients: what they see, and what they are told beside.

use super::views::Views;
use crate::{
    ids::SessionId,
    model::{By, Model, Tell},
    rejection::Rejection,
};

/// What the entries of a batch changed for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// One for each entry, in order.
    pub views: Views,
    /// In order, each with the session that asked for it, where there is one.
    pub tells: Vec<(Option<SessionId>, Tell)>,
}

/// How many there were at some time.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    views: usize,
    tells: usize,
}

impl Changes {
    /// Adds what an action changed, which has just made `state`.
    ///
    /// # Errors
    ///
    /// `internal` where the view cannot be written as JSON.
    pub fn push<M: Model>(
        &mut self,
        state: &M::State,
        action: &M::Action,
        by: &By,
        session: Option<SessionId>,
    ) -> Result<(), Rejection> {
        self.views.push(&M::view(state))?;
        let tells = M::tell(state, action, by);
        let tells = tells.into_iter().map(|tell| (session, tell));
        self.tells.extend(tells);
        Ok(())
    }

    pub fn len(&self) -> Length {
        Length {
            views: self.views.len(),
            tells: self.tells.len(),
        }
    }

    /// Takes back what was added since.
    pub fn truncate(&mut self, to: Length) {
        self.views.truncate(to.views);
        self.tells.truncate(to.tells);
    }
}
