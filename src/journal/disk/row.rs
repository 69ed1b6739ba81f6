//! How a batch stands in its row: as JSON, so that any tool reads it, and short, since it is most of
//! what a commit writes.
//!
//! `entries` is `[[0,17,{"action":"plus"}],…]`: the place of the client in `clients`, its number, the
//! action; `null` for who did not say. Revisions go on from the batch before.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::{
    entry::{Entry, Refusal},
    ids::{ClientId, Revision},
};

/// The columns that hold what a batch settles.
pub struct Columns {
    /// `None` where nobody said who it is.
    pub clients: Option<String>,
    pub entries: String,
    /// `None` where nothing was refused.
    pub refusals: Option<String>,
}

impl Columns {
    /// # Errors
    ///
    /// Where a refusal cannot be written as JSON.
    pub fn of(entries: &[Entry], refusals: &[Refusal]) -> serde_json::Result<Self> {
        let (clients, entries) = encode(entries);
        Ok(Self {
            clients: match clients.is_empty() {
                true => None,
                false => Some(serde_json::to_string(&clients)?),
            },
            entries,
            refusals: match refusals.is_empty() {
                true => None,
                false => Some(serde_json::to_string(refusals)?),
            },
        })
    }
}

fn encode(entries: &[Entry]) -> (Vec<ClientId>, String) {
    /// More than most entries need.
    const ENTRY: usize = 40;
    let mut clients = Vec::new();
    let mut places = HashMap::new();
    // What one client sent comes in a row.
    let mut last = None;
    let mut json = String::with_capacity(entries.len() * ENTRY);
    let mut digits = itoa::Buffer::new();
    for entry in entries {
        json.push(if json.is_empty() { '[' } else { ',' });
        let number = entry.client.zip(entry.n).map(|(client, n)| {
            let place = match last {
                Some((same, place)) if same == client => place,
                _ => *places.entry(client).or_insert_with(|| {
                    clients.push(client);
                    clients.len() - 1
                }),
            };
            last = Some((client, place));
            (place, n)
        });
        match number {
            Some((place, n)) => {
                json.push('[');
                json.push_str(digits.format(place));
                json.push(',');
                json.push_str(digits.format(n));
                json.push(',');
            }
            None => json.push_str("[null,null,"),
        }
        json.push_str(entry.action.get());
        json.push(']');
    }
    json.push_str(if json.is_empty() { "[]" } else { "]" });
    (clients, json)
}

type Stored = (Option<usize>, Option<u64>, Box<RawValue>);

/// Reads what [`Columns`] wrote; `after` is the revision before the batch.
///
/// # Errors
///
/// Where it is no such JSON, or names a client that is not there.
pub fn decode(
    after: Revision,
    clients: Option<&str>,
    entries: &str,
) -> Result<Vec<Entry>, serde_json::Error> {
    let clients: Vec<ClientId> = clients.map_or(Ok(Vec::new()), serde_json::from_str)?;
    let stored: Vec<Stored> = serde_json::from_str(entries)?;
    let entry = |(nth, (place, n, action)): (u64, Stored)| {
        let unknown = || serde::de::Error::custom("an entry of a client that is not there");
        let client = place.map(|place| clients.get(place).copied().ok_or_else(unknown));
        Ok(Entry {
            rev: Revision(after.0 + nth),
            client: client.transpose()?,
            n,
            action,
        })
    };
    (1..).zip(stored).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn entries_come_back_as_they_were() {
        let (ann, bob) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let said = [
            (Some(ann), Some(1)),
            (Some(ann), Some(2)),
            (None, None),
            (Some(bob), Some(7)),
            (Some(ann), Some(3)),
        ];
        let entries: Vec<_> = (8..)
            .zip(said)
            .map(|(rev, (client, n))| Entry {
                rev: Revision(rev),
                client: client.map(ClientId),
                n,
                action: to_raw_value(&rev).unwrap(),
            })
            .collect();
        let columns = Columns::of(&entries, &[]).unwrap();
        let json = "[[0,1,8],[0,2,9],[null,null,10],[1,7,11],[0,3,12]]";
        assert_eq!(columns.entries, json);
        let read = decode(Revision(7), columns.clients.as_deref(), &columns.entries).unwrap();
        assert_eq!(format!("{read:?}"), format!("{entries:?}"));
        let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.client).collect::<Vec<_>>();
        assert_eq!(ids(&read), ids(&entries));
        assert!(decode(Revision(7), Some("[]"), json).is_err());
        let none = Columns::of(&[], &[]).unwrap();
        assert_eq!((none.clients, none.entries.as_str()), (None, "[]"));
    }
}
