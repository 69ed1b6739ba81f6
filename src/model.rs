//! What a room holds and how an action changes it.
//!
//! A [`Model`] is the only thing to write for a new kind of room; [`counter`] is the one to copy. One
//! rule explains it: what only the sender hears is a [`Reply`] and never leaves its thread; what others
//! hear is an action, which has an order; what must last is in the state.
//!
//! What is done with a state is pure and deterministic: no clock, no IO, no randomness. The laws that
//! every model keeps, and that make it right on any number of nodes:
//!
//! 1. the same actions in the same order give the same state;
//! 2. a state that was written down and read back goes on as the original does;
//! 3. an action that is refused changes nothing (the room sees to that: it judges on a copy).

mod contract;
pub mod counter;
pub mod edge;
#[cfg(feature = "testing")]
mod laws;
mod tell;

#[cfg(feature = "testing")]
pub use self::laws::laws;
pub use self::{
    contract::{By, Events, Keep, Model, ModelId, Stored},
    edge::{Beat, Message, Never, Received, Reply, Seat, Who},
    tell::{Tell, To},
};
