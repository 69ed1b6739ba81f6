//! What a room looks like to clients, revision by revision.

use serde::Serialize;

use crate::rejection::Rejection;

/// What a state looks like to clients at consecutive revisions, as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    json: Vec<u8>,
    ends: Vec<usize>,
}

impl Views {
    /// One alone, which is JSON.
    pub fn one(json: Vec<u8>) -> Self {
        let ends = vec![json.len()];
        Self { json, ends }
    }

    pub fn push(&mut self, view: &impl Serialize) -> Result<(), Rejection> {
        serde_json::to_writer(&mut self.json, view).map_err(|_| Rejection::internal())?;
        self.ends.push(self.json.len());
        Ok(())
    }

    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.json.truncate(self.ends.last().copied().unwrap_or(0));
    }

    /// The one after the entry of that place in the batch.
    ///
    /// # Panics
    ///
    /// If there are not so many.
    pub fn get(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.json[start..self.ends[nth]]
    }

    /// All of them, one directly behind the other.
    pub fn into_json(self) -> Vec<u8> {
        self.json
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.json[start..end])
    }
}
