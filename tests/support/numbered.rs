//! A strict client of `tallyroom.v1`: it does nothing by itself, so that a test can send again, out of
//! order, on two sockets or not at all; and it checks all that it hears.

use std::{
    io::{self, ErrorKind},
    net::TcpStream,
    time::{Duration, Instant},
};

use tungstenite::{Error, Message, WebSocket, client::IntoClientRequest};
use uuid::Uuid;

use super::{
    PATIENCE,
    ledger::{Hearing, Ledger, Said},
};

/// A session of a numbered client.
pub struct Numbered {
    socket: WebSocket<TcpStream>,
    pub hearing: Hearing,
}

/// Why a session is over: the close code, `None` where it was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub Option<u16>);

impl Numbered {
    /// Opens a session, of which nothing is read.
    ///
    /// # Errors
    ///
    /// Where the server is gone, or goes meanwhile.
    pub fn open(port: u16, room: &str, client: Uuid) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let url = format!("ws://127.0.0.1:{port}/r/{room}");
        let mut request = url.into_client_request().unwrap();
        let protocols = format!("tallyroom.v1, client.{client}");
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        let (socket, response) = match tungstenite::client(request, stream) {
            Ok(opened) => opened,
            Err(tungstenite::HandshakeError::Failure(Error::Http(answer))) => {
                panic!("the handshake was refused: {answer:?}")
            }
            Err(err) => return Err(io::Error::other(err.to_string())),
        };
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "tallyroom.v1");
        Ok(Self {
            socket,
            hearing: Hearing::default(),
        })
    }

    /// Opens a session and hears its welcome.
    ///
    /// # Errors
    ///
    /// As [`Numbered::open`].
    pub fn enter(port: u16, room: &str, ledger: &mut Ledger) -> io::Result<Self> {
        let mut session = Self::open(port, room, ledger.client)?;
        while !session.hearing.welcomed {
            if let Err(ended) = session.hear(ledger, PATIENCE) {
                return Err(io::Error::other(format!("{ended:?}")));
            }
        }
        Ok(session)
    }

    /// Sends messages in few writes.
    ///
    /// # Errors
    ///
    /// Where the connection is over.
    pub fn send(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), Ended> {
        for text in texts {
            self.socket.write(Message::text(text)).map_err(ended)?;
        }
        self.socket.flush().map_err(ended)
    }

    /// Sends these numbers of the client.
    ///
    /// # Errors
    ///
    /// Where the connection is over.
    pub fn send_numbers(
        &mut self,
        ledger: &Ledger,
        numbers: impl IntoIterator<Item = u64>,
    ) -> Result<(), Ended> {
        self.send(numbers.into_iter().map(|n| ledger.message(n)))
    }

    /// The next event, which is checked and noted; `None`: nothing was told for so long.
    ///
    /// # Errors
    ///
    /// Where the connection is over.
    pub fn hear(&mut self, ledger: &mut Ledger, patience: Duration) -> Result<Option<Said>, Ended> {
        let said = self.next(patience)?;
        if let Some(said) = &said {
            ledger.hear(&mut self.hearing, said);
        }
        Ok(said)
    }

    /// The next event, unchecked.
    ///
    /// # Errors
    ///
    /// Where the connection is over.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Said>, Ended> {
        let stream = self.socket.get_ref();
        let patience = patience.max(Duration::from_millis(1));
        stream
            .set_read_timeout(Some(patience))
            .map_err(|_| Ended(None))?;
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Ok(Some(Said::read(&text))),
                Ok(Message::Close(frame)) => {
                    return Err(Ended(frame.map(|frame| frame.code.into())));
                }
                Ok(_) => {}
                Err(Error::Io(err)) if err.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(err) => return Err(ended(err)),
            }
        }
    }

    /// Hears on until all numbers are settled and shown; what is not taken is sent again when its
    /// time has come.
    ///
    /// # Errors
    ///
    /// Where the connection is over.
    pub fn settle_all(&mut self, ledger: &mut Ledger) -> Result<(), Ended> {
        let start = Instant::now();
        let mut hold = Hold::default();
        while ledger.settled() < ledger.last() || !self.has_shown() {
            assert!(start.elapsed() < PATIENCE, "not settled: {ledger:?}");
            if let Some(from) = hold.due() {
                self.send_numbers(ledger, from.max(ledger.settled() + 1)..=ledger.last())?;
            }
            if let Some(said) = self.hear(ledger, hold.left())? {
                hold.heed(&said);
            }
        }
        Ok(())
    }

    /// Whether the states have come as far as the acks.
    pub fn has_shown(&self) -> bool {
        self.hearing.rev >= Some(self.hearing.acked.1)
    }
}

fn ended(err: Error) -> Ended {
    use tungstenite::error::ProtocolError::{ResetWithoutClosingHandshake, SendAfterClosing};
    match err {
        Error::Protocol(ResetWithoutClosingHandshake | SendAfterClosing) => Ended(None),
        Error::Protocol(_) | Error::Utf8(_) | Error::Capacity(_) => panic!("the server: {err}"),
        _ => Ended(None),
    }
}

/// What `retry` asks for: to wait for the longest, and to send once, from what is expected.
#[derive(Debug, Default)]
pub struct Hold {
    until: Option<Instant>,
    from: u64,
}

impl Hold {
    pub fn heed(&mut self, said: &Said) {
        if let Said::Retry {
            expected, after_ms, ..
        } = said
        {
            let until = Instant::now() + Duration::from_millis(*after_ms);
            self.from = match self.until {
                Some(_) => self.from.min(*expected),
                None => *expected,
            };
            self.until = self.until.max(Some(until));
        }
    }

    /// Whether something is to be sent again, later.
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// From where to send now.
    pub fn due(&mut self) -> Option<u64> {
        self.until.take_if(|until| *until <= Instant::now())?;
        Some(self.from)
    }

    /// How long to wait.
    pub fn left(&self) -> Duration {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        self.until.map_or(PATIENCE, left)
    }
}
