//! A client of one room, for programs.
//!
//! It comes back by itself after a lost connection, and each action is applied exactly once: what is not settled when
//! a connection breaks is sent again under the same number. [`Client::send`] waits for the verdict.
//!
//! ```no_run
//! use serde_json::json;
//! use tallyroom::client::Client;
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let door = Client::builder("http://localhost:6789/").room("door").connect()?;
//!     let settled = door.send(json!({"action": "plus", "by": 2})).await?;
//!     println!("counted at revision {}", settled.rev.0);
//!
//!     let mut watch = door.watch();
//!     while let Some(view) = watch.next().await {
//!         if let Some(state) = view.state {
//!             println!("{} with {:?} here", state.value, view.users);
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The room may forget a client: its data folder was wiped, another value imported over it, or the client was away for
//! very long. The client then goes on under a fresh id with what it never sent; of the rest nobody can say whether it is
//! applied, and each caller is told so by [`SendError::Unsure`].
//!
//! [`machine`] decides all of this and knows neither socket nor clock; [`connection`] carries it out.

pub mod address;
pub mod connection;
pub mod event;
pub mod machine;
pub mod moment;
pub mod numbers;
pub mod timeouts;
pub mod transport;
pub mod view;
pub mod watched;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::{
    ids::{Epoch, InvalidRoomName, Revision},
    rejection::Rejection,
};

pub use self::{
    address::{Address, InvalidAddress},
    event::{State, Users},
    numbers::InvalidAction,
    transport::TlsError,
    view::{Connection, End, View},
};

use self::{
    connection::{Driver, Ends, Submission, Target},
    machine::{Machine, Outcome},
    numbers::{Action, Verdict},
    watched::Ended,
};

/// How many actions may wait to be taken by the client's task, beside those that it has.
const MAX_SUBMISSIONS: usize = 64;
/// Longer waits cannot be reckoned with everywhere.
const MAX_PATIENCE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A client of one room. Its clones are handles of the same one, and may be used on any thread.
///
/// When the last handle is dropped the connection is closed and what is not settled is given up.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    submissions: mpsc::Sender<Submission>,
    view: watch::Receiver<View>,
    close: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close.notify_one();
    }
}

/// An action was accepted, and committed as durably as the server keeps its rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Which life of the room's journal it is in.
    pub epoch: Epoch,
    /// A revision that includes it: its own, or one that was told together with it.
    pub rev: Revision,
}

/// What became of an action that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It can never be sent as it is.
    #[error(transparent)]
    Invalid(#[from] InvalidAction),
    /// The room's final no; nothing was changed.
    #[error("refused: {0}")]
    Refused(Rejection),
    /// It was sent, and then the room forgot this client: it is applied once or not at all. Look at the value before
    /// doing it again.
    ///
    /// Also where the client's first actions had no answer for an hour: by then a room that knows nothing of them may
    /// have forgotten them.
    #[error("the room knows nothing of this client any more; the action may be taken or not")]
    Unsure,
    /// There was no verdict in time. One that was not `sent` will never be; one that was may be taken or not, now or
    /// later.
    #[error("there was no answer in time; {}", whether_taken(*.sent))]
    TimedOut { sent: bool },
    /// The client ended first; `sent` as above.
    #[error("{end}; {}", whether_taken(*.sent))]
    Ended { end: End, sent: bool },
}

impl SendError {
    /// Whether the action may be applied nevertheless.
    pub fn may_be_taken(&self) -> bool {
        match self {
            Self::Invalid(_) | Self::Refused(_) => false,
            Self::Unsure => true,
            Self::TimedOut { sent } | Self::Ended { sent, .. } => *sent,
        }
    }
}

fn whether_taken(sent: bool) -> &'static str {
    match sent {
        true => "the action was sent, so it may be taken or not",
        false => "the action was not sent",
    }
}

/// What is asked for cannot be connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    #[error(transparent)]
    Room(#[from] InvalidRoomName),
    /// Only for an address that asks for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How a client is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    url: String,
    room: String,
    max_waiting: usize,
    max_message_bytes: usize,
}

impl Builder {
    /// The room's name; `main` without.
    pub fn room(mut self, name: impl Into<String>) -> Self {
        self.room = name.into();
        self
    }

    /// How many actions may wait to be settled before [`Client::send`] waits for a place; 4096 without.
    pub fn max_waiting(mut self, actions: usize) -> Self {
        self.max_waiting = actions.max(1);
        self
    }

    /// How large a message of the server may be, its state among them; 16 MiB without.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Starts the client, which connects by itself: nothing is awaited here, and a server that is away is none of
    /// the errors.
    ///
    /// # Errors
    ///
    /// [`BuildError`], where no try can come to anything.
    ///
    /// # Panics
    ///
    /// Outside of an actix system (`#[actix_web::main]`), on whose thread the client's task runs.
    pub fn connect(self) -> Result<Client, BuildError> {
        let address: Address = self.url.parse()?;
        let target = Target {
            http: transport::client(address.is_secure(), &Ended::default())?,
            address,
            room: self.room.parse()?,
            max_message_bytes: self.max_message_bytes,
            max_waiting: self.max_waiting,
        };
        let chance = Box::new(|| Uuid::new_v4().as_u128());
        let machine = Machine::new(Instant::now(), chance);
        let (submit, submissions) = mpsc::channel(MAX_SUBMISSIONS);
        let (show, view) = watch::channel(machine.view().clone());
        let close = Arc::new(Notify::new());
        let ends = Ends {
            submissions,
            view: show,
            close: close.clone(),
        };
        actix_web::rt::spawn(Driver::new(target, machine, ends).run());
        let shared = Shared {
            submissions: submit,
            view,
            close,
        };
        Ok(Client {
            shared: Arc::new(shared),
        })
    }
}

impl Client {
    /// A client of a room of the server at `url`, such as `http://localhost:6789/` or `https://example.org/tally/`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder {
            url: url.into(),
            room: "main".to_owned(),
            max_waiting: 4096,
            max_message_bytes: 16 << 20,
        }
    }

    /// Sends an action, again and again where a connection breaks, until the room has judged it.
    ///
    /// Actions are applied in the order in which this was first polled. Waits for a place where too many wait
    /// already. Dropping the future does not take the action back.
    ///
    /// # Errors
    ///
    /// [`SendError`] says what became of it; [`SendError::may_be_taken`] whether to look before doing it again.
    pub async fn send(&self, action: impl Serialize) -> Result<Settled, SendError> {
        self.send_until(&action, None).await
    }

    /// As [`send`](Self::send), but waits no longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`SendError`], with [`SendError::TimedOut`] among them: an action that was not sent by then is taken back.
    pub async fn send_within(
        &self,
        action: impl Serialize,
        patience: Duration,
    ) -> Result<Settled, SendError> {
        let give_up_at = Instant::now() + patience.min(MAX_PATIENCE);
        self.send_until(&action, Some(give_up_at)).await
    }

    /// The newest of what is known of the room.
    pub fn view(&self) -> View {
        self.shared.view.borrow().clone()
    }

    /// Tells of every change from now on, beginning with how things are.
    ///
    /// It does not keep the client open.
    pub fn watch(&self) -> Watch {
        let mut view = self.shared.view.clone();
        view.mark_changed();
        Watch { view }
    }

    /// Closes the connection, for all handles, and waits until that is done. What is not settled is given up.
    pub async fn close(self) {
        self.shared.close.notify_one();
        let mut view = self.shared.view.clone();
        // The client's task has the other end, and drops it when it is done.
        while view.changed().await.is_ok() {}
    }

    async fn send_until(
        &self,
        action: &impl Serialize,
        give_up_at: Option<Instant>,
    ) -> Result<Settled, SendError> {
        let action = Action::new(action)?;
        let (reply, outcome) = oneshot::channel();
        let submission = Submission {
            action,
            give_up_at,
            reply,
        };
        self.submit(submission).await?;
        match outcome.await {
            Ok(outcome) => self.read(outcome),
            // Its task was dropped together with its system.
            Err(_) => Err(self.ended(true)),
        }
    }

    async fn submit(&self, submission: Submission) -> Result<(), SendError> {
        let give_up_at = submission.give_up_at;
        let place = self.shared.submissions.reserve();
        let place = match give_up_at {
            None => place.await,
            Some(at) => match tokio::time::timeout_at(at.into(), place).await {
                Ok(place) => place,
                Err(_) => return Err(SendError::TimedOut { sent: false }),
            },
        };
        place.map_err(|_| self.ended(false))?.send(submission);
        Ok(())
    }

    fn read(&self, outcome: Outcome) -> Result<Settled, SendError> {
        match outcome {
            Outcome::Judged(Verdict::Accepted { epoch, rev }) => Ok(Settled { epoch, rev }),
            Outcome::Judged(Verdict::Refused(rejection)) => Err(SendError::Refused(rejection)),
            Outcome::Judged(Verdict::Unsure) => Err(SendError::Unsure),
            Outcome::TimedOut { sent } => Err(SendError::TimedOut { sent }),
            Outcome::Ended { sent } => Err(self.ended(sent)),
        }
    }

    fn ended(&self, sent: bool) -> SendError {
        let end = match &self.shared.view.borrow().connection {
            Connection::Ended(end) => end.clone(),
            _ => End::Closed,
        };
        SendError::Ended { end, sent }
    }
}

/// Tells what a client knows of its room, the newest each time: who comes late misses what is older.
#[derive(Clone, Debug)]
pub struct Watch {
    view: watch::Receiver<View>,
}

impl Watch {
    /// Waits for another view than the last, which the first time is the present one. `None` after the last, whose
    /// connection has ended.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<View> {
        self.view.changed().await.ok()?;
        Some(self.view.borrow_and_update().clone())
    }

    /// Waits for a view that is wanted; `None` where the client ended before.
    pub async fn find(&mut self, mut wanted: impl FnMut(&View) -> bool) -> Option<View> {
        loop {
            let view = self.next().await?;
            if wanted(&view) {
                return Some(view);
            }
        }
    }
}
