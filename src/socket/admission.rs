//! Whose handshakes and requests are answered: the checks of `Host` and `Origin`.
//!
//! A listener on loopback takes only loopback names in `Host`, so that no foreign name that is made
//! to point at it (DNS rebinding) reaches it. A browser's socket must come from the same origin, so
//! that no foreign page speaks for its visitor (cross-site WebSocket hijacking). Clients that are
//! no browsers send no `Origin` and are let in.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use actix_web::http::{
    StatusCode,
    header::{self, HeaderMap, HeaderName},
    uri::Authority,
};

use crate::{
    ids::InvalidRoomName,
    permissions::Permissions,
    protocol::{self, Negotiated},
    rejection::Rejection,
};

/// What of a request the checks look at.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub headers: &'a HeaderMap,
    /// Where the listener is bound that took the connection.
    pub listener: SocketAddr,
    /// Who made the connection, where that is known.
    pub peer: Option<SocketAddr>,
}

impl Request<'_> {
    /// What whoever asks may do: on the machine itself, without a proxy in between, everything.
    pub fn permissions(&self) -> Permissions {
        /// By these a proxy says for whom it asks.
        const FORWARDING: [&str; 5] = [
            "forwarded",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-real-ip",
        ];
        let local = self
            .peer
            .is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        let forwarded = FORWARDING
            .iter()
            .any(|name| self.headers.contains_key(*name));
        Permissions {
            admin: local && !forwarded,
        }
    }

    /// What the client wants to speak, and who it is.
    ///
    /// # Errors
    ///
    /// 400 where the client's id is no UUID.
    pub fn negotiate(&self) -> Result<Negotiated, Denial> {
        let offered = self.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
        let bad = |why: Rejection| Denial::bad_field(&why.message);
        protocol::negotiate(offered.filter_map(|value| value.to_str().ok())).map_err(bad)
    }
}

/// Which hosts and origins are let in beside those that always are.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    pub allow_hosts: Vec<AllowedHost>,
    pub allow_origins: Vec<AllowedOrigin>,
}

/// Why a request is not answered, as HTTP has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Denial {
    pub status: StatusCode,
    pub code: &'static str,
    pub detail: String,
}

impl Denial {
    fn new(status: StatusCode, code: &'static str, detail: &str) -> Self {
        let detail = detail.to_owned();
        Self {
            status,
            code,
            detail,
        }
    }

    pub fn no_such_room(why: InvalidRoomName) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", &why.to_string())
    }

    pub fn leads_nowhere() -> Self {
        let detail = "no room is found under this path";
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub fn overloaded(detail: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    pub fn bad_field(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_field", detail)
    }

    fn wrong_host(detail: &str) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "wrong_host", detail)
    }

    fn foreign_origin(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }
}

impl Admission {
    /// Whether a request means this server; asked on every path.
    ///
    /// # Errors
    ///
    /// 421 where a listener on loopback is called by a name that is neither of loopback nor allowed.
    pub fn check_host(&self, request: &Request<'_>) -> Result<(), Denial> {
        if !request.listener.ip().is_loopback() {
            return Ok(());
        }
        let host = only_value(request.headers, header::HOST)?
            .and_then(Host::parse)
            .ok_or_else(|| {
                Denial::wrong_host("the request needs a Host header that names a host")
            })?;
        let allowed = |allowed: &AllowedHost| allowed.matches(&host);
        if host.is_loopback() || self.allow_hosts.iter().any(allowed) {
            return Ok(());
        }
        Err(Denial::wrong_host(
            "this listener answers to localhost, or to a name that --allow-host gives",
        ))
    }

    /// Whether a socket's handshake comes from a page that may open it.
    ///
    /// # Errors
    ///
    /// 403 where the page's origin is neither the server's own nor allowed.
    pub fn check_origin(&self, request: &Request<'_>) -> Result<(), Denial> {
        let Some(text) = only_value(request.headers, header::ORIGIN)? else {
            return Ok(());
        };
        let origin = Origin::parse(text);
        let host = only_value(request.headers, header::HOST)?.and_then(Host::parse);
        let same = match (&origin, &host) {
            (Some(origin), Some(host)) => origin.is_of(host),
            _ => false,
        };
        let allowed = |allowed: &AllowedOrigin| match allowed {
            AllowedOrigin::Any => true,
            // Some browsers call the origin of a page from a file by its scheme.
            AllowedOrigin::Null => text == "null" || text == "file://",
            AllowedOrigin::Exactly(allowed) => origin.as_ref() == Some(allowed),
        };
        if same || self.allow_origins.iter().any(allowed) {
            return Ok(());
        }
        Err(Denial::foreign_origin(
            "the page comes from another origin; --allow-origin lets it in",
        ))
    }
}

/// The value of a header that may stand once.
fn only_value(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Denial> {
    let mut values = headers.get_all(&name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text)),
        _ => {
            let detail = format!("the header {name} must stand once, in ASCII");
            Err(Denial::bad_field(&detail))
        }
    }
}

/// A host as a client names it, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    name: String,
    port: Option<u16>,
}

impl Host {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let plain = !name.is_empty() && !text.contains('@');
        plain.then(|| Self {
            name,
            port: authority.port_u16(),
        })
    }

    fn is_loopback(&self) -> bool {
        let name = self.name.as_str();
        let v6 = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(v6) = v6 {
            return v6
                .parse()
                .is_ok_and(|address: Ipv6Addr| address.is_loopback());
        }
        let v4 = name
            .parse()
            .is_ok_and(|address: Ipv4Addr| address.is_loopback());
        v4 || name == "localhost" || name.ends_with(".localhost")
    }
}

/// An origin of the web (RFC 6454) whose scheme is HTTP's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: &'static str,
    name: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return None,
        };
        let Host { name, port } = Host::parse(authority)?;
        Some(Self {
            scheme,
            name,
            port: port.unwrap_or(default_port),
        })
    }

    /// Whether it is the origin that a request to `host` was made to. The scheme is not compared: a
    /// proxy may speak TLS for us.
    fn is_of(&self, host: &Host) -> bool {
        let default_port = if self.scheme == "https" { 443 } else { 80 };
        self.name == host.name && self.port == host.port.unwrap_or(default_port)
    }
}

/// An origin whose pages may open sockets: `https://example.org`, `null` (pages from files) or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigin {
    Any,
    Null,
    Exactly(Origin),
}

impl FromStr for AllowedOrigin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "*" => Ok(Self::Any),
            "null" => Ok(Self::Null),
            _ => Origin::parse(text).map(Self::Exactly).ok_or(
                "allowed are an origin such as https://example.org or http://10.0.0.5:8080, \
                 null (pages from files) and *",
            ),
        }
    }
}

/// A name by which a listener on loopback may be called, with any port or only the one given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedHost(Host);

impl AllowedHost {
    fn matches(&self, host: &Host) -> bool {
        let port = self.0.port.is_none() || self.0.port == host.port;
        self.0.name == host.name && port
    }
}

impl FromStr for AllowedHost {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Host::parse(text)
            .filter(|host| !host.name.contains('*'))
            .map(Self)
            .ok_or("allowed is a host such as example.org or example.org:8080")
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    fn request(headers: &HeaderMap) -> Request<'_> {
        let listener = "127.0.0.1:6789".parse().unwrap();
        Request {
            headers,
            listener,
            peer: None,
        }
    }

    #[test]
    fn a_listener_on_loopback_answers_to_loopback_names_only() {
        let admission = Admission {
            allow_hosts: vec![
                "Counter.test".parse().unwrap(),
                "a.test:81".parse().unwrap(),
            ],
            ..Admission::default()
        };
        let check = |host| {
            let headers = headers(&[(header::HOST, host)]);
            admission.check_host(&request(&headers)).is_ok()
        };
        for good in [
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "a.localhost:6789",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]",
            "[::1]:6789",
            "counter.test",
            "counter.TEST:99",
            "a.test:81",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "localhost.example.org",
            "notlocalhost",
            "128.0.0.1",
            "0.0.0.0",
            "[::2]",
            "a.test",
            "a.test:82",
            "evil@localhost",
            "127.0.0.1.example.org",
        ] {
            assert!(!check(bad), "{bad}");
        }
        let twice = headers(&[(header::HOST, "localhost"), (header::HOST, "evil.test")]);
        let denial = admission.check_host(&request(&twice)).unwrap_err();
        assert_eq!(denial.status, StatusCode::BAD_REQUEST);
        let none = HeaderMap::new();
        let denial = admission.check_host(&request(&none)).unwrap_err();
        assert_eq!((denial.status.as_u16(), denial.code), (421, "wrong_host"));
        let anywhere = Request {
            headers: &none,
            listener: "0.0.0.0:80".parse().unwrap(),
            peer: None,
        };
        assert!(admission.check_host(&anywhere).is_ok());
    }

    #[test]
    fn whoever_comes_from_the_machine_itself_and_through_no_proxy_is_admin() {
        let admin = |peer: &str, headers: &HeaderMap| {
            let request = Request {
                peer: Some(peer.parse().unwrap()),
                ..request(headers)
            };
            request.permissions().admin
        };
        let none = HeaderMap::new();
        for (peer, expected) in [
            ("127.0.0.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
        ] {
            assert_eq!(admin(peer, &none), expected, "{peer}");
        }
        for name in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
            let proxied = headers(&[(HeaderName::from_static(name), "x")]);
            assert!(!admin("127.0.0.1:1", &proxied), "{name}");
        }
        assert!(!request(&none).permissions().admin, "nobody knows who");
    }

    #[test]
    fn a_browsers_socket_comes_from_the_same_origin_or_an_allowed_one() {
        let check = |allow: &[&str], host, origin| {
            let allow_origins = allow.iter().map(|origin| origin.parse().unwrap()).collect();
            let admission = Admission {
                allow_origins,
                ..Admission::default()
            };
            let headers = headers(&[(header::HOST, host), (header::ORIGIN, origin)]);
            admission.check_origin(&request(&headers)).is_ok()
        };
        for (host, origin) in [
            ("localhost:6789", "http://localhost:6789"),
            ("LocalHost:6789", "http://localhost:6789"),
            ("example.org", "https://example.org"),
            ("example.org", "http://example.org:80"),
            ("example.org:443", "https://example.org"),
            ("[::1]:6789", "http://[::1]:6789"),
        ] {
            assert!(check(&[], host, origin), "{host} {origin}");
        }
        for origin in [
            "",
            "null",
            "http://localhost",
            "http://localhost:6790",
            "http://evil.test:6789",
            "ftp://localhost:6789",
            "http://localhost:6789/path",
            "http://x@localhost:6789",
        ] {
            assert!(!check(&[], "localhost:6789", origin), "{origin}");
        }
        assert!(check(&["null"], "localhost:6789", "null"));
        assert!(check(&["*"], "localhost:6789", "whatever"));
        assert!(check(
            &["https://a.test"],
            "localhost:6789",
            "https://a.test:443"
        ));
        assert!(!check(
            &["https://a.test"],
            "localhost:6789",
            "http://a.test"
        ));
        assert!("a.test".parse::<AllowedOrigin>().is_err());
    }
}
