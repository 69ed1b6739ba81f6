//! Reading a request's body, within its bounds.

use std::time::Duration;

use actix_web::{
    HttpRequest,
    http::{
        StatusCode,
        header::{self, ContentType, Header},
    },
    rt::time::timeout,
    web::{self, Bytes, BytesMut},
};
use futures_util::StreamExt;

use super::problem::Problem;

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// As in `Content-Type`, without parameters.
    pub media_type: &'static str,
    pub max_bytes: Option<usize>,
    pub timeout: Option<Duration>,
}

/// Reads the whole body as text.
///
/// # Errors
///
/// The answer to give: 415, 413, 408, or 400 where it breaks off or is no UTF-8.
pub async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    expected: Expected,
) -> Result<String, Problem> {
    let kind = ContentType::parse(request).ok();
    if kind.is_none_or(|kind| kind.0.essence_str() != expected.media_type) {
        let detail = format!("send Content-Type: {}", expected.media_type);
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Problem::new(status, "unsupported_media_type", detail));
    }
    let max = expected.max_bytes.unwrap_or(usize::MAX);
    let announced = header::ContentLength::parse(request).ok();
    if announced.is_some_and(|len| *len > max) {
        return Err(too_large(max));
    }
    let bytes = match expected.timeout {
        None => collect(payload, max).await?,
        Some(within) => timeout(within, collect(payload, max))
            .await
            .map_err(|_| too_slow(within))??,
    };
    String::from_utf8(bytes.into()).map_err(|_| bad("the body must be UTF-8"))
}

async fn collect(mut payload: web::Payload, max: usize) -> Result<Bytes, Problem> {
    let mut body = BytesMut::new();
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|_| bad("the body broke off"))?;
        if body.len() + piece.len() > max {
            return Err(too_large(max));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn bad(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "not_json", detail)
}

fn too_large(max: usize) -> Problem {
    let detail = format!("the body may have {max} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
}

fn too_slow(within: Duration) -> Problem {
    let seconds = within.as_secs_f64();
    let detail = format!("the body must be sent within {seconds} s (--body-timeout)");
    Problem::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
}
