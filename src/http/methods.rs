//! Paths, and which methods they answer: every other one is 405 and named in `Allow`.

use actix_web::{FromRequest, Handler, Resource, Responder, guard, http::Method, web};

use super::problem::Problem;

/// A path that answers GET and HEAD; every other method is 405.
pub fn readable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    F::Output: Responder + 'static,
    Args: FromRequest + 'static,
{
    let read = guard::Any(guard::Get()).or(guard::Head());
    web::resource(path.to_owned())
        .route(web::route().guard(read).to(handler))
        .default_service(web::to(async || {
            Problem::method_not_allowed(&[Method::GET, Method::HEAD]).to_response()
        }))
}

/// A path that answers POST; every other method is 405.
pub fn postable<F, Args>(path: &str, handler: F) -> Resource
where
    F: Handler<Args>,
    F::Output: Responder + 'static,
    Args: FromRequest + 'static,
{
    web::resource(path.to_owned())
        .route(web::post().to(handler))
        .default_service(web::to(async || {
            Problem::method_not_allowed(&[Method::POST]).to_response()
        }))
}
