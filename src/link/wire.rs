//! A connection that was taken over: it is written to straight from the outbox.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use actix_codec::{AsyncRead, AsyncWrite};
use actix_web::web::BytesMut;
use tokio_util::io::poll_read_buf;

use crate::{
    framing,
    outbox::{Outbox, Recent},
};

/// How many frames go into one write at most.
const PIECES: usize = 16;

/// What a connection is: plain TCP, or TLS.
pub trait Io: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// A connection, and how it stands with it.
pub struct Wire {
    io: Box<dyn Io>,
    /// It took no more when it was written to last.
    blocked: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    pub bytes: usize,
    /// Whether there was a message in it, and not control frames alone.
    pub message: bool,
}

impl Wire {
    pub fn new(io: Box<dyn Io>) -> Self {
        Self { io, blocked: false }
    }

    /// Whether nothing can be written now: the task that was told so is woken when something can.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Ends the connection; one of TLS says so to its peer, if that takes it now.
    pub fn end(mut self) {
        let _ = Pin::new(&mut self.io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
    }

    /// Reads what is there, at the end of the buffer; 0 bytes at the end of the connection.
    pub fn poll_read(
        &mut self,
        input: &mut BytesMut,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        poll_read_buf(Pin::new(&mut self.io), task, input)
    }

    /// Writes what waits until nothing does or the connection takes no more: then the task is woken when
    /// it does.
    pub fn poll_write(
        &mut self,
        outbox: &mut Outbox,
        mut recent: Option<&mut Recent>,
        task: &mut Context<'_>,
    ) -> (Written, Poll<io::Result<()>>) {
        let mut written = Written::default();
        let done = loop {
            // TLS keeps what its connection does not take: it is given no more, which may still be conflated.
            let flushed = Pin::new(&mut self.io).poll_flush(task);
            if !matches!(flushed, Poll::Ready(Ok(()))) {
                break flushed;
            }
            match self.poll_write_once(outbox, recent.as_deref_mut(), task) {
                Poll::Ready(Ok(Written { bytes: 0, .. })) => break Poll::Ready(Ok(())),
                Poll::Ready(Ok(more)) => {
                    written.bytes += more.bytes;
                    written.message |= more.message;
                }
                Poll::Ready(Err(err)) => break Poll::Ready(Err(err)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.blocked = done.is_pending();
        (written, done)
    }

    /// One write of as much as goes into one; nothing where nothing waits.
    fn poll_write_once(
        &mut self,
        outbox: &mut Outbox,
        recent: Option<&mut Recent>,
        task: &mut Context<'_>,
    ) -> Poll<io::Result<Written>> {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for (slot, piece) in pieces.iter_mut().zip(outbox.upcoming(recent.as_deref())) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        let pieces = &pieces[..count];
        let message = pieces.iter().any(|piece| !framing::is_control(piece));
        let io = Pin::new(&mut self.io);
        let bytes = match pieces {
            [] => 0,
            [one] => ready!(io.poll_write(task, one))?,
            several => ready!(io.poll_write_vectored(task, several))?,
        };
        if bytes == 0 && count > 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        outbox.wrote(recent, bytes);
        Poll::Ready(Ok(Written { bytes, message }))
    }
}
