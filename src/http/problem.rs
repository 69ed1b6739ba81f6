//! Errors as HTTP answers: problem documents (RFC 9457) with a stable `code`.

use actix_web::{
    HttpResponse,
    http::{
        Method, StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;

use crate::socket::admission::Denial;

/// After how many seconds a client that found no place may try again.
const RETRY_AFTER: u32 = 5;

/// `{"type":"about:blank","title":"Not Found","status":404,"detail":"…","code":"not_found"}`
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
}

/// Answers with a problem document.
pub fn problem(status: StatusCode, code: &str, detail: &str) -> HttpResponse {
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail,
        code,
    };
    let json = serde_json::to_string(&problem).expect("strings and a number are JSON");
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(json)
}

pub fn of_denial(denial: &Denial) -> HttpResponse {
    let mut response = problem(denial.status, denial.code, &denial.detail);
    let headers = response.headers_mut();
    match denial.status {
        StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER));
        }
        StatusCode::UPGRADE_REQUIRED => {
            // RFC 6455, section 4.4
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(
                header::SEC_WEBSOCKET_VERSION,
                HeaderValue::from_static("13"),
            );
        }
        _ => {}
    }
    response
}

pub fn not_found() -> HttpResponse {
    problem(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing here; rooms are at / and /r/NAME",
    )
}

pub fn method_not_allowed(allowed: &[Method]) -> HttpResponse {
    let allowed = allowed
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    let detail = format!("allowed are {allowed}");
    let mut response = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        &detail,
    );
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}
