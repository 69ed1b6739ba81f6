//! `GET /api/export` and `POST /api/import`: values from one server to another, a room a line.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    error::ErrorInternalServerError,
    http::StatusCode,
    web::{self, Bytes},
};
use futures_util::stream;
use serde_json::{Map, Value};

use super::{
    context::{Api, Place, check_admin, check_origin, room_name},
    query::Parameters,
};
use crate::{
    fields::Fields,
    http::{
        body::{self, Expected},
        problem::Problem,
    },
    ids::RoomName,
    journal::Journal,
    limits::{Limits, MAX_IMPORT_BYTES},
    model::Model,
    rejection::Rejection,
    replica::check_size,
    room::{Import, ImportError, load},
};

/// How many rooms are looked up at a time.
const PIECE: usize = 100;

const MEDIA_TYPE: &str = "application/x-ndjson";

/// `{"room":"main","value":7}`, a line for each room that `room=NAME` names, or for all.
pub async fn export<M: Model>(
    request: HttpRequest,
    api: web::Data<Api<M>>,
) -> Result<HttpResponse, Problem> {
    let export = begin(&request, &api)?;
    let lines = stream::unfold(export, |mut export| async {
        let line = export.next_line::<M>().await?;
        Some((line, export))
    });
    Ok(HttpResponse::Ok().content_type(MEDIA_TYPE).streaming(lines))
}

struct Exporting {
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    rooms: VecDeque<RoomName>,
    /// All rooms are wanted, from behind this one on.
    more: Option<Option<RoomName>>,
    _place: Place,
}

fn begin<M: Model>(request: &HttpRequest, api: &Api<M>) -> Result<Exporting, Problem> {
    let query = Parameters::of(request)?;
    let mut known = HashSet::new();
    let rooms = query.all("room").map(room_name);
    let rooms = rooms.filter(|room| !room.as_ref().is_ok_and(|room| !known.insert(room.clone())));
    let rooms: VecDeque<_> = rooms.collect::<Result<_, _>>()?;
    if rooms.is_empty() {
        check_admin(request)?;
    }
    Ok(Exporting {
        journal: api.journal.clone(),
        limits: api.sockets.limits().clone(),
        more: rooms.is_empty().then_some(None),
        rooms,
        _place: api.read()?,
    })
}

impl Exporting {
    /// The next line; `None` at the end. An error cuts the answer, so that nobody takes it as whole.
    async fn next_line<M: Model>(&mut self) -> Option<Result<Bytes, Error>> {
        if self.rooms.is_empty()
            && let Some(after) = &self.more
        {
            match self.journal.rooms(after.as_ref(), PIECE).await {
                Ok(rooms) => self.rooms = rooms.into(),
                Err(err) => return Some(Err(broken(&err))),
            }
            self.more = self.rooms.back().cloned().map(Some);
        }
        let room = self.rooms.pop_front()?;
        let loaded = load::<M>(self.journal.clone(), room.clone(), self.limits.clone()).await;
        Some(match loaded {
            Ok(loaded) => line::<M>(&room, loaded.replica.state()).map_err(|err| broken(&err)),
            Err(err) => Err(broken(&format!("room {room}: {err}"))),
        })
    }
}

fn line<M: Model>(room: &RoomName, state: &M::State) -> serde_json::Result<Bytes> {
    let mut line = Map::new();
    line.insert("room".to_owned(), room.as_str().into());
    line.extend(M::export(state)?);
    Ok(format!("{}\n", Value::Object(line)).into())
}

fn broken(err: &dyn std::fmt::Display) -> Error {
    log::error!("an export could not be told to the end: {err}");
    ErrorInternalServerError("the export could not be told to the end")
}

/// `{"rooms":2}`: how many were begun anew.
pub async fn import<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api<M>>,
) -> Result<HttpResponse, Problem> {
    check_admin(&request)?;
    check_origin(&api, &request)?;
    let limits = api.sockets.limits();
    let expected = Expected {
        media_type: MEDIA_TYPE,
        max_bytes: Some(MAX_IMPORT_BYTES),
        timeout: limits.body_timeout,
    };
    let text = body::read(&request, payload, expected).await?;
    let rooms = parse::<M>(&text, limits.max_state_bytes)?;
    let all = rooms.len();
    for (done, (room, state)) in rooms.into_iter().enumerate() {
        let imported = begin_room(&api, &room, state).await;
        imported.map_err(|mut problem| {
            let detail = problem.detail;
            problem.detail = format!("room {room}: {detail}; {done} rooms were imported before it");
            problem
        })?;
    }
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(format!(r#"{{"rooms":{all}}}"#)))
}

async fn begin_room<M: Model>(
    api: &Api<M>,
    room: &RoomName,
    state: M::State,
) -> Result<(), Problem> {
    let lease = api.lease(room.clone()).await?;
    let imported = lease.room().send(Import::<M>(state)).await;
    let imported = imported.unwrap_or_else(|err| Err(ImportError::Unknown(err.to_string())));
    imported.map_err(|err| Problem::unavailable(err.to_string()))
}

/// Reads and checks all lines; a problem names its line, from 1.
fn parse<M: Model>(
    text: &str,
    max_state_bytes: Option<usize>,
) -> Result<Vec<(RoomName, M::State)>, Problem> {
    let wrong = |line, why: Rejection| {
        let detail = format!("line {line}: {}; nothing was imported", why.message);
        Problem::new(StatusCode::BAD_REQUEST, "bad_field", detail).with("line", line)
    };
    let mut names = HashSet::new();
    let mut rooms = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() {
            continue;
        }
        let (room, state) =
            parse_line::<M>(text, max_state_bytes).map_err(|why| wrong(line, why))?;
        if !names.insert(room.clone()) {
            let why = Rejection::bad_field("room", "another one on each line");
            return Err(wrong(line, why));
        }
        rooms.push((room, state));
    }
    Ok(rooms)
}

fn parse_line<M: Model>(
    text: &str,
    max_state_bytes: Option<usize>,
) -> Result<(RoomName, M::State), Rejection> {
    let fields = Fields::parse(text)?;
    let room = fields.text("room")?.parse();
    let room = room.map_err(|err| Rejection::new("bad_field", format!("{err}")))?;
    let state = M::import(&fields)?;
    check_size(&state, max_state_bytes)?;
    Ok((room, state))
}
