//! A server of `tallyroom.v1` that says what a test wants, right or wrong.

use std::{
    net::{TcpListener, TcpStream},
    thread,
};

use serde_json::{Value, json};
use tungstenite::{
    Error, Message, WebSocket,
    handshake::server::{ErrorResponse, Request, Response},
    http::HeaderValue,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{PATIENCE, await_that};

/// Where clients come in.
pub struct Door {
    listener: TcpListener,
}

/// Lets a script be the server, on a thread of its own, and gives its URL.
///
/// The thread is joined by the test, so that what fails in the script fails the test.
pub fn play(script: impl FnOnce(Door) + Send + 'static) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let thread = thread::spawn(move || script(Door { listener }));
    (url, thread)
}

impl Door {
    /// The next connection, of which nothing is read; it is awaited as long as [`PATIENCE`] lasts.
    pub fn accept(&self) -> TcpStream {
        self.listener.set_nonblocking(true).unwrap();
        let mut came = None;
        await_that("a client comes", || {
            came = self.listener.accept().ok();
            came.is_some()
        });
        let (stream, _) = came.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// The next client, whose handshake is answered as it should be.
    pub fn welcome(&self) -> Guest {
        let mut offered = String::new();
        let mut path = String::new();
        #[expect(clippy::result_large_err, reason = "tungstenite has it so")]
        let answer =
            |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                path = request.uri().path().to_owned();
                let protocols = request.headers().get("sec-websocket-protocol").unwrap();
                offered = protocols.to_str().unwrap().to_owned();
                let chosen = HeaderValue::from_static("tallyroom.v1");
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", chosen);
                Ok(response)
            };
        let socket = tungstenite::accept_hdr(self.accept(), answer).unwrap();
        let mut tokens = offered.split(',').map(str::trim);
        assert_eq!(tokens.next(), Some("tallyroom.v1"));
        let client = tokens
            .next()
            .unwrap()
            .strip_prefix("client.")
            .unwrap()
            .to_owned();
        Guest {
            socket,
            client,
            path,
        }
    }
}

/// One connection of a client.
pub struct Guest {
    pub socket: WebSocket<TcpStream>,
    pub client: String,
    pub path: String,
}

/// An epoch by its number.
pub fn epoch(life: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{life:02}")
}

impl Guest {
    /// Says something to a client, which may be gone by then.
    pub fn say(&mut self, event: &Value) {
        let _ = self.socket.send(Message::text(event.to_string()));
    }

    /// Says `welcome` and `state`.
    pub fn greet(&mut self, life: u8, n: u64) {
        self.greet_with(life, n, json!({}));
    }

    /// As `greet`, with other fields in its `welcome`.
    pub fn greet_with(&mut self, life: u8, n: u64, fields: Value) {
        let mut welcome = json!({"type": "welcome", "server": "0.1.0", "room": "main", "client": self.client,
            "epoch": epoch(life), "rev": 40, "n": n, "window": 1024, "refused": [], "durability": "memory",
            "permissions": ["read", "write"], "beat_ms": 20_000});
        for (name, value) in fields.as_object().unwrap() {
            welcome[name] = value.clone();
        }
        self.say(&welcome);
        self.say(&json!({"type": "users", "count": 1}));
        self.state(life, 40, 7);
    }

    pub fn state(&mut self, life: u8, rev: u64, value: i64) {
        self.say(&json!({"type": "state", "epoch": epoch(life), "rev": rev, "value": value}));
    }

    pub fn ack(&mut self, n: u64, rev: u64) {
        self.say(&json!({"type": "ack", "n": n, "rev": rev}));
    }

    /// The next action.
    pub fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// The numbers of the next actions.
    pub fn hear_numbers(&mut self, count: usize) -> Vec<u64> {
        (0..count)
            .map(|_| self.hear()["n"].as_u64().unwrap())
            .collect()
    }

    /// Waits for the client to go, and gives the code of its close frame.
    pub fn await_end(&mut self) -> Option<u16> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Ok(Message::Text(text)) => panic!("it goes on: {text}"),
                Ok(_) => {}
                Err(Error::Io(err)) if err.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("it does not go");
                }
                Err(_) => return None,
            }
        }
    }

    /// Closes with a code and reads to the end.
    pub fn close(mut self, code: u16) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        self.socket.close(Some(frame)).unwrap();
        while self.socket.read().is_ok() {}
    }
}
