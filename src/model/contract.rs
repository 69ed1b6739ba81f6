//! The trait [`Model`], and what its methods are told.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    edge::{Beat, Message, Received, Reply, Seat, Who},
    tell::Tell,
};
use crate::{
    fields::Fields,
    ids::{ClientId, Millis, Name, Revision},
    rejection::Rejection,
};

/// What a room holds and how an action changes it.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tallyroom::model::{By, Model};
/// use tallyroom::rejection::Rejection;
///
/// /// A lamp that anybody may switch.
/// struct Lamp;
///
/// #[derive(Serialize, Deserialize)]
/// #[serde(tag = "action", rename_all = "lowercase")]
/// enum Switch {
///     On,
///     Off,
/// }
///
/// impl Model for Lamp {
///     const NAME: &'static str = "lamp";
///     type State = bool;
///     type Action = Switch;
///
///     fn apply(state: &mut bool, action: &Switch, _by: &By) -> Result<(), Rejection> {
///         *state = matches!(action, Switch::On);
///         Ok(())
///     }
/// }
/// ```
///
/// `self` is the settings of a program, such as its flags. They are for the edge alone: what is done with
/// a state never sees them, so that a flag cannot change history.
pub trait Model: Send + Sync + Sized + 'static {
    /// Stored with every snapshot, so that another model's data is refused and not misread.
    const NAME: &'static str;

    /// The version of `State` and `Action` as they are stored, from 1. Where it rises,
    /// [`Model::migrate`] brings up what older versions stored.
    const VERSION: u32 = 1;

    /// Whether each line of a room's journal also has the `value` after it: for a model whose value is
    /// short.
    const JOURNAL_VALUE: bool = false;

    /// Whether what happens is kept.
    const KEEP: Keep = Keep::Durable;

    /// What sessions are told beside the model's own messages.
    const EVENTS: Events = Events::Json;

    /// Whether a room's sessions are numbered, for [`By::ordinal`].
    const NUMBERED: bool = false;

    type State: Clone + Default + Serialize + DeserializeOwned + Send + Sync + Unpin + 'static;
    type Action: Serialize + DeserializeOwned + Send + Sync + Unpin + 'static;

    /// Reads an action from a client's JSON object.
    ///
    /// Without one of its own a model takes whatever `Action` derives. One written by hand can say
    /// more clearly what is wrong with a field.
    ///
    /// # Errors
    ///
    /// `missing_field`, `bad_field` or `unknown_action`, with a sentence that says what is allowed.
    fn parse(fields: &Fields<'_>) -> Result<Self::Action, Rejection> {
        fields.to_action()
    }

    /// Changes `state` as `action` asks.
    ///
    /// Runs on a copy, so that an error or a panic half-way leaves no trace. It sees nothing but
    /// its arguments: no clock (the time is `by.at`), no randomness, no IO.
    ///
    /// # Errors
    ///
    /// `out_of_range` or a code of the model's own: the action is refused and changes nothing.
    fn apply(state: &mut Self::State, action: &Self::Action, by: &By) -> Result<(), Rejection>;

    /// What is told beside the state once `action` is committed, which has just made `state`.
    ///
    /// Pure as [`Model::apply`] is.
    fn tell(state: &Self::State, action: &Self::Action, by: &By) -> Vec<Tell> {
        let _ = (state, action, by);
        Vec::new()
    }

    /// What clients see of `state`: the `value` of a `state` event.
    fn view(state: &Self::State) -> impl Serialize + '_ {
        state
    }

    /// Brings what version `from` stored, older than [`Model::VERSION`], up to the present one.
    ///
    /// What an action *did* must not change: it is applied again where a room is brought back.
    ///
    /// # Errors
    ///
    /// Any rejection: the room cannot be opened, and the log says why.
    fn migrate(stored: Stored, from: u32) -> Result<Value, Rejection> {
        let _ = stored;
        let message = format!("nothing is known of version {from}");
        Err(Rejection::new("no_migration", message))
    }

    /// What a line of an export says of a room, beside its name.
    ///
    /// # Errors
    ///
    /// Where the state cannot be written as JSON.
    fn export(state: &Self::State) -> serde_json::Result<Map<String, Value>> {
        Ok(Map::from_iter([(
            "value".to_owned(),
            serde_json::to_value(state)?,
        )]))
    }

    /// The state that a line of an import begins a room with.
    ///
    /// # Errors
    ///
    /// `missing_field`, `bad_field` or `out_of_range`, with a sentence that says what is allowed.
    fn import(fields: &Fields<'_>) -> Result<Self::State, Rejection> {
        let value = fields.get("value");
        let value = value.ok_or_else(|| Rejection::missing_field("value"))?;
        serde_json::from_value(value.clone())
            .map_err(|err| Rejection::bad_field("value", &format!("a state of this model: {err}")))
    }

    // The edge: on the thread of a session, and nothing of it is kept.

    /// Where the path of a handshake leads; `None`: nowhere, it is answered with 404.
    ///
    /// The path is decoded; where that gives no UTF-8, it leads nowhere.
    fn seat(&self, path: &str) -> Option<Seat> {
        Seat::room(path)
    }

    /// What to make of a client's message, where [`Model::EVENTS`] is [`Events::None`].
    fn receive(&self, message: Message, who: Who<'_>) -> Received<Self::Action> {
        let _ = who;
        match from_json::<Self>(&message) {
            Ok(action) => Received::Act(action),
            Err(why) => Received::Refuse(why),
        }
    }

    /// A session begins. A reply comes before what the room tells it.
    fn joined(&self, who: Who<'_>) -> Received<Self::Action> {
        let _ = who;
        Received::nothing()
    }

    /// A session ended, however that came. Nobody hears a reply.
    fn left(&self, who: Who<'_>) -> Received<Self::Action> {
        let _ = who;
        Received::nothing()
    }

    /// Asked when a session begins, and again after each wait that it gives: for what comes by the
    /// clock. `None`: no more of it.
    fn beat(&self, who: Who<'_>, beat: Beat) -> Option<(Reply, Duration)> {
        let _ = (who, beat);
        None
    }
}

/// Reads a text message as a JSON object with an action in it.
///
/// # Errors
///
/// As [`Model::parse`], and what is wrong with the JSON.
fn from_json<M: Model>(message: &Message) -> Result<M::Action, Rejection> {
    match message {
        Message::Text(text) => M::parse(&Fields::parse(text)?),
        Message::Binary(_) => Err(Rejection::binary_not_allowed()),
    }
}

/// Whether what happens in a model's rooms is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As the store does.
    Durable,
    /// It has an order and is told, and then it is gone: for messages that nobody asks for later. A
    /// room's state lasts as long as the process.
    Nothing,
}

/// What a model's sessions are told beside its own messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Events {
    /// `state`, `users`, `ack`, `error`: what the page and the client libraries speak. Messages from
    /// clients are actions, read by [`Model::parse`].
    Json,
    /// Nothing: the model speaks a protocol of its own. Messages from clients go to [`Model::receive`].
    None,
}

/// Which model stored something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelId {
    pub name: &'static str,
    pub version: u32,
}

impl ModelId {
    pub fn of<M: Model>() -> Self {
        Self {
            name: M::NAME,
            version: M::VERSION,
        }
    }
}

/// Something that an older version of a model stored, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    State(Value),
    Action(Value),
}

/// By whom and when an action came, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// `None` where the client did not say who it is.
    pub client: Option<ClientId>,
    /// The name that [`Model::seat`] gave the session.
    pub name: Option<Name>,
    /// Which of the room's sessions it is, by their first actions: 1, 2, 3…, none twice. `None` without
    /// a session, or where [`Model::NUMBERED`] is not set.
    pub ordinal: Option<u64>,
    /// The revision that the action makes if it is accepted.
    pub rev: Revision,
    /// When the owner judged it; never earlier than the entry before.
    pub at: Millis,
}
