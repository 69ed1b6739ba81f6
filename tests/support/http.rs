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

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body's lines, each of which is JSON.
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.text().lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The body's rows (RFC 4180).
    pub fn csv(&self) -> Vec<Vec<String>> {
        let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
        let (mut quoted, mut text) = (false, self.text().chars().peekable());
        while let Some(next) = text.next() {
            match next {
                '"' if quoted && text.peek() == Some(&'"') => field.extend(text.next()),
                '"' => quoted = !quoted,
                ',' if !quoted => row.push(std::mem::take(&mut field)),
                '\r' if !quoted && text.peek() == Some(&'\n') => {}
                '\n' if !quoted => {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
                next => field.push(next),
            }
        }
        assert!(
            !quoted && row.is_empty() && field.is_empty(),
            "the last row has no end"
        );
        rows
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
    exchange(port, head(method, path, headers).as_bytes())
}

/// Sends a request with a body, of which the headers name no length.
pub fn request_with(
    port: u16,
    method: &str,
    path: &str,
    headers: &[&str],
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let length = format!("Content-Length: {}", body.len());
    let head = head(method, path, &[headers, &[&length]].concat());
    exchange(port, &[head.as_bytes(), body].concat())
}

fn head(method: &str, path: &str, headers: &[&str]) -> String {
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
    text
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
    exchange_by(&mut connect(("127.0.0.1", port)), request)
}

/// Sends bytes by a connection and reads one answer, and nothing beyond it.
pub fn exchange_by(stream: &mut (impl Read + Write), request: &[u8]) -> Answer {
    stream.write_all(request).unwrap();
    let mut answer = read_head(stream);
    let bodyless = request.starts_with(b"HEAD ") || matches!(answer.status, 101 | 304);
    if bodyless {
        return answer;
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = read_chunks(stream);
    } else {
        let len = answer
            .header("content-length")
            .map_or(0, |len| len.parse().unwrap());
        answer.body = vec![0; len];
        stream.read_exact(&mut answer.body).unwrap();
    }
    answer
}

fn read_head(stream: &mut impl Read) -> Answer {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(read_byte(stream));
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let split = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Answer {
        status: status.parse().unwrap(),
        headers: lines.map(split).collect(),
        body: Vec::new(),
    }
}

/// A body whose length was not known beforehand (RFC 9112, section 7.1).
fn read_chunks(stream: &mut impl Read) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(read_byte(stream));
        }
        let size = std::str::from_utf8(&line).unwrap().trim_end();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&chunk[..size]);
    }
}

fn read_byte(stream: &mut impl Read) -> u8 {
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    byte[0]
}
