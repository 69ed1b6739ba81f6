//! What a room holds and how an action changes it.
//!
//! A [`Model`] is the only thing to write for a new kind of room; [`counter`] is the one to copy.
//! A model is pure and deterministic: no clock, no IO, no randomness. The laws that every model
//! keeps, and that make it right on any number of nodes:
//!
//! 1. the same actions in the same order give the same state;
//! 2. a state that was written down and read back goes on as the original does;
//! 3. an action that is refused changes nothing (the room sees to that: it judges on a copy).

pub mod counter;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    fields::Fields,
    ids::{ClientId, Millis, Revision},
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
pub trait Model: Send + Sync + 'static {
    /// Stored with every snapshot, so that another model's data is refused and not misread.
    const NAME: &'static str;

    /// The version of `State` and `Action` as they are stored, from 1. Where it rises,
    /// [`Model::migrate`] brings up what older versions stored.
    const VERSION: u32 = 1;

    /// Whether each line of a room's journal also has the `value` after it: for a model whose value is
    /// short.
    const JOURNAL_VALUE: bool = false;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    /// `None` where the client did not say who it is.
    pub client: Option<ClientId>,
    /// The revision that the action makes if it is accepted.
    pub rev: Revision,
    /// When the owner judged it; never earlier than the entry before.
    pub at: Millis,
}
