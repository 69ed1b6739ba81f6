//! `GET /api/rooms/{room}`: what a room holds now.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, EntityTag},
    web,
};

use super::context::{Api, room_name};
use crate::{
    http::{page::has_already, problem::Problem},
    ids::RoomName,
    model::Model,
    room::{Look, Seen},
};

/// `{"room":"main","epoch":"…","rev":42,"value":7,"users":3}`
pub async fn get<M: Model>(
    request: HttpRequest,
    api: web::Data<Api<M>>,
    name: web::Path<String>,
) -> Result<HttpResponse, Problem> {
    let (room, seen, users) = look(&api, &name).await?;
    let tag = EntityTag::new_strong(format!("{}:{}:{users}", seen.epoch.0, seen.rev.0));
    if has_already(&request, &tag) {
        return Ok(HttpResponse::NotModified()
            .insert_header(header::ETag(tag))
            .finish());
    }
    let users = format!(r#","users":{users}"#);
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .insert_header(header::ETag(tag))
        .body(json(&room, &seen, &users)))
}

async fn look<M: Model>(api: &Api<M>, name: &str) -> Result<(RoomName, Seen, usize), Problem> {
    let room = room_name(name)?;
    let lease = api.lease(room.clone()).await?;
    let looked = lease.room().send(Look).await;
    let gone = |_| Problem::unavailable("the room failed; try again");
    let (seen, users) = looked.map_err(gone)?;
    Ok((room, seen, users))
}

/// `{"room":"main","epoch":"…","rev":42,"value":7}`, and `more` at its end.
pub fn json(room: &RoomName, seen: &Seen, more: &str) -> Vec<u8> {
    let head = format!(
        r#"{{"room":"{room}","epoch":"{}","rev":{},"value":"#,
        seen.epoch.0, seen.rev.0
    );
    [head.as_bytes(), &seen.value, more.as_bytes(), b"}"].concat()
}
