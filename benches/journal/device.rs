//! What the disk itself can do: a loop that writes and syncs the same bytes in the same groups.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tallyroom::journal::disk::FILE;

/// The commits that a server made: how many entries and bytes each of them.
pub struct Groups(Vec<(u64, u64)>);

impl Groups {
    /// One row is a batch, and with one room a commit.
    pub fn of_folder(folder: &Path) -> Self {
        let database = Connection::open(folder.join("data").join(FILE)).unwrap();
        let groups = "SELECT rev - after_rev, octet_length(entries) + octet_length(id)
            + ifnull(octet_length(clients), 0) + ifnull(octet_length(after_id), 0)
            FROM batches ORDER BY rev, part";
        let mut groups = database.prepare(groups).unwrap();
        let group = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let groups = groups.query_map([], group).unwrap();
        Self(groups.collect::<Result<_, _>>().unwrap())
    }

    pub fn entries(&self) -> u64 {
        self.0.iter().map(|(entries, _)| entries).sum()
    }

    pub fn entries_per_group(&self) -> f64 {
        self.entries() as f64 / self.0.len() as f64
    }

    pub fn bytes_per_group(&self) -> f64 {
        let bytes: u64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        bytes as f64 / self.0.len() as f64
    }
}

/// A file that is as long as it will be, so that a sync writes no metadata.
pub struct Loop {
    file: File,
    at: u64,
}

impl Loop {
    const BYTES: usize = 64 << 20;

    pub fn new(folder: &Path) -> Self {
        let file = File::create(folder.join("loop")).unwrap();
        file.write_all_at(&vec![1; Self::BYTES], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, at: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.at as usize + bytes.len() > Self::BYTES {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += bytes.len() as u64;
    }

    /// Writes the groups over and over again, each time from another one on.
    pub fn actions_per_second(&mut self, groups: &Groups, span: Duration) -> f64 {
        let longest = groups.0.iter().map(|(_, bytes)| *bytes).max().unwrap();
        let bytes = vec![2; longest as usize];
        let start = Instant::now();
        let mut written = 0;
        let from = self.at as usize % groups.0.len();
        for (entries, length) in groups.0.iter().cycle().skip(from) {
            self.write(&bytes[..*length as usize]);
            written += entries;
            if start.elapsed() >= span {
                break;
            }
        }
        written as f64 / start.elapsed().as_secs_f64()
    }

    /// How long each write of so many bytes took.
    pub fn times(&mut self, bytes: usize, count: usize) -> Vec<Duration> {
        let bytes = vec![3; bytes];
        let time = |_| {
            let start = Instant::now();
            self.write(&bytes);
            start.elapsed()
        };
        (0..count).map(time).collect()
    }
}
