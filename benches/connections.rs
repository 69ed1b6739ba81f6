//! What many connections and many rooms cost while nothing happens in them: joins, memory, and a
//! busy room beside them. `benches/README.md` tells more.

// What a benchmark finds goes to standard output.
#![allow(clippy::print_stdout)]

#[path = "support/server.rs"]
mod server;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use server::{PROGRAM, Server};

/// How much is done: a run without `--bench`, as `cargo test` makes it, only shows that all works.
#[derive(Clone, Copy)]
struct Size {
    connections: usize,
    turns: usize,
    actions: usize,
}

const WHOLE: Size = Size {
    connections: 9_000,
    turns: 5,
    actions: 5_000,
};

const SHORT: Size = Size {
    connections: 100,
    turns: 1,
    actions: 50,
};

/// How many handshakes are underway at a time.
const AT_ONCE: usize = 64;

fn main() {
    let whole = std::env::args().any(|arg| arg == "--bench");
    let size = if whole { WHOLE } else { SHORT };
    // Both ends are files, of which there may be only so many.
    let files = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files is told");
    let connections = size.connections.min(files as usize - 128);
    println!("{connections} connections, joins and what they cost at rest");
    println!(
        "{:>10} {:>8} {:>8} {:>14} {:>22}",
        "transport", "dialect", "rooms", "us CPU a join", "bytes RSS a connection"
    );
    for transport in ["direct", "embedded"] {
        for dialect in ["classic", "v1"] {
            for rooms in [1, connections] {
                joins(transport, dialect, rooms, connections);
            }
        }
    }
    println!("\na busy room: 100 subscribers, us CPU an event, alone and beside others");
    println!(
        "{:>10} {:>10} {:>24} {:>8}",
        "transport", "alone", "beside rooms at rest", "ratio"
    );
    for transport in ["direct", "embedded"] {
        beside(transport, connections, size);
    }
    if !whole {
        println!("\na short run, which says nothing of speed");
    }
}

fn start(transport: &str) -> Server {
    Server::start(&[
        "--store",
        "memory",
        "--workers",
        "1",
        "--transport",
        transport,
    ])
}

fn joins(transport: &str, dialect: &str, rooms: usize, connections: usize) {
    let server = start(transport);
    // What is made once is there.
    drop(connect(server.port(), dialect, rooms, 10));
    let (cpu, resident) = (server.cpu(), server.resident());
    let sockets = connect(server.port(), dialect, rooms, connections);
    let cpu = (server.cpu() - cpu).as_secs_f64() * 1e6 / connections as f64;
    let resident = server.resident().saturating_sub(resident) / connections;
    println!("{transport:>10} {dialect:>8} {rooms:>8} {cpu:>14.1} {resident:>22}");
    drop(sockets);
}

/// Opens sockets, spread over so many rooms, each of which has its room's state when this returns.
fn connect(port: u16, dialect: &str, rooms: usize, count: usize) -> Vec<TcpStream> {
    let protocol = match dialect {
        "v1" => "Sec-WebSocket-Protocol: tallyroom.v1\r\n",
        _ => "",
    };
    let mut sockets = Vec::with_capacity(count);
    while sockets.len() < count {
        let first = sockets.len();
        for nth in first..count.min(first + AT_ONCE) {
            let room = nth % rooms;
            let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            let request = format!(
                "GET /r/r{room} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\n{protocol}Sec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            socket
                .write_all(request.as_bytes())
                .expect("a new socket takes a request");
            sockets.push(socket);
        }
        sockets[first..].iter_mut().for_each(await_state);
    }
    sockets
}

fn await_state(socket: &mut TcpStream) {
    let mut heard = Vec::new();
    while !heard.windows(7).any(|window| window == b"\"state\"") {
        let mut some = [0; 4096];
        let read = socket.read(&mut some).expect("the server answers");
        assert!(
            read > 0,
            "the server closed: {:?}",
            heard.escape_ascii().to_string()
        );
        heard.extend(&some[..read]);
    }
}

/// What an event costs in a room alone, and beside as many rooms at rest as there are connections, each
/// with somebody in it; the two take turns, and of each the median counts.
fn beside(transport: &str, rooms: usize, size: Size) {
    let (alone, crowded) = (start(transport), start(transport));
    let at_rest = connect(crowded.port(), "classic", rooms, rooms);
    let mut turns: Vec<(f64, f64)> = Vec::new();
    for _ in 0..size.turns {
        turns.push((event(&alone, size.actions), event(&crowded, size.actions)));
    }
    drop(at_rest);
    let alone = median(turns.iter().map(|(alone, _)| *alone));
    let beside = median(turns.iter().map(|(_, beside)| *beside));
    let ratio = median(turns.iter().map(|(alone, beside)| beside / alone));
    println!("{transport:>10} {alone:>10.2} {beside:>24.2} {ratio:>8.2}");
}

/// CPU time per delivered event, in microseconds, as `tallyroom bench` finds it.
fn event(server: &Server, actions: usize) -> f64 {
    let url = format!("ws://127.0.0.1:{}/r/busy", server.port());
    let (pid, actions) = (server.pid().to_string(), actions.to_string());
    let output = Command::new(PROGRAM)
        .args(["bench", "--json", "--url", &url, "--pid", &pid])
        .args(["--subscribers", "100", "--actions", &actions])
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("what it prints is JSON");
    found["cpu_us_per_event"]
        .as_f64()
        .expect("it was told a pid")
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
