//! `GET /api/rooms/{room}/journal?since=REV&limit=N`: what happened in a room, oldest first.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    error::ErrorInternalServerError,
    http::{
        StatusCode,
        header::{Accept, Header},
    },
    web::{self, Bytes},
};
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    context::{Api, Place, is_admin, room_name},
    query::Parameters,
};
use crate::{
    entry::{Batch, Entry, Position},
    http::problem::Problem,
    ids::{ClientId, Millis, Revision, RoomName},
    journal::{Journal, Opened, ReadError},
    model::Model,
    rejection::Rejection,
    replica::{History, Views},
};

/// How many entries are read at a time.
const PIECE: usize = 1000;

/// The entries after a revision, as JSON Lines or CSV.
pub async fn get<M: Model>(
    request: HttpRequest,
    api: web::Data<Api<M>>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let reading = open(&request, &api, &name).await?;
    let format = reading.format;
    let lines = stream::unfold(reading, |mut reading| async {
        let piece = reading.next_piece().await?;
        Some((piece, reading))
    });
    Ok(HttpResponse::Ok()
        .content_type(format.content_type())
        .streaming(lines))
}

/// A journal that is being read.
struct Reading<M: Model> {
    journal: Arc<dyn Journal>,
    room: RoomName,
    format: Format,
    alias: Alias,
    /// Makes the values, where the model wants them.
    history: Option<History<M>>,
    position: Position,
    /// Already read.
    batches: VecDeque<Arc<Batch>>,
    since: Revision,
    /// Where the journal ended when it was asked for.
    until: Revision,
    /// How many entries may yet be told.
    left: u64,
    begun: bool,
    _place: Place,
}

async fn open<M: Model>(
    request: &HttpRequest,
    api: &Api<M>,
    name: &str,
) -> Result<Reading<M>, Problem> {
    let room = room_name(name)?;
    let query = Parameters::of(request)?;
    let since = Revision(query.number("since", 0)?.unwrap_or(0));
    let left = query.number("limit", 1)?.unwrap_or(u64::MAX);
    let alias = Alias {
        store: api.journal.id(),
        admin: is_admin(request),
    };
    let place = api.read()?;
    let begun = begin(&*api.journal, &room, since).await;
    let Begun {
        history,
        batches,
        position,
        until,
    } = begun.map_err(|err| unreadable(&room, &err))?;
    Ok(Reading {
        journal: api.journal.clone(),
        room,
        format: Format::of(request),
        alias,
        history,
        position,
        batches: batches.into(),
        since,
        until,
        left,
        begun: false,
        _place: place,
    })
}

struct Begun<M: Model> {
    history: Option<History<M>>,
    batches: Vec<Arc<Batch>>,
    position: Position,
    until: Revision,
}

/// From the newest snapshot that does not pass over an entry that is asked for.
async fn begin<M: Model>(
    journal: &dyn Journal,
    room: &RoomName,
    since: Revision,
) -> Result<Begun<M>, ReadError> {
    // What a snapshot remembers of clients is much, and not wanted.
    let Opened { start, end, .. } = journal.open(room).await?;
    let (position, history) = match journal.snapshot_at(room, since).await? {
        None => (start, M::JOURNAL_VALUE.then(|| History::new(start))),
        Some(snapshot) => {
            let damaged = |err| ReadError::Damaged(format!("{err}"));
            let history = M::JOURNAL_VALUE.then(|| History::restore(&snapshot).map_err(damaged));
            (snapshot.position, history.transpose()?)
        }
    };
    Ok(Begun {
        history,
        batches: journal.replay(room, position, PIECE).await?,
        position,
        until: end.rev,
    })
}

impl<M: Model> Reading<M> {
    /// The next lines; `None` at the end. An error cuts the answer, so that nobody takes it as whole.
    async fn next_piece(&mut self) -> Option<Result<Bytes, Error>> {
        let mut lines = Vec::new();
        if !self.begun {
            self.begun = true;
            lines = self.format.head::<M>();
        }
        while lines.is_empty() {
            if self.batches.is_empty() && !self.is_at_end() {
                let read = self.journal.replay(&self.room, self.position, PIECE).await;
                match read {
                    Ok(batches) => self.batches.extend(batches),
                    Err(err) => return Some(Err(broken(&self.room, &err))),
                }
            }
            if self.batches.is_empty() || self.is_at_end() {
                return None;
            }
            if let Err(err) = self.tell_batches(&mut lines) {
                return Some(Err(broken(&self.room, &err)));
            }
        }
        Some(Ok(lines.into()))
    }

    fn is_at_end(&self) -> bool {
        self.left == 0 || self.position.rev >= self.until
    }

    fn tell_batches(&mut self, lines: &mut Vec<u8>) -> Result<(), String> {
        while let Some(batch) = self.batches.pop_front() {
            let views = match &mut self.history {
                Some(history) => {
                    let changes = history.replay(&batch);
                    changes.map_err(|err| err.to_string())?.views
                }
                None => Views::default(),
            };
            for (nth, entry) in batch.entries.iter().enumerate() {
                let told = entry.rev > self.since && entry.rev <= self.until && self.left > 0;
                if told {
                    self.left -= 1;
                    let value = (!views.is_empty()).then(|| views.get(nth));
                    self.tell(entry, batch.at, value, lines)?;
                }
            }
            self.position = batch.end();
        }
        Ok(())
    }

    fn tell(
        &self,
        entry: &Entry,
        at: Millis,
        value: Option<&[u8]>,
        lines: &mut Vec<u8>,
    ) -> Result<(), String> {
        let value = value.map(serde_json::from_slice::<&RawValue>).transpose();
        let line = Line {
            rev: entry.rev.0,
            at: humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0))
                .to_string(),
            client: entry.client.map(|client| self.alias.of(client)),
            n: entry.n,
            action: &entry.action,
            value: value.map_err(|err| err.to_string())?,
        };
        self.format.write(&line, lines)
    }
}

/// By which name a client stands in the journal.
#[derive(Clone, Copy)]
struct Alias {
    store: Uuid,
    /// Sees the ids.
    admin: bool,
}

impl Alias {
    /// The id is a secret; what is made of it and of the store's secret tells clients apart.
    fn of(self, client: ClientId) -> Uuid {
        match self.admin {
            true => client.0,
            false => Uuid::new_v5(&self.store, client.0.as_bytes()),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    rev: u64,
    at: String,
    client: Option<Uuid>,
    n: Option<u64>,
    action: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    JsonLines,
    Csv,
}

impl Format {
    /// What the client likes better; JSON Lines where it does not say.
    fn of(request: &HttpRequest) -> Self {
        let accepted = Accept::parse(request).map(|accept| accept.ranked());
        let known =
            accepted
                .unwrap_or_default()
                .into_iter()
                .find_map(|kind| match kind.essence_str() {
                    "text/csv" => Some(Self::Csv),
                    "application/x-ndjson" | "application/json" | "*/*" => Some(Self::JsonLines),
                    _ => None,
                });
        known.unwrap_or(Self::JsonLines)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    fn head<M: Model>(self) -> Vec<u8> {
        match (self, M::JOURNAL_VALUE) {
            (Self::JsonLines, _) => Vec::new(),
            (Self::Csv, false) => b"rev,at,client,n,action\r\n".to_vec(),
            (Self::Csv, true) => b"rev,at,client,n,action,value\r\n".to_vec(),
        }
    }

    fn write(self, line: &Line<'_>, lines: &mut Vec<u8>) -> Result<(), String> {
        if self == Self::JsonLines {
            serde_json::to_writer(&mut *lines, line).map_err(|err| err.to_string())?;
            lines.push(b'\n');
            return Ok(());
        }
        let text = |value: Option<String>| value.unwrap_or_default();
        let mut fields = vec![
            line.rev.to_string(),
            line.at.clone(),
            text(line.client.map(|client| client.to_string())),
            text(line.n.map(|n| n.to_string())),
            line.action.get().to_owned(),
        ];
        fields.extend(line.value.map(|value| value.get().to_owned()));
        let mut csv = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(lines);
        csv.write_record(&fields).map_err(|err| err.to_string())?;
        csv.flush().map_err(|err| err.to_string())
    }
}

fn unreadable(room: &RoomName, err: &ReadError) -> Problem {
    match err {
        ReadError::Gone { first } => {
            let problem = Problem::new(StatusCode::GONE, "gone", err.to_string());
            problem.with("first", first.0)
        }
        ReadError::Unavailable(_) => Problem::unavailable("the store is away; try again later"),
        ReadError::Damaged(_) => {
            log::error!("room {room}: its journal cannot be read: {err}");
            Rejection::internal().into()
        }
    }
}

fn broken(room: &RoomName, err: &dyn std::fmt::Display) -> Error {
    log::error!("room {room}: its journal could not be told to the end: {err}");
    ErrorInternalServerError("the journal could not be read to the end")
}
