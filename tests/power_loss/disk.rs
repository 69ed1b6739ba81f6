//! What a loss of power leaves of the files whose log `layer.c` kept.
//!
//! Durable is what was synced: a file's bytes by syncing the file, a name by syncing its folder. Of
//! what came after, any part may be there, in sectors and in any order.

use std::{
    collections::{BTreeMap, HashMap},
    fs, mem,
    ops::Range,
    path::Path,
};

use fastrand::Rng;

/// A part of the log: what the program asked for, in the order in which it was done.
pub struct Records<'a> {
    log: &'a [u8],
    at: usize,
}

#[derive(Debug)]
struct Record<'a> {
    operation: u32,
    file: u64,
    offset: i64,
    payload: &'a [u8],
}

const HEADER: usize = 24;

/// The number of the operation in `layer.c`.
const SYNC: u32 = 7;

impl<'a> Records<'a> {
    pub fn new(log: &'a [u8]) -> Self {
        Self { log, at: 0 }
    }

    fn next(&mut self) -> Option<Record<'a>> {
        let header = self.log.get(self.at..self.at + HEADER)?;
        let number = |range: Range<usize>| {
            let mut bytes = [0; 8];
            bytes[..range.len()].copy_from_slice(&header[range]);
            u64::from_le_bytes(bytes)
        };
        let payload = self.at + HEADER;
        self.at = payload + number(4..8) as usize;
        Some(Record {
            operation: number(0..4) as u32,
            file: number(8..16),
            offset: number(16..24) as i64,
            payload: &self.log[payload..self.at],
        })
    }
}

/// A moment between two operations.
#[derive(Clone, Copy)]
pub struct End {
    pub at: u64,
    /// Whether the operation before it synced a file.
    pub synced: bool,
}

/// Where the records of a log end.
pub fn ends(log: &[u8]) -> Vec<End> {
    let mut records = Records::new(log);
    let mut ends = Vec::new();
    while let Some(record) = records.next() {
        ends.push(End {
            at: records.at as u64,
            synced: record.operation == SYNC,
        });
    }
    ends
}

/// The files, as far as the log was followed.
#[derive(Default)]
pub struct Disk {
    files: Vec<File>,
    /// By the number that the file system gave, which may be given again.
    numbers: HashMap<u64, usize>,
    /// What survives, by path.
    names: BTreeMap<String, Node>,
    /// Changes to names that are not synced, oldest first.
    changes: Vec<Change>,
}

#[derive(Clone, Copy, Debug)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, Node),
    Unlink(String),
    Rename(String, String),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    /// What may or may not survive, oldest first.
    pending: Vec<(Write, Fate)>,
}

#[derive(Clone)]
enum Write {
    Bytes(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    /// Synced, above something that is doomed.
    Kept,
    /// A sync failed: the kernel takes it as written, and no later sync will write it.
    Doomed,
}

/// How much of what is not synced survives.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    sector: usize,
    /// Of all pending pieces: the chance of each, and from where to where all of them do.
    chance: f32,
    whole: (f32, f32),
    /// Whether files keep the length that they had, without the bytes.
    length: bool,
    /// What is in sectors that were never written.
    garbage: bool,
}

impl Loss {
    /// Nothing that was not synced.
    pub const ALL: Self = Self {
        sector: 512,
        chance: 0.0,
        whole: (0.0, 0.0),
        length: false,
        garbage: false,
    };

    /// All is there: a crash of the program and not of the machine.
    pub const NOTHING: Self = Self {
        chance: 1.0,
        ..Self::ALL
    };

    pub fn random(rng: &mut Rng) -> Self {
        let (one, other) = (rng.f32(), rng.f32());
        Self {
            sector: [512, 4096][rng.usize(..2)],
            chance: [0.0, 0.1, 0.5, 0.9, 1.0][rng.usize(..5)],
            whole: match rng.u8(..3) {
                0 => (0.0, one),
                1 => (one.min(other), one.max(other)),
                _ => (0.0, 0.0),
            },
            length: rng.bool(),
            garbage: rng.bool(),
        }
    }

    /// Whether the piece survives that is so far in what is pending, from 0 to 1.
    fn spares(self, rng: &mut Rng, place: f32) -> bool {
        (self.whole.0..self.whole.1).contains(&place) || rng.f32() < self.chance
    }
}

impl Disk {
    /// Follows the log up to there.
    pub fn follow(&mut self, records: &mut Records<'_>, until: u64) {
        while records.at < until as usize
            && let Some(record) = records.next()
        {
            self.take(&record);
        }
    }

    fn take(&mut self, record: &Record<'_>) {
        let path = || String::from_utf8(record.payload.to_vec()).unwrap();
        match record.operation {
            1 => {
                self.files.push(File::default());
                let file = self.files.len() - 1;
                self.numbers.insert(record.file, file);
                self.changes.push(Change::Link(path(), Node::File(file)));
            }
            2 => self.changes.push(Change::Link(path(), Node::Folder)),
            3 => self.changes.push(Change::Unlink(path())),
            4 => {
                let both = path();
                let (from, to) = both.split_once('\0').unwrap();
                self.changes
                    .push(Change::Rename(from.to_owned(), to.to_owned()));
            }
            5 => {
                let write = Write::Bytes(record.offset as usize, record.payload.to_vec());
                self.file(record).pending.push((write, Fate::Open));
            }
            6 => {
                let write = Write::Truncate(record.offset as usize);
                self.file(record).pending.push((write, Fate::Open));
            }
            SYNC => self.file(record).sync(),
            8 => self.sync_folder(&path()),
            9 => self.file(record).doom(),
            other => panic!("an operation {other}"),
        }
    }

    fn file(&mut self, record: &Record<'_>) -> &mut File {
        let file = self.numbers[&record.file];
        &mut self.files[file]
    }

    fn sync_folder(&mut self, folder: &str) {
        for change in mem::take(&mut self.changes) {
            match parent(change.path()) == folder {
                true => change.make(&mut self.names),
                false => self.changes.push(change),
            }
        }
    }

    /// Writes what a loss of power now would leave into an empty folder.
    pub fn restore(&self, rng: &mut Rng, loss: Loss, root: &Path) {
        let mut names = self.names.clone();
        let all = self.changes.len() as f32;
        for (nth, change) in self.changes.iter().enumerate() {
            if loss.spares(rng, nth as f32 / all) {
                change.make(&mut names);
            }
        }
        for (path, node) in names {
            let target = root.join(&path);
            // What is in a folder that is lost is lost with it.
            if !target.parent().unwrap().is_dir() {
                continue;
            }
            match node {
                Node::Folder => fs::create_dir(target).unwrap(),
                Node::File(file) => {
                    fs::write(target, self.files[file].left(rng, loss)).unwrap();
                }
            }
        }
    }
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _) => path,
        }
    }

    fn make(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Self::Link(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

impl File {
    fn sync(&mut self) {
        for (_, fate) in &mut self.pending {
            if *fate == Fate::Open {
                *fate = Fate::Kept;
            }
        }
        if self.pending.iter().all(|(_, fate)| *fate == Fate::Kept) {
            for (write, _) in mem::take(&mut self.pending) {
                write.make(&mut self.durable);
            }
        }
    }

    fn doom(&mut self) {
        for (_, fate) in &mut self.pending {
            if *fate == Fate::Open {
                *fate = Fate::Doomed;
            }
        }
    }

    fn left(&self, rng: &mut Rng, loss: Loss) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let all = self.pending.len() as f32;
        for (nth, (write, fate)) in self.pending.iter().enumerate() {
            let place = nth as f32 / all;
            match write {
                _ if *fate == Fate::Kept => write.make(&mut bytes),
                Write::Truncate(_) if loss.spares(rng, place) => write.make(&mut bytes),
                Write::Truncate(_) => {}
                Write::Bytes(offset, data) => {
                    for (at, piece) in sectors(*offset, data, loss.sector) {
                        match loss.spares(rng, place) {
                            true => put(&mut bytes, at, piece),
                            false if loss.length => {
                                lengthen(&mut bytes, at + piece.len(), rng, loss)
                            }
                            false => {}
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Write {
    fn make(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(offset, data) => put(bytes, *offset, data),
            Self::Truncate(length) => bytes.resize(*length, 0),
        }
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() < at + piece.len() {
        bytes.resize(at + piece.len(), 0);
    }
    bytes[at..at + piece.len()].copy_from_slice(piece);
}

fn lengthen(bytes: &mut Vec<u8>, to: usize, rng: &mut Rng, loss: Loss) {
    let from = bytes.len();
    if from < to {
        bytes.resize(to, 0);
        if loss.garbage {
            rng.fill(&mut bytes[from..]);
        }
    }
}

/// The parts of a write, each of which survives or not.
fn sectors(offset: usize, data: &[u8], sector: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut rest = (offset, data);
    std::iter::from_fn(move || {
        let (at, data) = rest;
        if data.is_empty() {
            return None;
        }
        let (piece, more) = data.split_at(data.len().min(sector - at % sector));
        rest = (at + piece.len(), more);
        Some((at, piece))
    })
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
