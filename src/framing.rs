//! WebSocket frames, by actix-http's codec: what goes out is encoded once, what comes in is read
//! message by message.
//!
//! The codec is used directly and not through `actix_ws::MessageStream`, which holds whatever a
//! frame announces, tells an error before the messages that came before it, and does not tell bad
//! UTF-8 from a breach of the protocol. [`Reader`] holds one message at most.

use std::mem;

use actix_codec::Decoder;
use actix_http::ws::{Codec, Frame, OpCode, Parser};
use actix_web::web::{Bytes, BytesMut};
use actix_ws::{CloseCode, CloseReason, Item, ProtocolError};
use bytestring::ByteString;

use crate::model;

/// The longest header of a client's frame: 2 bytes, 8 of length, 4 of mask (RFC 6455, section 5.2).
const MAX_HEADER: usize = 14;

/// Appends a text message as it goes on the wire.
pub fn push_text(json: &[u8], wire: &mut BytesMut) {
    Parser::write_message(wire, json, OpCode::Text, true, false);
}

/// A model's message as it goes on the wire.
pub fn message(message: &model::Message) -> Bytes {
    let (payload, opcode) = match message {
        model::Message::Text(text) => (&text.as_bytes()[..], OpCode::Text),
        model::Message::Binary(bytes) => (&bytes[..], OpCode::Binary),
    };
    let mut wire = BytesMut::with_capacity(payload.len() + MAX_HEADER);
    Parser::write_message(&mut wire, payload, opcode, true, false);
    wire.freeze()
}

/// A text message as it goes on the wire.
pub fn text(json: &str) -> Bytes {
    let mut wire = BytesMut::with_capacity(json.len() + 4);
    push_text(json.as_bytes(), &mut wire);
    wire.freeze()
}

pub fn ping() -> Bytes {
    let mut wire = BytesMut::new();
    Parser::write_message(&mut wire, b"", OpCode::Ping, true, false);
    wire.freeze()
}

pub fn pong(payload: &[u8]) -> Bytes {
    let mut wire = BytesMut::new();
    Parser::write_message(&mut wire, payload, OpCode::Pong, true, false);
    wire.freeze()
}

/// Whether the frames begin with one that is no message: a ping, a pong, a close (RFC 6455, 5.5).
pub fn is_control(frames: &[u8]) -> bool {
    frames.first().is_some_and(|first| first & 0x08 != 0)
}

/// A close frame; without a code it answers one that had none.
pub fn close(code: Option<CloseCode>) -> Bytes {
    let mut wire = BytesMut::new();
    Parser::write_close(&mut wire, code.map(CloseReason::from), false);
    wire.freeze()
}

/// What a client sent, put together where it came in several frames.
#[derive(Debug, PartialEq)]
pub enum Input {
    Text(ByteString),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close(Option<CloseCode>),
}

/// Why a session closes at once (RFC 6455, section 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// 1002
    Protocol,
    /// 1007
    NotUtf8,
    /// 1009
    TooLarge,
}

impl Breach {
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol => CloseCode::Protocol,
            Self::NotUtf8 => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
        }
    }
}

/// Reads messages out of a client's bytes, or a server's.
///
/// Holds at most one message and its header, whatever a frame announces: as soon as more than the
/// limit has come in, it is [`Breach::TooLarge`].
pub struct Reader {
    codec: Codec,
    max_message: usize,
    input: BytesMut,
    borrowed: bool,
    partial: Option<Box<Partial>>,
}

/// The beginning of a message that comes in several frames.
struct Partial {
    text: bool,
    payload: BytesMut,
    /// How much of a text is known to be UTF-8.
    checked: usize,
}

impl Partial {
    /// A text that is none is told at the frame that makes it so.
    fn check(&mut self) -> Result<(), Breach> {
        if !self.text {
            return Ok(());
        }
        match str::from_utf8(&self.payload[self.checked..]) {
            Ok(more) => self.checked += more.len(),
            // It ends within a character.
            Err(err) if err.error_len().is_none() => self.checked += err.valid_up_to(),
            Err(_) => return Err(Breach::NotUtf8),
        }
        Ok(())
    }
}

impl Reader {
    /// `max_message` is in bytes; `None`: no limit.
    pub fn new(max_message: Option<usize>) -> Self {
        let max_message = max_message.unwrap_or(usize::MAX - MAX_HEADER);
        Self {
            codec: Codec::new().max_size(max_message),
            max_message,
            input: BytesMut::new(),
            borrowed: false,
            partial: None,
        }
    }

    /// Reads what a server sends, whose frames have no mask, instead of a client's.
    pub fn of_server(max_message: usize) -> Self {
        let reader = Self::new(Some(max_message));
        Self {
            codec: reader.codec.client_mode(),
            ..reader
        }
    }

    /// Takes in what came from the socket. The buffer may be a part of a larger one, until
    /// [`Reader::let_go`] is called or all whole messages are read.
    pub fn push(&mut self, bytes: BytesMut) {
        if self.input.is_empty() {
            self.input = bytes;
            self.borrowed = true;
        } else {
            self.input.extend_from_slice(&bytes);
        }
    }

    /// Keeps no buffer that is larger than what is in it: an idle session keeps none.
    pub fn let_go(&mut self) {
        if mem::take(&mut self.borrowed) || self.input.is_empty() {
            self.input = BytesMut::from(&self.input[..]);
        }
    }

    /// Whether nothing has come in of a message.
    pub fn is_idle(&self) -> bool {
        self.input.is_empty() && self.partial.is_none()
    }

    /// The next whole message, or `None` until more has come in.
    ///
    /// # Errors
    ///
    /// The breach for which to close; nothing after it is to be read.
    pub fn next_message(&mut self) -> Result<Option<Input>, Breach> {
        loop {
            let Some(frame) = self.codec.decode(&mut self.input)? else {
                let held = self
                    .partial
                    .as_ref()
                    .map_or(0, |partial| partial.payload.len());
                if held + self.input.len() > self.max_message + MAX_HEADER {
                    return Err(Breach::TooLarge);
                }
                self.let_go();
                return Ok(None);
            };
            let message = match frame {
                Frame::Text(payload) => Input::Text(utf8(payload)?),
                Frame::Binary(payload) => Input::Binary(payload),
                Frame::Ping(payload) => Input::Ping(payload),
                Frame::Pong(_) => Input::Pong,
                Frame::Close(reason) => Input::Close(reason.map(|reason| reason.code)),
                Frame::Continuation(item) => match self.join(item)? {
                    Some(message) => message,
                    None => continue,
                },
            };
            return Ok(Some(message));
        }
    }

    /// Joins a message of several frames; its last frame gives the whole.
    fn join(&mut self, item: Item) -> Result<Option<Input>, Breach> {
        let (payload, last) = match item {
            Item::FirstText(payload) => (self.begin(true, payload), false),
            Item::FirstBinary(payload) => (self.begin(false, payload), false),
            Item::Continue(payload) => (payload, false),
            Item::Last(payload) => (payload, true),
        };
        // The codec lets no continuation pass that has no beginning.
        let partial = self.partial.as_mut().ok_or(Breach::Protocol)?;
        if partial.payload.len() + payload.len() > self.max_message {
            return Err(Breach::TooLarge);
        }
        partial.payload.extend_from_slice(&payload);
        partial.check()?;
        if !last {
            return Ok(None);
        }
        let Some(partial) = mem::take(&mut self.partial) else {
            return Ok(None);
        };
        let Partial { text, payload, .. } = *partial;
        let payload = payload.freeze();
        Ok(Some(match text {
            true => Input::Text(utf8(payload)?),
            false => Input::Binary(payload),
        }))
    }

    fn begin(&mut self, text: bool, payload: Bytes) -> Bytes {
        self.partial = Some(Box::new(Partial {
            text,
            payload: BytesMut::new(),
            checked: 0,
        }));
        payload
    }
}

fn utf8(payload: Bytes) -> Result<ByteString, Breach> {
    ByteString::try_from(payload).map_err(|_| Breach::NotUtf8)
}

impl From<ProtocolError> for Breach {
    fn from(err: ProtocolError) -> Self {
        match err {
            ProtocolError::Overflow => Self::TooLarge,
            _ => Self::Protocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame, masked with zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![first];
        match payload.len() {
            len @ 0..126 => wire.push(0x80 | len as u8),
            len @ 126..65_536 => {
                wire.push(0x80 | 126);
                wire.extend((len as u16).to_be_bytes());
            }
            len => {
                wire.push(0x80 | 127);
                wire.extend((len as u64).to_be_bytes());
            }
        }
        wire.extend([0; 4]);
        wire.extend(payload);
        wire
    }

    fn read(wire: &[u8], piece: usize) -> (Vec<Input>, Option<Breach>) {
        let mut reader = Reader::new(Some(1000));
        let mut messages = Vec::new();
        for bytes in wire.chunks(piece) {
            reader.push(bytes.into());
            loop {
                match reader.next_message() {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => break,
                    Err(breach) => return (messages, Some(breach)),
                }
            }
        }
        (messages, None)
    }

    #[test]
    fn messages_are_read_whole_however_they_are_cut() {
        let wire = [
            frame(0x81, b"one"),
            frame(0x01, b"t\xc3"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"\xa9"),
            frame(0x82, &[7; 1000]),
            frame(0x88, &[]),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 100, wire.len()] {
            let (messages, breach) = read(&wire, piece);
            let expected = [
                Input::Text("one".into()),
                Input::Ping("ping".into()),
                Input::Text("té".into()),
                Input::Binary(vec![7; 1000].into()),
                Input::Close(None),
            ];
            assert_eq!((&messages[..], breach), (&expected[..], None));
        }
    }

    #[test]
    fn a_breach_comes_after_the_messages_before_it() {
        for (bad, breach) in [
            (frame(0x81, b"\xff"), Breach::NotUtf8),
            (frame(0x81, &[b'x'; 1001]), Breach::TooLarge),
            (frame(0x83, b""), Breach::Protocol),
            (frame(0xc1, b"rsv"), Breach::Protocol),
            (frame(0x80, b"no beginning"), Breach::Protocol),
            (vec![0x81, 0x01, b'x'], Breach::Protocol),
            (frame(0x88, &[3]), Breach::Protocol),
            (frame(0x89, &[0; 126]), Breach::Protocol),
            (
                [frame(0x01, &[b'x'; 999]), frame(0x80, b"xx")].concat(),
                Breach::TooLarge,
            ),
        ] {
            let wire = [frame(0x81, b"good"), bad].concat();
            let (messages, found) = read(&wire, wire.len());
            assert_eq!((messages.len(), found), (1, Some(breach)));
        }
    }

    #[test]
    fn a_servers_frames_have_no_mask_and_a_clients_have_one() {
        let cases = [text("hello").to_vec(), frame(0x81, b"hello")];
        for (of_server, good) in [(true, 0), (false, 1)] {
            for (nth, wire) in cases.iter().enumerate() {
                let mut reader = match of_server {
                    true => Reader::of_server(1000),
                    false => Reader::new(Some(1000)),
                };
                reader.push(wire[..].into());
                let expected = match nth == good {
                    true => Ok(Some(Input::Text("hello".into()))),
                    false => Err(Breach::Protocol),
                };
                assert_eq!(reader.next_message(), expected, "{of_server} {nth}");
            }
        }
    }

    #[test]
    fn what_a_frame_announces_is_not_held() {
        let mut wire = vec![0x81, 0xff];
        wire.extend((1u64 << 30).to_be_bytes());
        wire.extend([0; 4]);
        let mut reader = Reader::new(Some(1000));
        reader.push(wire[..].into());
        assert_eq!(reader.next_message(), Ok(None));
        for _ in 0..10 {
            reader.push(BytesMut::zeroed(100));
            assert_eq!(reader.next_message(), Ok(None));
        }
        reader.push(BytesMut::zeroed(1));
        assert_eq!(reader.next_message(), Err(Breach::TooLarge));
        assert!(
            reader.input.capacity() < 4096,
            "{}",
            reader.input.capacity()
        );
    }

    #[test]
    fn a_text_that_is_none_is_told_at_the_frame_that_makes_it_so() {
        let mut reader = Reader::new(None);
        let (begin, more) = (0x01, 0x00);
        // A character may stand in two frames.
        for (first, payload) in [(begin, &"é".as_bytes()[..1]), (more, &"é".as_bytes()[1..])] {
            reader.push(BytesMut::from(&frame(first, payload)[..]));
            assert_eq!(reader.next_message(), Ok(None));
        }
        reader.push(BytesMut::from(&frame(more, b"\xff")[..]));
        assert_eq!(reader.next_message(), Err(Breach::NotUtf8));
    }
}
