//! What the tests share: the real server on a port of its own, servers of other models within the
//! test's process, a client that is not ours, and a socket to send wrong bytes by.
//!
//! Whatever is awaited is awaited until [`PATIENCE`] is over, so that a busy machine fails nothing.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod attending;
pub mod conversation;
pub mod faulty;
pub mod held;
pub mod holding;
pub mod http;
pub mod in_process;
pub mod kept;
pub mod ledger;
pub mod network;
pub mod numbered;
pub mod passing_on;
pub mod placeholders;
pub mod posts;
pub mod raw;
pub mod scripted;
pub mod tls;
pub mod v1;

use std::{
    io::{BufRead, BufReader, Read},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tungstenite::{
    Error, Message, WebSocket, client::IntoClientRequest, handshake::client::Request,
};

/// How long a condition is awaited before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const PLUS: &str = r#"{"action":"plus"}"#;
pub const MINUS: &str = r#"{"action":"minus"}"#;

/// The program under test, killed when this is dropped.
pub struct Server {
    child: Child,
    port: u16,
    log: Log,
}

type Log = Arc<Mutex<String>>;

impl Server {
    /// Starts the program on a free port of 127.0.0.1 and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", args)
    }

    pub fn start_on(listen: &str, args: &[&str]) -> Self {
        let mut command = command(&["--listen", listen]);
        command.args(args);
        Self::spawn(command)
    }

    /// Starts a command that listens where it says in its log.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = follow(&mut child);
        let mut server = Self {
            child,
            port: 0,
            log,
        };
        server.port = server.await_port();
        server
    }

    fn await_port(&mut self) -> u16 {
        let mut port = None;
        await_that("the server says where it listens", || {
            let log = self.log();
            let url = log.split_once("open http").map(|(_, url)| url);
            let url = url.and_then(|url| url.trim_start_matches('s').strip_prefix("://"));
            let url = url.and_then(|url| url.split_once('/').map(|(url, _)| url));
            port = url.and_then(|url| url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()));
            let ended = self.child.try_wait().unwrap();
            assert!(
                port.is_some() || ended.is_none(),
                "it ended: {}",
                self.log()
            );
            port.is_some()
        });
        port.unwrap()
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server printed on standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the server has printed something.
    pub fn await_log(&self, what: &str) {
        await_that(what, || self.log().contains(what));
    }

    /// A client in the room `main` that has heard its `users` and `state`.
    pub fn client(&self) -> Client {
        self.client_in("/")
    }

    pub fn client_in(&self, path: &str) -> Client {
        join(self.port, path)
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub fn await_exit(&mut self) -> ExitStatus {
        let mut status = None;
        await_that("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Bytes of memory that the server has resident.
    pub fn resident(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with these arguments and none of the environment's settings but the transport, so that
/// each behaviour is tested on both.
pub fn command(args: &[&str]) -> Command {
    command_at(Path::new(env!("CARGO_BIN_EXE_tallyroom")), args)
}

/// The same for a copy of the program.
pub fn command_at(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let setting = name.starts_with("TALLYROOM_") && name != "TALLYROOM_TRANSPORT";
        if setting || name == "RUST_LOG" {
            command.env_remove(&*name);
        }
    }
    // A test that wants another store says so by a flag.
    command.env("TALLYROOM_STORE", "memory").args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::piped());
    command
}

/// Runs a program that ends by itself, and gives what it printed where that is piped.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    finished(command.spawn().unwrap())
}

/// The same for a program that was started; one that does not end is killed, and the test fails.
#[track_caller]
pub fn finished(mut child: Child) -> Output {
    drop(child.stdin.take());
    let out = child.stdout.take().map(read_to_end);
    let said = child.stderr.take().map(read_to_end);
    let bytes = |reading: Option<thread::JoinHandle<Vec<u8>>>| {
        reading.map_or_else(Vec::new, |reading| reading.join().unwrap())
    };
    let start = Instant::now();
    let mut status = child.try_wait().unwrap();
    while status.is_none() {
        if start.elapsed() >= PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            let said = bytes(said);
            panic!(
                "the program does not end: {}",
                String::from_utf8_lossy(&said)
            );
        }
        thread::sleep(Duration::from_millis(2));
        status = child.try_wait().unwrap();
    }
    Output {
        status: status.unwrap(),
        stdout: bytes(out),
        stderr: bytes(said),
    }
}

/// Reads all that a program prints while others wait for its end, so that it never waits for a reader.
fn read_to_end(mut from: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

fn follow(child: &mut Child) -> Log {
    let log = Log::default();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let written = log.clone();
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let mut log = written.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    });
    log
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Users(usize),
    State(i64),
    /// A state that is no whole number.
    Other(Value),
    Error(String),
    /// `None`: cut without a close frame.
    Closed(Option<u16>),
}

impl Event {
    pub fn read(text: &str) -> Self {
        let event: Value = serde_json::from_str(text).unwrap();
        match event["type"].as_str() {
            Some("users") => Self::Users(event["count"].as_u64().unwrap() as usize),
            Some("state") => match event["value"].as_i64() {
                Some(value) => Self::State(value),
                None => Self::Other(event["value"].clone()),
            },
            Some("error") => {
                assert!(!event["message"].as_str().unwrap().is_empty(), "{text}");
                Self::Error(event["code"].as_str().unwrap().to_owned())
            }
            _ => panic!("no event: {text}"),
        }
    }
}

/// A client that tungstenite speaks for.
pub struct Client {
    socket: WebSocket<TcpStream>,
    /// The state that it was told on joining.
    pub first: Value,
    /// How many users it was told of on joining.
    pub users: usize,
}

/// Opens a socket and reads the newcomer's `users` and `state`.
pub fn join(port: u16, path: &str) -> Client {
    let mut client = open(port, path).unwrap();
    client.users = match client.next() {
        Event::Users(users) => users,
        other => panic!("no count of users: {other:?}"),
    };
    client.first = match client.next() {
        Event::State(value) => value.into(),
        Event::Other(value) => value,
        other => panic!("no state: {other:?}"),
    };
    client
}

/// Opens a socket, of which nothing is read.
pub fn open(port: u16, path: &str) -> Result<Client, Error> {
    let request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
    open_with(("127.0.0.1", port), request)
}

/// Opens a socket by a request that may have headers of its own.
pub fn open_with(address: impl ToSocketAddrs, request: Request) -> Result<Client, Error> {
    let stream = connect(address);
    let (socket, _) = tungstenite::client(request, stream).map_err(|err| match err {
        tungstenite::HandshakeError::Failure(err) => err,
        tungstenite::HandshakeError::Interrupted(_) => panic!("no answer to the handshake"),
    })?;
    Ok(Client {
        socket,
        first: Value::Null,
        users: 0,
    })
}

/// A connection whose reads and writes give up after [`PATIENCE`].
pub fn connect(address: impl ToSocketAddrs) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    pub fn first(&self) -> i64 {
        self.first.as_i64().unwrap()
    }

    pub fn stream(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// The next text message as it came, or why there is none.
    pub fn next_text(&mut self) -> Result<String, Option<u16>> {
        let start = Instant::now();
        loop {
            // The server's pings keep a socket talking that has nothing to tell.
            assert!(start.elapsed() < PATIENCE, "nothing more was told");
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(text.as_str().to_owned()),
                Ok(Message::Close(frame)) => return Err(frame.map(|frame| frame.code.into())),
                Ok(Message::Binary(_)) => panic!("a binary message"),
                Ok(_) => {}
                Err(Error::Io(err)) if err.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("nothing more was told");
                }
                Err(err) => {
                    eprintln!("the connection ended without a close frame: {err}");
                    return Err(None);
                }
            }
        }
    }

    pub fn next(&mut self) -> Event {
        match self.next_text() {
            Ok(text) => Event::read(&text),
            Err(code) => Event::Closed(code),
        }
    }

    /// The next state; counts of users are passed over, anything else fails the test.
    pub fn next_state(&mut self) -> i64 {
        loop {
            match self.next() {
                Event::State(value) => return value,
                Event::Users(_) => {}
                other => panic!("no state: {other:?}"),
            }
        }
    }

    pub fn next_states(&mut self, count: usize) -> Vec<i64> {
        (0..count).map(|_| self.next_state()).collect()
    }

    /// Reads until there are so many users, and gives the counts on the way.
    pub fn expect_users(&mut self, count: usize) -> Vec<usize> {
        let mut counts = Vec::new();
        while counts.last() != Some(&count) {
            match self.next() {
                Event::Users(count) => counts.push(count),
                Event::State(_) => {}
                other => panic!("{count} users were expected: {other:?}"),
            }
        }
        counts
    }

    /// Reads until the state is `value`.
    pub fn expect_state(&mut self, value: i64) {
        while self.next_state() != value {}
    }

    /// The next that is no count of users is this error.
    pub fn expect_error(&mut self, code: &str) {
        let mut next = self.next();
        while matches!(next, Event::Users(_)) {
            next = self.next();
        }
        assert_eq!(next, Event::Error(code.to_owned()));
    }

    /// Reads until the socket closes, and gives its code.
    pub fn expect_close(&mut self) -> Option<u16> {
        loop {
            if let Event::Closed(code) = self.next() {
                // The client's close frame goes out while it reads on.
                while self.socket.read().is_ok() {}
                return code;
            }
        }
    }

    pub fn send(&mut self, text: &str) {
        self.socket.send(Message::text(text)).unwrap();
    }

    pub fn send_message(&mut self, message: Message) {
        self.socket.send(message).unwrap();
    }

    /// Sends one message often, in few writes and without reading.
    pub fn send_often(&mut self, text: &str, times: usize) {
        for _ in 0..times {
            self.socket.write(Message::text(text)).unwrap();
        }
        self.socket.flush().unwrap();
    }

    /// The same, for a server that may be gone: then reading tells.
    pub fn send_often_or_end(&mut self, text: &str, times: usize) {
        let written = (0..times).try_for_each(|_| self.socket.write(Message::text(text)));
        let _ = written.and_then(|()| self.socket.flush());
    }

    /// Sends one message so often, or until the connection is cut.
    pub fn send_until_cut(&mut self, text: &str, times: usize) {
        let sent = (0..times).all(|_| self.socket.write(Message::text(text)).is_ok());
        if sent {
            let _ = self.socket.flush();
        }
    }

    /// Sends messages in few writes and without reading.
    pub fn send_all(&mut self, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            self.socket.write(Message::text(text)).unwrap();
        }
        self.socket.flush().unwrap();
    }

    pub fn plus(&mut self) {
        self.send(PLUS);
    }

    /// Closes as it should be done, and reads to the end.
    pub fn close(mut self) {
        self.socket.close(None).unwrap();
        while self.socket.read().is_ok() {}
    }

    pub fn into_stream(self) -> TcpStream {
        self.socket.into_inner()
    }

    /// A second half that sends while this one reads; only for servers without heartbeat.
    pub fn sender(&self) -> Self {
        let stream = self.stream().try_clone().unwrap();
        let role = tungstenite::protocol::Role::Client;
        Self {
            socket: WebSocket::from_raw_socket(stream, role, None),
            first: Value::Null,
            users: 0,
        }
    }
}

/// Whether the tests may take their time: `tests/run --long`.
pub fn is_long() -> bool {
    std::env::var_os("TALLYROOM_TEST_LONG").is_some_and(|long| long == "1")
}

/// Where chance begins: another one each time, or the one that a failure named.
pub fn seed() -> u64 {
    let given = std::env::var("TALLYROOM_TEST_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("TALLYROOM_TEST_SEED={seed}");
    seed
}

/// Waits until a condition that nobody tells of holds.
pub fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it did not come about: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// How long something took, in seconds with two digits.
pub fn seconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 100.0).round() / 100.0
}
