//! What a server keeps of a room, as an oracle reads it: by HTTP, or from the database itself.

use std::{collections::HashMap, path::Path};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};
use serde_json::Value;
use tallyroom::{check::check, journal::disk::FILE, model::counter::Counter};
use uuid::Uuid;

use super::{http::get, ledger::State};

/// Everything in the folder is sound.
pub fn check_folder(folder: &Path) {
    check::<Counter>(folder, |_| {}).unwrap();
}

/// A room's entries, oldest first, and what was before them.
#[derive(Debug, Default)]
pub struct Kept {
    /// The revision before the first entry, and the state at it.
    pub after: u64,
    pub state: State,
    /// Who was settled up to which number by then.
    settled: HashMap<Uuid, u64>,
    pub entries: Vec<Entry>,
}

/// An entry of a journal.
#[derive(Debug)]
pub struct Entry {
    pub rev: u64,
    pub client: Option<Uuid>,
    pub n: Option<u64>,
    pub action: Value,
    /// The value after it, where it was told.
    pub value: Option<i64>,
}

impl Kept {
    pub fn new(entries: Vec<Entry>) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }

    /// What a server tells of a room's journal.
    pub fn by_http(port: u16, room: &str) -> Self {
        let answer = get(port, &format!("/api/rooms/{room}/journal"));
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = String::from_utf8(answer.body).unwrap();
        let entry = |line| Entry::read(&serde_json::from_str(line).unwrap());
        Self::new(text.lines().map(entry).collect())
    }

    /// The last revision.
    pub fn end(&self) -> u64 {
        self.entries.last().map_or(self.after, |last| last.rev)
    }

    /// Up to which number of a client what it asked for is settled and dropped.
    pub fn settled_before(&self, client: Uuid) -> u64 {
        self.settled.get(&client).copied().unwrap_or(0)
    }

    /// What a database holds of a room; its journal begins with the oldest snapshot where older
    /// entries are dropped.
    pub fn in_folder(folder: &Path, room: &str) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database = Connection::open_with_flags(folder.join(FILE), flags).unwrap();
        let number = "SELECT room FROM rooms WHERE name = ?1";
        let number: Option<i64> = database
            .query_row(number, [room], |row| row.get(0))
            .optional()
            .unwrap();
        let Some(number) = number else {
            return Self::default();
        };
        let mut kept = Self::begin(&database, number);
        let batches = "SELECT after_rev, clients, entries, id, after_id FROM batches
            WHERE room = ?1 AND rev > ?2 ORDER BY rev, part";
        let mut batches = database.prepare(batches).unwrap();
        let mut rows = batches.query((number, kept.after)).unwrap();
        let mut before = None;
        while let Some(row) = rows.next().unwrap() {
            let (id, after): (String, Option<String>) = (row.get(3).unwrap(), row.get(4).unwrap());
            assert!(
                before.is_none() || before == after,
                "{id} follows another batch"
            );
            before = Some(id);
            kept.entries.extend(Entry::of_row(row));
        }
        kept
    }

    fn begin(database: &Connection, room: i64) -> Self {
        let first = "SELECT min(after_rev) FROM batches WHERE room = ?1";
        let first: Option<u64> = database.query_row(first, [room], |row| row.get(0)).unwrap();
        let oldest = "SELECT snapshot FROM snapshots WHERE room = ?1 AND (rev = 0 OR ?2 > 0)
            ORDER BY rev, part LIMIT 1";
        let oldest: Option<String> = database
            .query_row(oldest, (room, first.unwrap_or(0)), |row| row.get(0))
            .optional()
            .unwrap();
        let Some(oldest) = oldest else {
            return Self::default();
        };
        let snapshot: Value = serde_json::from_str(&oldest).unwrap();
        let settled = snapshot["settled"].as_array().unwrap().iter();
        let settled =
            settled.map(|known| (id(&known["client"]).unwrap(), known["n"].as_u64().unwrap()));
        Self {
            after: snapshot["position"]["rev"].as_u64().unwrap(),
            state: State::read(&snapshot["state"]),
            settled: settled.collect(),
            entries: Vec::new(),
        }
    }
}

impl Entry {
    /// The entries of a batch, as `row.rs` says that they stand there.
    fn of_row(row: &Row<'_>) -> Vec<Self> {
        let json = |column| {
            let text: Option<String> = row.get(column).unwrap();
            text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
        };
        let (after, clients, entries) = (row.get::<_, u64>(0).unwrap(), json(1), json(2));
        let entry = |(rev, (entry, nth)): (u64, (&Value, u64))| Self {
            rev,
            client: entry[0]
                .as_u64()
                .and_then(|place| id(&clients[place as usize])),
            n: entry[1].as_u64().map(|n| n + nth),
            action: entry[2].clone(),
            value: None,
        };
        let times = |run: &Value| run.get(3).map_or(1, |times| times.as_u64().unwrap());
        let runs = entries.as_array().unwrap().iter();
        let entries = runs.flat_map(|run| (0..times(run)).map(move |nth| (run, nth)));
        (after + 1..).zip(entries).map(entry).collect()
    }

    pub fn read(entry: &Value) -> Self {
        Self {
            rev: entry["rev"].as_u64().unwrap(),
            client: id(&entry["client"]),
            n: entry["n"].as_u64(),
            action: entry["action"].clone(),
            value: entry["value"].as_i64(),
        }
    }
}

fn id(id: &Value) -> Option<Uuid> {
    id.as_str().map(|id| id.parse().unwrap())
}
