//! Where a server is, and what of it has which URL.

use std::{fmt, str::FromStr};

use awc::http::Uri;

use crate::ids::RoomName;

/// The URL of a server: a scheme, a host and, where a proxy gives the server one, a path before its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    secure: bool,
    authority: String,
    /// Without a slash at its end.
    prefix: String,
}

/// The text is not the URL of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "allowed is the URL of a server, such as http://localhost:6789/ or https://example.org/tally/"
)]
pub struct InvalidAddress;

impl Address {
    /// Whether it is spoken to by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The URL of a room's socket.
    pub fn socket(&self, room: &RoomName) -> String {
        let scheme = if self.secure { "wss" } else { "ws" };
        format!("{scheme}://{}{}/r/{room}", self.authority, self.prefix)
    }

    /// The URL of a path such as `/api/export`, which may have a query.
    pub fn path(&self, path: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority, self.prefix)
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (uri, secure, authority) = parts(text).ok_or(InvalidAddress)?;
        if uri.query().is_some() {
            return Err(InvalidAddress);
        }
        Ok(Self {
            secure,
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// A URL of HTTP or WebSocket, whether it asks for TLS, and its host and port.
fn parts(text: &str) -> Option<(Uri, bool, String)> {
    let uri: Uri = text.parse().ok()?;
    let secure = match uri.scheme_str() {
        Some("http" | "ws") => false,
        Some("https" | "wss") => true,
        _ => return None,
    };
    let authority = uri.authority()?.to_string();
    let host = uri.host()?;
    let behind = authority.strip_prefix(host).unwrap_or_default();
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let odd_port = !behind.is_empty() && !behind.strip_prefix(':').is_some_and(is_port);
    // A name and password would be secrets in a URL, and nobody asks for them.
    let user = authority.contains('@');
    let good = !(host.is_empty() || user || odd_port);
    good.then_some((uri, secure, authority))
}

/// The URL of one socket, taken as it is: of any server, with whatever path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUrl {
    secure: bool,
    url: String,
}

/// The text is not the URL of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "allowed is the URL of a WebSocket, such as ws://localhost:6789/r/door or wss://example.org/ws"
)]
pub struct InvalidSocketUrl;

impl SocketUrl {
    /// Whether it is spoken to by TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    pub fn as_str(&self) -> &str {
        &self.url
    }
}

impl FromStr for SocketUrl {
    type Err = InvalidSocketUrl;

    fn from_str(text: &str) -> Result<Self, InvalidSocketUrl> {
        let (uri, secure, authority) = parts(text).ok_or(InvalidSocketUrl)?;
        let scheme = if secure { "wss" } else { "ws" };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{scheme}://{authority}{path}");
        Ok(Self { secure, url })
    }
}

impl fmt::Display for SocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_be_anywhere() {
        let room = "door".parse().unwrap();
        for (url, socket) in [
            ("http://localhost:6789/", "ws://localhost:6789/r/door"),
            ("http://localhost:6789", "ws://localhost:6789/r/door"),
            ("https://example.org", "wss://example.org/r/door"),
            ("ws://[::1]:80/", "ws://[::1]:80/r/door"),
            ("wss://example.org/a/b/", "wss://example.org/a/b/r/door"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!(address.socket(&room), socket);
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for url in [
            "",
            "localhost:6789",
            "localhost",
            "/r/door",
            "ftp://example.org/",
            "http://",
            "http://:80/",
            "http://me:secret@example.org/",
            "http://example.org/?room=door",
            "http://example.org:99999/",
            "http://example.org:/",
            "http://a b/",
        ] {
            assert_eq!(url.parse::<Address>(), Err(InvalidAddress), "{url}");
        }
    }

    #[test]
    fn a_socket_may_be_at_any_path() {
        for (text, url) in [
            ("ws://localhost:6789/", "ws://localhost:6789/"),
            ("http://localhost:6789", "ws://localhost:6789/"),
            (
                "https://example.org/ws/?room=a",
                "wss://example.org/ws/?room=a",
            ),
            ("ws://[::1]:80/r/door", "ws://[::1]:80/r/door"),
        ] {
            let socket: SocketUrl = text.parse().unwrap();
            assert_eq!(
                (socket.as_str(), socket.is_secure()),
                (url, url.starts_with("wss"))
            );
        }
        for bad in [
            "",
            "localhost:6789",
            "ftp://a/",
            "ws://u:p@a/",
            "ws://a:99999/",
            "ws:///x",
        ] {
            assert_eq!(bad.parse::<SocketUrl>(), Err(InvalidSocketUrl), "{bad}");
        }
    }
}
