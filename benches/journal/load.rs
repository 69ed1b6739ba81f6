//! Clients of `tallyroom.v1` that cost little themselves: one thread, frames made by hand, hundreds of
//! actions a write, acks found without reading JSON.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream as Blocking,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use uuid::Uuid;

/// How many numbers a client may have unsettled, and from how few on it sends more.
const WINDOW: u64 = 1024;
const REFILL: u64 = 512;

/// What the clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actions {
    /// Always the same, of which a run is written down once.
    Alike,
    /// Each another than the one before.
    Different,
}

/// All clients of a run, in one room.
pub struct Load {
    actions: Actions,
    poll: Poll,
    events: Events,
    clients: Vec<Client>,
    input: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    /// Bytes that are yet to be written, from `written` on.
    output: Vec<u8>,
    written: usize,
    /// A part of a frame that came.
    rest: Vec<u8>,
    sent: u64,
    acked: u64,
}

impl Load {
    pub fn connect(port: u16, clients: usize, actions: Actions) -> Self {
        let poll = Poll::new().unwrap();
        let client = |nth| {
            let mut client = Client::connect(port);
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = poll.registry();
            registry
                .register(&mut client.stream, Token(nth), interest)
                .unwrap();
            client
        };
        let clients = (0..clients).map(client).collect();
        Self {
            actions,
            poll,
            events: Events::with_capacity(256),
            clients,
            input: vec![0; 1 << 18],
        }
    }

    /// Keeps every client's window full for so long, and gives the acked actions a second.
    pub fn run_for(&mut self, span: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.acked());
        while start.elapsed() < span {
            self.turn(true);
        }
        (self.acked() - before) as f64 / start.elapsed().as_secs_f64()
    }

    /// Keeps every client's window full until so many are acked in all.
    pub fn run_until(&mut self, acked: u64) {
        while self.acked() < acked {
            self.turn(true);
        }
    }

    /// Waits until all that was sent is acked.
    pub fn settle(&mut self) {
        while self.clients.iter().any(|client| client.acked < client.sent) {
            self.turn(false);
        }
    }

    /// Sends one action after the other by the first client, and gives how long each ack took.
    pub fn wait_for_each(&mut self, count: usize) -> Vec<Duration> {
        self.settle();
        let one = |_| {
            let start = Instant::now();
            let client = &mut self.clients[0];
            client.add(1, Actions::Alike);
            client.flush();
            self.settle();
            start.elapsed()
        };
        (0..count).map(one).collect()
    }

    fn acked(&self) -> u64 {
        self.clients.iter().map(|client| client.acked).sum()
    }

    fn turn(&mut self, more: bool) {
        if more {
            for client in &mut self.clients {
                client.refill(self.actions);
            }
        }
        let patience = Some(Duration::from_secs(30));
        self.poll.poll(&mut self.events, patience).unwrap();
        assert!(!self.events.is_empty(), "nothing was told");
        for event in &self.events {
            let client = &mut self.clients[event.token().0];
            client.read(&mut self.input);
            if more {
                client.refill(self.actions);
            }
            client.flush();
        }
    }
}

impl Client {
    fn connect(port: u16) -> Self {
        let mut stream = Blocking::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let client = Uuid::new_v4();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: tallyroom.v1, client.{client}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101 "),
            "{}",
            String::from_utf8_lossy(&head)
        );
        stream.set_nonblocking(true).unwrap();
        Self {
            stream: TcpStream::from_std(stream),
            output: Vec::new(),
            written: 0,
            rest: Vec::new(),
            sent: 0,
            acked: 0,
        }
    }

    fn refill(&mut self, actions: Actions) {
        let unsettled = self.sent - self.acked;
        if unsettled <= REFILL {
            self.add(WINDOW - unsettled, actions);
            self.flush();
        }
    }

    /// Adds frames whose mask is 0, so that they need no masking.
    fn add(&mut self, count: u64, actions: Actions) {
        const HEADS: [&[u8]; 2] = [
            br#"{"action":"plus","n":"#,
            br#"{"action":"minus","by":7,"n":"#,
        ];
        let mut digits = itoa::Buffer::new();
        for _ in 0..count {
            self.sent += 1;
            let head = match actions {
                Actions::Alike => HEADS[0],
                Actions::Different => HEADS[self.sent as usize % 2],
            };
            let number = digits.format(self.sent).as_bytes();
            let length = head.len() + number.len() + 1;
            self.output.extend([0x81, 0x80 | length as u8, 0, 0, 0, 0]);
            self.output.extend_from_slice(head);
            self.output.extend_from_slice(number);
            self.output.push(b'}');
        }
    }

    fn flush(&mut self) {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return,
                Err(err) => panic!("{err}"),
            }
        }
        self.output.clear();
        self.written = 0;
    }

    /// Reads until nothing is left.
    fn read(&mut self, input: &mut [u8]) {
        loop {
            let before = self.rest.len();
            input[..before].copy_from_slice(&self.rest);
            match self.stream.read(&mut input[before..]) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(count) => self.take(&input[..before + count]),
                Err(err) if err.kind() == ErrorKind::WouldBlock => return,
                Err(err) => panic!("{err}"),
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((payload, rest)) = frame(bytes) {
            if let Some(ack) = payload.strip_prefix(br#"{"type":"ack","n":"#) {
                self.acked = number(ack);
            } else if payload.starts_with(br#"{"type":"retry""#)
                || payload.starts_with(br#"{"type":"error""#)
            {
                panic!("{}", String::from_utf8_lossy(payload));
            }
            bytes = rest;
        }
        self.rest.clear();
        self.rest.extend_from_slice(bytes);
    }
}

/// The first frame's payload and what follows it; `None` where it has not come wholly.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, length) = match bytes.get(1)? {
        126 => (
            4,
            u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]) as usize,
        ),
        length => (2, *length as usize),
    };
    let payload = bytes.get(head..head + length)?;
    Some((payload, &bytes[head + length..]))
}

fn number(digits: &[u8]) -> u64 {
    let digits = digits.iter().take_while(|digit| digit.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
