//! How many connections are open, and how many may be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// The connections of one server; clones count the same ones.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    none: Notify,
}

impl Connections {
    /// Takes the place of one more connection.
    ///
    /// # Errors
    ///
    /// Where as many are open as may be; `None`: no limit.
    pub fn take(&self, max: Option<usize>) -> Result<Place, TooMany> {
        let others = self.0.open.fetch_add(1, Ordering::SeqCst);
        let place = Place(self.0.clone());
        match max {
            Some(max) if others >= max => Err(TooMany { max }),
            _ => Ok(place),
        }
    }

    /// Resolves when no connection is open; sessions may still be told so.
    pub async fn none(&self) {
        loop {
            let none = self.0.none.notified();
            if self.0.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            none.await;
        }
    }
}

/// There is no place for one more connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} connections are open, as many as may be (--max-connections)")]
pub struct TooMany {
    pub max: usize,
}

/// One of the connections that may be open; dropping it makes place.
#[derive(Debug)]
pub struct Place(Arc<Count>);

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use futures_util::poll;

    use super::*;

    #[actix_web::test]
    async fn it_is_known_when_the_last_is_gone() {
        let open = Connections::default();
        let mut places = vec![open.take(Some(2)).unwrap(), open.take(Some(2)).unwrap()];
        assert_eq!(open.take(Some(2)).unwrap_err(), TooMany { max: 2 });
        let mut none = pin!(open.none());
        assert_eq!(poll!(&mut none), Poll::Pending);
        places.pop();
        assert_eq!(poll!(&mut none), Poll::Pending);
        places.pop();
        assert_eq!(poll!(&mut none), Poll::Ready(()));
    }
}
