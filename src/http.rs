//! Routes and their assembly: the page and the rooms' sockets under the same URLs.
//!
//! `GET /` is room `main`, `GET /r/{room}` any other: the page for a browser, the room's socket
//! with `Upgrade: websocket`.

pub mod api;
pub mod body;
pub mod methods;
pub mod page;
pub mod problem;

use std::sync::Arc;

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::{self, Next},
    web,
};

use self::{api::context::Api, methods::readable, page::Page, problem::Problem};
use crate::{
    ids::RoomName,
    journal::Journal,
    model::{Events, Model},
    socket::{
        Sockets,
        admission::Denial,
        handshake::{admission_request, is_handshake},
    },
};

/// Everything that the server serves: a scope for an `App` of one's own.
///
/// Each answer carries `X-Content-Type-Options: nosniff` and `Cache-Control: no-cache`, and each
/// request's `Host` is checked.
pub fn site<M: Model>(
    sockets: Sockets<M>,
    journal: Arc<dyn Journal>,
    page: Page,
) -> impl FnOnce(&mut web::ServiceConfig) {
    move |config| {
        let api = web::Data::new(Api::new(sockets.clone(), journal));
        let headers = middleware::DefaultHeaders::new()
            .add((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .add((header::REFERRER_POLICY, "no-referrer"))
            .add((header::CACHE_CONTROL, "no-cache"));
        let site = web::scope("")
            .app_data(web::Data::new(sockets))
            .app_data(web::Data::new(page))
            .wrap(middleware::from_fn(check_host::<M>))
            .wrap(middleware::from_fn(announce_no_chunks))
            .wrap(headers)
            .configure(|config| {
                // Its rooms are not asked in JSON.
                if M::EVENTS == Events::Json {
                    config.configure(api::routes(api));
                }
            })
            .service(readable("/", main_room::<M>))
            .service(readable("/r/{room}", any_room::<M>))
            .service(readable("/{file}", file::<M>))
            .default_service(web::to(elsewhere::<M>));
        config.service(site);
    }
}

/// Where a handshake's path leads to a room, its socket; else what `page` answers.
async fn socket_or<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<Sockets<M>>,
    page: impl FnOnce(&HttpRequest) -> HttpResponse,
) -> HttpResponse {
    if !is_handshake(&request) || sockets.seat(request.path()).is_none() {
        return page(&request);
    }
    let answered = sockets.handle_path(&request, payload).await;
    answered.unwrap_or_else(|denial| Problem::from(denial).to_response())
}

async fn main_room<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<Sockets<M>>,
    page: web::Data<Page>,
) -> HttpResponse {
    let index = |request: &HttpRequest| page.serve(request, "index.html");
    socket_or(request, payload, sockets, index).await
}

async fn any_room<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<Sockets<M>>,
    page: web::Data<Page>,
    name: web::Path<String>,
) -> HttpResponse {
    let index = |request: &HttpRequest| match name.parse::<RoomName>() {
        Ok(_) => page.serve(request, "index.html"),
        Err(err) => Problem::from(Denial::no_such_room(err)).to_response(),
    };
    socket_or(request, payload, sockets, index).await
}

async fn file<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<Sockets<M>>,
    page: web::Data<Page>,
    name: web::Path<String>,
) -> HttpResponse {
    let file = |request: &HttpRequest| page.serve(request, &name);
    socket_or(request, payload, sockets, file).await
}

/// Anything else: a room, if the model has one there.
async fn elsewhere<M: Model>(
    request: HttpRequest,
    payload: web::Payload,
    sockets: web::Data<Sockets<M>>,
) -> HttpResponse {
    let not_found = |_: &HttpRequest| Problem::not_found().to_response();
    socket_or(request, payload, sockets, not_found).await
}

async fn check_host<M: Model>(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let sockets = request.app_data::<web::Data<Sockets<M>>>();
    let checked = sockets.map_or(Ok(()), |sockets| {
        sockets
            .admission()
            .check_host(&admission_request(request.request()))
    });
    match checked {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(denial) => Ok(request
            .into_response(Problem::from(denial).to_response())
            .map_into_right_body()),
    }
}

/// Whoever wants a WebSocket and gets a streamed answer reads it to the end of the connection: actix-http
/// would announce chunks to it, and write none.
async fn announce_no_chunks(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut upgrades = request.headers().get_all(header::UPGRADE);
    let wants = |value: &header::HeaderValue| {
        let value = value.as_bytes().trim_ascii();
        value.eq_ignore_ascii_case(b"websocket")
    };
    // Where its body comes in chunks, actix-http does not heed what it wants.
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let unframed = !chunked && upgrades.any(wants);
    let mut response = next.call(request).await?;
    if unframed {
        response.response_mut().head_mut().no_chunking(true);
    }
    Ok(response)
}
