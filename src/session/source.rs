//! Whence comes what a client sends, whichever transport carries it.

use std::{
    cell::RefCell,
    io,
    task::{Context, Poll},
};

use actix_web::web::{Bytes, BytesMut};
use futures_util::stream::LocalBoxStream;

use crate::{connections::Place, link::Link};

/// How many bytes are read at a time.
const READ: usize = 32 * 1024;

/// Whence comes what a client sends.
pub enum Source {
    /// The embedded transport: from the payload of its request; it ends when the connection does.
    Payload(LocalBoxStream<'static, Bytes>),
    /// The direct transport: from the connection that the link has.
    Wire(Place),
}

impl Source {
    /// What came; `None` at the end of the connection.
    pub fn poll_read(&mut self, link: &Link, task: &mut Context<'_>) -> Poll<Option<BytesMut>> {
        match self {
            Self::Payload(payload) => payload
                .as_mut()
                .poll_next(task)
                .map(|bytes| bytes.map(BytesMut::from)),
            Self::Wire(_) => poll_read(link, task).map(|read| read.ok().flatten()),
        }
    }
}

/// Reads into a buffer that all sessions of the thread share, so that none has one while it is idle.
fn poll_read(link: &Link, task: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
    thread_local! {
        static INPUT: RefCell<BytesMut> = RefCell::default();
    }
    INPUT.with_borrow_mut(|input| {
        input.reserve(READ);
        link.poll_read(input, task)
            .map_ok(|read| (read > 0).then(|| input.split()))
    })
}
