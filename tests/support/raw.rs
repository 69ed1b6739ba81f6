//! A WebSocket by hand, for bytes that no client would send.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::{Event, PATIENCE, connect};

pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

/// A client's frame: its first byte, and its payload masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    let masked = payload.iter().enumerate();
    frame.extend(masked.map(|(at, byte)| byte ^ MASK[at % 4]));
    frame
}

/// The header of a client's frame that announces `len` bytes.
pub fn header(first: u8, len: u64) -> Vec<u8> {
    let mut header = vec![first];
    match len {
        0..126 => header.push(0x80 | len as u8),
        126..0x1_0000 => {
            header.push(0x80 | 126);
            header.extend((len as u16).to_be_bytes());
        }
        _ => {
            header.push(0x80 | 127);
            header.extend(len.to_be_bytes());
        }
    }
    header.extend(MASK);
    header
}

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An open WebSocket that does nothing by itself: it answers no ping and no close.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub fn open(port: u16, path: &str) -> Self {
        Self::open_by(connect(("127.0.0.1", port)), path)
    }

    pub fn open_by(mut stream: TcpStream, path: &str) -> Self {
        Self::ask(&mut stream, path);
        Self::answered(stream)
    }

    /// Sends a handshake, whose answer is not read.
    pub fn ask(stream: &mut TcpStream, path: &str) {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
    }

    /// Reads the answer to a handshake.
    pub fn answered(mut stream: TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self { stream }
    }

    /// An open WebSocket that has read its `users` and `state`.
    pub fn join(port: u16, path: &str) -> Self {
        let mut raw = Self::open(port, path);
        assert!(matches!(raw.next(), Event::Users(_)));
        assert!(matches!(raw.next(), Event::State(_)));
        raw
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame: its opcode and its payload.
    pub fn next_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[0] & 0xf0, 0x80, "the server sends whole messages");
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len)?;
                u16::from_be_bytes(len) as usize
            }
            127 => {
                let mut len = [0; 8];
                self.stream.read_exact(&mut len)?;
                u64::from_be_bytes(len) as usize
            }
            len => len as usize,
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload)?;
        Ok((head[0] & 0x0f, payload))
    }

    /// The next event; pings and pongs are passed over.
    pub fn next(&mut self) -> Event {
        loop {
            match self.next_frame() {
                Ok((1, text)) => return Event::read(std::str::from_utf8(&text).unwrap()),
                Ok((8, payload)) => {
                    let code = payload.get(..2).map(|code| [code[0], code[1]]);
                    return Event::Closed(code.map(u16::from_be_bytes));
                }
                Ok((9 | 10, _)) => {}
                Ok((opcode, _)) => panic!("an opcode {opcode}"),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                    panic!("nothing more was told");
                }
                Err(_) => return Event::Closed(None),
            }
        }
    }

    /// Reads to the close and beyond it to the end of the connection, and gives what came.
    pub fn read_to_end(&mut self) -> Vec<Event> {
        let mut events = vec![self.next()];
        while !matches!(events.last(), Some(Event::Closed(_))) {
            events.push(self.next());
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        match io::copy(&mut self.stream, &mut io::sink()) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => panic!("it was not cut"),
            _ => events,
        }
    }

    /// Ends the connection with a reset instead of a farewell.
    pub fn reset(self) {
        reset(self.stream);
    }
}

/// Ends a connection with a reset: what a crash of the other machine's process looks like.
pub fn reset(stream: TcpStream) {
    let socket = Socket::from(stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

/// A connection that takes little into its own buffer before the server has to keep the rest.
pub fn with_little_buffer(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.into()
}
