//! Verifies a data folder: that every room's journal is whole, and makes what its snapshots say.

use std::{collections::HashMap, fmt, path::Path, sync::Arc};

use crate::{
    entry::{Batch, Position, Remembered, Snapshot},
    ids::{ClientId, Revision, RoomName},
    journal::{
        ReadError,
        disk::{Inspection, Kept, OpenError},
    },
    limits::Limits,
    model::{Model, ModelId},
    replica::Replica,
    settled::may_go,
};

/// How many rooms and entries are read at a time.
const ROOMS: usize = 1000;
const ENTRIES: usize = 1000;

/// What was found in a sound room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    pub room: RoomName,
    pub epoch: String,
    /// The last revision, and the first whose entry is kept.
    pub last: Revision,
    pub first: Revision,
    /// Batches that are kept, snapshots among them, and clients that are remembered.
    pub batches: usize,
    pub snapshots: usize,
    pub clients: usize,
}

impl fmt::Display for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            room,
            epoch,
            last,
            first,
            batches,
            snapshots,
            clients,
        } = self;
        write!(f, "room {room}: sound, revision {}", last.0)?;
        match first > last {
            true => write!(f, ", no entries kept")?,
            false => write!(f, ", entries kept from {} on", first.0)?,
        }
        write!(
            f,
            ", {batches} batches, {snapshots} snapshots, {clients} clients, epoch {epoch}"
        )
    }
}

/// A folder cannot be checked, or is damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the folder cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("the database is damaged: {0}")]
    Database(String),
    #[error("room {room} is damaged at revision {}: {what}", rev.0)]
    Room {
        room: RoomName,
        rev: Revision,
        what: String,
    },
}

/// Checks every room of a folder, and tells each that is sound; changes nothing, and may be done
/// while a server has the folder open.
///
/// Revisions go on without gaps, each batch names the one before it, each client's numbers follow
/// one another, and the entries make the states and settled numbers of the snapshots after them.
///
/// # Errors
///
/// [`CheckError`]: what is wrong first, after all else was checked and told.
pub fn check<M: Model>(
    folder: &Path,
    mut tell: impl FnMut(&Result<Sound, CheckError>),
) -> Result<(), CheckError> {
    let inspection = Inspection::open(folder, ModelId::of::<M>())?;
    let found = inspection.integrity()?;
    if !found.is_empty() {
        return Err(CheckError::Database(found.join("; ")));
    }
    let mut damage = None;
    let mut after = None;
    loop {
        let rooms = inspection.rooms(after.as_ref(), ROOMS)?;
        let Some(last) = rooms.last().cloned() else {
            break;
        };
        for room in rooms {
            let checked = check_room::<M>(&inspection, room);
            tell(&checked);
            damage = damage.or(checked.err());
        }
        after = Some(last);
    }
    damage.map_or(Ok(()), Err)
}

fn check_room<M: Model>(inspection: &Inspection, room: RoomName) -> Result<Sound, CheckError> {
    let damaged = |rev, what: String| {
        let room = room.clone();
        CheckError::Room { room, rev, what }
    };
    let unreadable = |err: ReadError| damaged(Revision(0), err.to_string());
    let Some(kept) = inspection.kept(&room).map_err(unreadable)? else {
        return Err(damaged(Revision(0), "it is not there".to_owned()));
    };
    let mut walk = Walk::<M>::begin(inspection, &room, kept).map_err(|at| damaged(at.0, at.1))?;
    walk.finish().map_err(|at| damaged(at.0, at.1))?;
    let Walk {
        kept,
        batches,
        replica,
        ..
    } = walk;
    Ok(Sound {
        epoch: kept.start.epoch.0.to_string(),
        last: kept.end.rev,
        first: kept.begins.rev.next(),
        batches,
        snapshots: kept.snapshots.len(),
        clients: replica.map_or(0, |replica| replica.settled().len()),
        room,
    })
}

/// Damage, and the revision at which it shows.
type Damage = (Revision, String);

/// The way from the first batch that is kept to the last.
struct Walk<'a, M: Model> {
    inspection: &'a Inspection,
    room: &'a RoomName,
    kept: Kept,
    place: Position,
    batches: usize,
    /// What the batches make; `None` before the first snapshot of a journal whose beginning is gone.
    replica: Option<Replica<M>>,
    limits: Arc<Limits>,
}

impl<'a, M: Model> Walk<'a, M> {
    fn begin(inspection: &'a Inspection, room: &'a RoomName, kept: Kept) -> Result<Self, Damage> {
        // Forgetting is the server's to decide; here everybody is remembered for as long as may be.
        let limits = Arc::new(Limits {
            max_clients_per_room: None,
            ..Limits::default()
        });
        let at_start = kept.begins == kept.start && !kept.snapshots.contains(&kept.start);
        let mut walk = Self {
            inspection,
            room,
            place: kept.begins,
            batches: 0,
            replica: at_start.then(|| Replica::new(kept.start, limits.clone())),
            limits,
            kept,
        };
        let first = walk.kept.snapshots.first();
        if walk.replica.is_none() && first.is_none_or(|first| first.order() < walk.place.order()) {
            let what = "the entries before it are gone, and no snapshot holds them".to_owned();
            return Err((walk.place.rev.next(), what));
        }
        walk.compare()?;
        Ok(walk)
    }

    fn finish(&mut self) -> Result<(), Damage> {
        loop {
            let piece = self
                .inspection
                .replay(self.room, self.place, ENTRIES)
                // One by one, so that what cannot be read is named.
                .or_else(|_| self.inspection.replay(self.room, self.place, 1))
                .map_err(|err| (self.place.rev.next(), err.to_string()))?;
            if piece.is_empty() {
                break;
            }
            for batch in piece {
                self.pass(&batch)?;
                self.batches += 1;
                self.compare()?;
            }
        }
        let beyond = |snapshot: &&Position| snapshot.order() > self.place.order();
        match self.kept.snapshots.iter().find(beyond) {
            Some(snapshot) => Err((
                snapshot.rev,
                "a snapshot is of a place that the journal never came to".to_owned(),
            )),
            None => Ok(()),
        }
    }

    fn pass(&mut self, batch: &Batch) -> Result<(), Damage> {
        let next = self.place.rev.next();
        if batch.after != self.place {
            let what = "a batch does not name the one before it".to_owned();
            return Err((next, what));
        }
        if let Some(replica) = &mut self.replica {
            check_numbers(replica, batch)?;
            replica
                .replay(batch)
                .map_err(|err| (next, err.to_string()))?;
        }
        self.place = batch.end();
        Ok(())
    }

    /// Compares what the batches make with the snapshot that is kept here, if there is one.
    fn compare(&mut self) -> Result<(), Damage> {
        if !self.kept.snapshots.contains(&self.place) {
            return Ok(());
        }
        let rev = self.place.rev;
        let failed = |err: &dyn fmt::Display| (rev, err.to_string());
        let kept = self.inspection.snapshot(self.room, self.place);
        let kept = kept.map_err(|err| failed(&err))?;
        let Some(kept) = kept.filter(|kept| kept.position == self.place) else {
            return Err((rev, "its snapshot is of another place".to_owned()));
        };
        let restored = Replica::<M>::restore(&kept, self.limits.clone());
        let restored = restored.map_err(|err| failed(&err))?;
        if let Some(replica) = &self.replica {
            let made = replica.snapshot().map_err(|err| failed(&err))?;
            let kept = restored.snapshot().map_err(|err| failed(&err))?;
            differ(&made, &kept).map_or(Ok(()), |what| Err((rev, what)))?;
        } else {
            self.replica = Some(restored);
        }
        Ok(())
    }
}

/// Each client's numbers follow one another, unless it was forgotten in between.
fn check_numbers<M: Model>(replica: &Replica<M>, batch: &Batch) -> Result<(), Damage> {
    let mut numbers: Vec<_> = batch
        .entries
        .iter()
        .filter_map(|entry| Some((entry.client?, entry.n?)))
        .chain(batch.refusals.iter().map(|no| (no.client, no.refused.n)))
        .collect();
    numbers.sort_unstable();
    for (nth, (client, n)) in numbers.iter().enumerate() {
        let before = nth.checked_sub(1).map(|before| numbers[before]);
        let last = match before {
            Some((same, n)) if same == *client => n,
            _ => replica.settled().last(*client),
        };
        if *n != last + 1 && *n != 1 {
            let what = format!("number {n} of a client follows its number {last}");
            return Err((batch.after.rev.next(), what));
        }
    }
    Ok(())
}

/// In what two snapshots of one place differ.
fn differ(made: &Snapshot, kept: &Snapshot) -> Option<String> {
    if made.state.get() != kept.state.get() {
        return Some("the entries make another state than its snapshot holds".to_owned());
    }
    let by_client = |snapshot: &Snapshot| -> HashMap<ClientId, Remembered> {
        let settled = snapshot.settled.iter();
        settled.map(|one| (one.client, one.clone())).collect()
    };
    let (made_of, kept_of) = (by_client(made), by_client(kept));
    let unfounded = kept_of
        .values()
        .any(|one| made_of.get(&one.client) != Some(one));
    let lost = made_of
        .values()
        .any(|one| !kept_of.contains_key(&one.client) && !may_go(one, kept.at));
    let what = "the entries settle other numbers than its snapshot holds";
    (unfounded || lost).then(|| what.to_owned())
}
