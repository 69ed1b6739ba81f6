//! HTTP by hand: one request, one answer.

use std::io::{Read, Write};

use serde_json::Value;

use super::connect;

/// An answer of the server.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(other, _)| other == name);
        named.next().map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is a problem document of this status and code, whole.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        for field in ["type", "title", "detail"] {
            assert!(
                problem[field].as_str().is_some_and(|text| !text.is_empty()),
                "{problem}"
            );
        }
    }
}

/// Sends a request with these lines of headers, beside `Host: localhost` where none is given.
pub fn request(port: u16, method: &str, path: &str, headers: &[&str]) -> Answer {
    let host = headers
        .iter()
        .any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !host {
        text.push_str("Host: localhost\r\n");
    }
    for line in headers {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    exchange(port, text.as_bytes())
}

pub fn get(port: u16, path: &str) -> Answer {
    request(port, "GET", path, &[])
}

/// The lines of a handshake that is right, beside `Host`.
pub const HANDSHAKE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// The answer to a handshake with more lines of headers; of an accepted one only the head.
pub fn handshake(port: u16, path: &str, more: &[&str]) -> Answer {
    request(port, "GET", path, &[&HANDSHAKE, more].concat())
}

/// Sends bytes and reads one answer.
pub fn exchange(port: u16, request: &[u8]) -> Answer {
    let mut stream = connect(("127.0.0.1", port));
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let split = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let mut answer = Answer {
        status: status.parse().unwrap(),
        headers: lines.map(split).collect(),
        body: Vec::new(),
    };
    let bodyless = request.starts_with(b"HEAD ") || matches!(answer.status, 101 | 304);
    if !bodyless {
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        answer.body = vec![0; len];
        stream.read_exact(&mut answer.body).unwrap();
    }
    answer
}
