//! Actions by POST to a server that may die at any moment.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::{PATIENCE, ledger::Ledger};

/// What became of a number that was posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    Settled,
    /// It was settled before, and is answered as it was then.
    Repeated,
    NotTaken,
}

/// Posts a number of a client by its key, all before which is known to be settled, and takes note of
/// what is answered.
///
/// # Errors
///
/// Where there is no answer: then it is not known what became of it.
pub fn post(port: u16, room: &str, key: &str, ledger: &mut Ledger, n: u64) -> io::Result<Posted> {
    let (status, replayed, answer) = ask(port, room, key, &ledger.action(n).body())?;
    let code = || answer["code"].as_str().unwrap_or_default();
    let settled = match replayed {
        true => Posted::Repeated,
        false => Posted::Settled,
    };
    match status {
        200 => {
            let (rev, value) = (
                answer["rev"].as_u64().unwrap(),
                answer["value"].as_i64().unwrap(),
            );
            ledger.settle(n, rev);
            // An older number's repeat tells the present state.
            match replayed && n < ledger.last() {
                true => ledger.show(rev, value),
                false => ledger.make(n, rev, value),
            }
            Ok(settled)
        }
        400 | 422 => {
            ledger.refuse(n, code());
            ledger.settle(n, u64::MAX);
            Ok(settled)
        }
        409 => {
            let expected = answer["expected"].as_u64().unwrap();
            assert!((ledger.settled() + 1..=n).contains(&expected), "{answer}");
            Ok(Posted::NotTaken)
        }
        429 | 503 => {
            assert!(
                ["rate_limited", "overloaded", "unavailable"].contains(&code()),
                "{answer}"
            );
            Ok(Posted::NotTaken)
        }
        _ => panic!("{status}: {answer}"),
    }
}

fn ask(port: u16, room: &str, key: &str, body: &str) -> io::Result<(u16, bool, Value)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let request = format!(
        "POST /api/rooms/{room}/actions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\nIdempotency-Key: {key}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let cut = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let head = head.to_ascii_lowercase();
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    };
    let whole = field("content-length").and_then(|length| length.parse().ok()) == Some(body.len());
    if !whole {
        return Err(cut());
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let replayed = field("idempotent-replayed") == Some("true");
    Ok((status, replayed, serde_json::from_str(body).unwrap()))
}
