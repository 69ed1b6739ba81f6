//! A client of `tallyroom.v1` that does nothing by itself.

use std::{
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tungstenite::{Error, Message, WebSocket, protocol::Role};
use uuid::Uuid;

use super::{
    Client, PATIENCE, connect,
    http::{Answer, HANDSHAKE, exchange_by},
};

/// What a socket was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Event(Value),
    /// `None`: cut without a close frame.
    Closed(Option<u16>),
}

/// Reads the next event, or the end.
///
/// # Errors
///
/// Where nothing comes for [`PATIENCE`], or something that is no event.
pub fn hear(client: &mut Client) -> Result<Told, String> {
    let start = Instant::now();
    // The server's pings keep a socket talking that has nothing to tell.
    while start.elapsed() < PATIENCE {
        match client.socket.read() {
            Ok(Message::Text(text)) => {
                let event = serde_json::from_str(&text);
                return event
                    .map(Told::Event)
                    .map_err(|_| format!("no JSON: {text}"));
            }
            Ok(Message::Close(frame)) => {
                return Ok(Told::Closed(frame.map(|frame| frame.code.into())));
            }
            Ok(Message::Binary(_)) => return Err("a binary message came".into()),
            Ok(_) => {}
            Err(Error::Io(err)) if err.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => return Ok(Told::Closed(None)),
        }
    }
    Err("nothing more came".into())
}

/// Asks for a socket with these further lines of headers.
pub fn handshake(stream: &mut TcpStream, path: &str, lines: &[String]) -> Answer {
    let mut head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
    for line in HANDSHAKE {
        head.push_str(&format!("{line}\r\n"));
    }
    for line in lines {
        head.push_str(&format!("{line}\r\n"));
    }
    exchange_by(stream, format!("{head}\r\n").as_bytes())
}

/// A client by an open connection whose handshake is done.
pub fn shaken(stream: TcpStream) -> Client {
    Client {
        socket: WebSocket::from_raw_socket(stream, Role::Client, None),
        first: Value::Null,
        users: 0,
    }
}

/// A session of `tallyroom.v1`.
pub struct V1 {
    pub client: Client,
    pub welcome: Value,
    /// The value of the first state.
    pub first: Value,
}

impl V1 {
    /// Opens a session of a client and reads its `welcome`, `users` and `state`.
    pub fn join(port: u16, path: &str, id: Uuid) -> Self {
        Self::join_by(connect(("127.0.0.1", port)), path, id)
    }

    pub fn join_by(stream: TcpStream, path: &str, id: Uuid) -> Self {
        let mut session = Self::open_by(stream, path, id);
        session.welcome = session.event();
        assert_eq!(session.welcome["type"], "welcome");
        assert_eq!(session.event()["type"], "users");
        let state = session.event();
        assert_eq!(state["type"], "state");
        session.first = state["value"].clone();
        session
    }

    /// Opens a session, of which nothing is read.
    pub fn open_by(mut stream: TcpStream, path: &str, id: Uuid) -> Self {
        let line = format!("Sec-WebSocket-Protocol: tallyroom.v1, client.{id}");
        let answer = handshake(&mut stream, path, &[line]);
        assert_eq!(answer.status, 101, "{answer:?}");
        assert_eq!(
            answer.header("sec-websocket-protocol"),
            Some("tallyroom.v1")
        );
        Self {
            client: shaken(stream),
            welcome: Value::Null,
            first: Value::Null,
        }
    }

    /// The last of its numbers that was settled when it came.
    pub fn n(&self) -> u64 {
        self.welcome["n"].as_u64().unwrap()
    }

    /// The numbers that its welcome says were refused.
    pub fn refused(&self) -> Vec<u64> {
        let refused = self.welcome["refused"].as_array().unwrap();
        refused
            .iter()
            .map(|refused| refused["n"].as_u64().unwrap())
            .collect()
    }

    pub fn told(&mut self) -> Told {
        hear(&mut self.client).unwrap()
    }

    #[track_caller]
    pub fn event(&mut self) -> Value {
        match self.told() {
            Told::Event(event) => event,
            Told::Closed(code) => panic!("it was closed with {code:?}"),
        }
    }

    /// The next event that is wanted; those before it are passed over, as long as [`PATIENCE`] lasts.
    #[track_caller]
    fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        let mut passed = Value::Null;
        // Beats keep a session talking that has nothing to tell.
        while start.elapsed() < PATIENCE {
            let event = self.event();
            if wanted(&event) {
                return event;
            }
            if event["type"] != "beat" {
                passed = event;
            }
        }
        panic!("it did not come; the last that came was {passed}");
    }

    /// The next event of this type.
    #[track_caller]
    pub fn next(&mut self, kind: &str) -> Value {
        self.find(|event| event["type"] == kind)
    }

    /// The next event but for counts of users.
    #[track_caller]
    pub fn answer(&mut self) -> Value {
        self.find(|event| event["type"] != "users")
    }

    /// Reads until the state has this value, and gives its revision.
    #[track_caller]
    pub fn expect_state(&mut self, value: i64) -> u64 {
        let state = self.find(|event| event["type"] == "state" && event["value"] == value);
        state["rev"].as_u64().unwrap()
    }

    /// Reads until everything up to `n` is settled, and gives the revision that was told with it.
    #[track_caller]
    pub fn expect_ack(&mut self, n: u64) -> u64 {
        let settles = |ack: &Value| ack["n"].as_u64().is_some_and(|settled| settled >= n);
        let ack = self.find(|event| event["type"] == "ack" && settles(event));
        ack["rev"].as_u64().unwrap()
    }

    /// Reads to the close, and gives its code and what was told before it.
    pub fn read_to_close(&mut self) -> (Option<u16>, Vec<Value>) {
        let mut events = Vec::new();
        loop {
            match self.told() {
                Told::Event(event) => events.push(event),
                Told::Closed(code) => return (code, events),
            }
        }
    }

    /// Sends an action, given as its fields, with a number.
    pub fn send(&mut self, n: u64, action: Value) {
        self.client.send(&numbered(n, action));
    }

    /// Sends `plus` with each of these numbers, in few writes and without reading.
    pub fn send_plus(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let plus = |n| numbered(n, json!({"action": "plus"}));
        self.client.send_all(numbers.into_iter().map(plus));
    }
}

/// The message of a numbered action.
pub fn numbered(n: u64, mut action: Value) -> String {
    action["n"] = n.into();
    action.to_string()
}

/// How long an event asks to wait.
pub fn delay(retry: &Value) -> Duration {
    Duration::from_millis(retry["after_ms"].as_u64().unwrap())
}
