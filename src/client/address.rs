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
        let uri: Uri = text.parse().map_err(|_| InvalidAddress)?;
        let secure = match uri.scheme_str() {
            Some("http" | "ws") => false,
            Some("https" | "wss") => true,
            _ => return Err(InvalidAddress),
        };
        let authority = uri.authority().ok_or(InvalidAddress)?;
        let host = uri.host().ok_or(InvalidAddress)?;
        let behind = authority.as_str().strip_prefix(host).unwrap_or_default();
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        let odd_port = !behind.is_empty() && !behind.strip_prefix(':').is_some_and(is_port);
        // A name and password would be secrets in a URL, and nobody asks for them.
        let user = authority.as_str().contains('@');
        if host.is_empty() || user || odd_port || uri.query().is_some() {
            return Err(InvalidAddress);
        }
        Ok(Self {
            secure,
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
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
}
