//! Errors as HTTP answers: problem documents (RFC 9457) with a stable `code`.

use std::{borrow::Cow, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        Method, StatusCode,
        header::{self, HeaderName, HeaderValue},
    },
};
use serde_json::{Map, Value};

use crate::{rejection::Rejection, replica::Retry, socket::admission::Denial};

/// After how many seconds a client that found no place may try again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a request is not answered as it was meant:
/// `{"type":"about:blank","title":"Not Found","status":404,"detail":"…","code":"not_found"}`
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    pub status: StatusCode,
    pub code: Cow<'static, str>,
    pub detail: String,
    /// One more field of the document.
    more: Option<(&'static str, u64)>,
    retry_after: Option<Duration>,
    allow: &'static [Method],
}

impl Problem {
    pub fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER);
        Self {
            status,
            code: code.into(),
            detail: detail.into(),
            more: None,
            retry_after,
            allow: &[],
        }
    }

    /// With one more field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: u64) -> Self {
        self.more = Some((name, value));
        self
    }

    pub fn not_found() -> Self {
        let detail = "there is nothing here; rooms are at / and /r/NAME";
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn method_not_allowed(allow: &'static [Method]) -> Self {
        let detail = format!("allowed are {}", list(allow));
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self {
            allow,
            ..Self::new(status, "method_not_allowed", detail)
        }
    }

    /// The store or a room is away.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    pub fn to_response(&self) -> HttpResponse {
        let mut problem = Map::new();
        let title = self.status.canonical_reason().unwrap_or("Error");
        for (name, value) in [
            ("type", Value::from("about:blank")),
            ("title", title.into()),
            ("status", self.status.as_u16().into()),
            ("detail", self.detail.as_str().into()),
            ("code", (*self.code).into()),
        ] {
            problem.insert(name.to_owned(), value);
        }
        if let Some((name, value)) = self.more {
            problem.insert(name.to_owned(), value.into());
        }
        let mut response = HttpResponse::build(self.status);
        response.content_type("application/problem+json");
        for header in self.headers() {
            response.insert_header(header);
        }
        response.body(Value::Object(problem).to_string())
    }

    fn headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(after) = self.retry_after {
            let seconds = after.as_millis().div_ceil(1000).max(1);
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            headers.push((header::RETRY_AFTER, seconds.into()));
        }
        if let Ok(allow) = HeaderValue::try_from(list(self.allow))
            && !self.allow.is_empty()
        {
            headers.push((header::ALLOW, allow));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455, section 4.4
            headers.push((header::UPGRADE, HeaderValue::from_static("websocket")));
            let version = HeaderValue::from_static("13");
            headers.push((header::SEC_WEBSOCKET_VERSION, version));
        }
        headers
    }
}

fn list(methods: &[Method]) -> String {
    let names: Vec<_> = methods.iter().map(Method::as_str).collect();
    names.join(", ")
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        self.to_response()
    }
}

impl From<Denial> for Problem {
    fn from(denial: Denial) -> Self {
        Self::new(denial.status, denial.code, denial.detail)
    }
}

/// The final no to an action, or a complaint about a request.
impl From<Rejection> for Problem {
    fn from(refused: Rejection) -> Self {
        Self::new(status_of(&refused.code), refused.code, refused.message)
    }
}

/// What was not taken now: when to try again, and for a number from which one on.
impl From<Retry> for Problem {
    fn from(retry: Retry) -> Self {
        let expected = retry.expected.filter(|_| retry.why.code == "gap");
        Self {
            more: expected.map(|expected| ("expected", expected)),
            retry_after: Some(retry.after),
            ..retry.why.into()
        }
    }
}

/// The status of a code; one that is a model's own is 422.
fn status_of(code: &str) -> StatusCode {
    match code {
        "not_json" | "not_an_object" | "binary_not_allowed" | "missing_field" | "bad_field"
        | "unknown_action" => StatusCode::BAD_REQUEST,
        "forbidden" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "gap" => StatusCode::CONFLICT,
        "gone" => StatusCode::GONE,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "unsupported_media_type" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "overloaded" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "store_full" => StatusCode::INSUFFICIENT_STORAGE,
        "internal" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}
