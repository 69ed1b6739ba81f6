//! How a batch stands in its row: as JSON, so that any tool reads it, and short, since it is most of
//! what a commit writes.
//!
//! `entries` is `[[0,17,{"action":"plus"}],…]`: the place of the client in `clients`, its number, the
//! action; `null` for who did not say. A fourth element says how many times it was asked for in a row,
//! number after number; a fifth the name and the number of the session, in rooms that have such. Revisions
//! go on from the batch before.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    entry::{Acting, Entry, Refusal},
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
    /// Where something cannot be written as JSON.
    pub fn of(entries: &[Entry], refusals: &[Refusal]) -> serde_json::Result<Self> {
        let (clients, entries) = encode(entries)?;
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

fn encode(entries: &[Entry]) -> serde_json::Result<(Vec<ClientId>, String)> {
    let mut clients = Vec::new();
    let mut places = HashMap::new();
    let mut last = None;
    let mut json = String::with_capacity(64 * entries.len());
    json.push('[');
    for run in runs(entries) {
        if json.len() > 1 {
            json.push(',');
        }
        let client = run[0].client.zip(run[0].n);
        let number = client.map(|(client, n)| {
            // Most of what one client asks for comes in a row.
            let (_, place) = match last {
                Some(known @ (same, _)) if same == client => known,
                _ => *last.insert((client, place_of(client, &mut places, &mut clients))),
            };
            (place, n)
        });
        push(&mut json, number, run)?;
    }
    json.push(']');
    Ok((clients, json))
}

fn place_of(
    client: ClientId,
    places: &mut HashMap<ClientId, usize>,
    clients: &mut Vec<ClientId>,
) -> usize {
    *places.entry(client).or_insert_with(|| {
        clients.push(client);
        clients.len() - 1
    })
}

/// What one client asked for several times in a row, number after number.
fn runs(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    entries.chunk_by(|one, next| {
        let follows = match (one.n, next.n) {
            (Some(n), Some(after)) => after == n + 1,
            (None, None) => true,
            _ => false,
        };
        let same = one.client == next.client && one.acting == next.acting;
        follows && same && one.action.get() == next.action.get()
    })
}

fn push(json: &mut String, number: Option<(usize, u64)>, run: &[Entry]) -> serde_json::Result<()> {
    let mut digits = itoa::Buffer::new();
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
    let Entry { action, acting, .. } = &run[0];
    json.push_str(action.get());
    if run.len() > 1 || acting.is_some() {
        json.push(',');
        json.push_str(digits.format(run.len()));
    }
    if let Some(acting) = acting {
        json.push(',');
        json.push_str(&serde_json::to_string(acting)?);
    }
    json.push(']');
    Ok(())
}

/// An element of `entries`.
#[derive(Deserialize)]
struct Run {
    place: Option<usize>,
    n: Option<u64>,
    action: Box<RawValue>,
    #[serde(default = "once")]
    times: u64,
    #[serde(default)]
    acting: Option<Box<Acting>>,
}

fn once() -> u64 {
    1
}

/// Reads what [`Columns`] wrote; `after` is the revision before the batch.
///
/// # Errors
///
/// Where it is no such JSON, names a client that is not there, or holds more than a batch may.
pub fn decode(
    after: Revision,
    clients: Option<&str>,
    entries: &str,
) -> Result<Vec<Entry>, serde_json::Error> {
    /// More than any batch holds: a damaged one must not fill the memory.
    const MOST: u64 = 1 << 20;
    let clients: Vec<ClientId> = clients.map_or(Ok(Vec::new()), serde_json::from_str)?;
    let runs: Vec<Run> = serde_json::from_str(entries)?;
    let mut entries = Vec::new();
    for run in runs {
        let unknown = || serde::de::Error::custom("an entry of a client that is not there");
        let client = run
            .place
            .map(|place| clients.get(place).ok_or_else(unknown));
        let client = client.transpose()?.copied();
        if run.times.saturating_add(entries.len() as u64) > MOST {
            return Err(serde::de::Error::custom(
                "more entries than a batch may hold",
            ));
        }
        entries.extend((0..run.times).map(|nth| Entry {
            // Each one's place comes below.
            rev: after,
            client,
            n: run.n.map(|n| n + nth),
            action: run.action.clone(),
            acting: run.acting.clone(),
        }));
    }
    for (rev, entry) in (after.0 + 1..).zip(&mut entries) {
        entry.rev = Revision(rev);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;

    fn entries(said: &[(Option<u128>, Option<u64>, u64)]) -> Vec<Entry> {
        let entry = |(rev, (client, n, action)): (u64, &(Option<u128>, Option<u64>, u64))| Entry {
            rev: Revision(rev),
            client: client.map(|id| ClientId(Uuid::from_u128(id))),
            n: *n,
            action: to_raw_value(action).unwrap(),
            acting: None,
        };
        (8..).zip(said).map(entry).collect()
    }

    #[track_caller]
    fn comes_back(said: &[(Option<u128>, Option<u64>, u64)], json: &str) {
        let entries = entries(said);
        let columns = Columns::of(&entries, &[]).unwrap();
        assert_eq!(columns.entries, json);
        let read = decode(Revision(7), columns.clients.as_deref(), &columns.entries).unwrap();
        let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.client).collect::<Vec<_>>();
        assert_eq!(ids(&read), ids(&entries));
        assert_eq!(format!("{read:?}"), format!("{entries:?}"));
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let (ann, bob) = (Some(1), Some(2));
        comes_back(&[], "[]");
        comes_back(
            &[
                (ann, Some(1), 8),
                (ann, Some(2), 9),
                (None, None, 9),
                (bob, Some(7), 5),
                (ann, Some(3), 5),
            ],
            "[[0,1,8],[0,2,9],[null,null,9],[1,7,5],[0,3,5]]",
        );
    }

    #[test]
    fn what_is_asked_for_again_and_again_is_written_once() {
        let (ann, bob) = (Some(1), Some(2));
        comes_back(
            &[
                (ann, Some(1), 5),
                (ann, Some(2), 5),
                (ann, Some(3), 5),
                (bob, Some(4), 5),
                (bob, Some(6), 5),
                (None, None, 5),
                (None, None, 5),
            ],
            "[[0,1,5,3],[1,4,5],[1,6,5],[null,null,5,2]]",
        );
    }

    #[test]
    fn who_acted_comes_back_with_it() {
        let mut entries = entries(&[(None, None, 5), (None, None, 5), (None, None, 5)]);
        for (entry, ordinal) in entries.iter_mut().zip([1, 1, 2]) {
            entry.acting = Some(Box::new(Acting {
                name: (ordinal == 2).then(|| "你".parse().unwrap()),
                ordinal: Some(ordinal),
            }));
        }
        let columns = Columns::of(&entries, &[]).unwrap();
        assert_eq!(
            columns.entries,
            r#"[[null,null,5,2,{"ordinal":1}],[null,null,5,1,{"name":"你","ordinal":2}]]"#
        );
        let read = decode(Revision(7), None, &columns.entries).unwrap();
        assert_eq!(format!("{read:?}"), format!("{entries:?}"));
    }

    #[test]
    fn what_was_never_written_is_not_read() {
        let ann = serde_json::to_string(&[ClientId(Uuid::from_u128(1))]).unwrap();
        let clients = Some(ann.as_str());
        for damaged in [
            "",
            "{}",
            "[[1,1,5]]",
            "[[0,1]]",
            "[[0,1,5,-1]]",
            "[[0,1,5,2000000]]",
            "[[0,1,5,18446744073709551615]]",
        ] {
            assert!(decode(Revision(7), clients, damaged).is_err(), "{damaged}");
        }
        assert!(decode(Revision(7), None, "[[0,1,5]]").is_err());
    }
}
