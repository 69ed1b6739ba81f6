//! Each text to everybody.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Received, Tell, Who},
    program,
    rejection::Rejection,
};

/// Sends each text to everybody, whoever sent it included.
#[derive(clap::Args)]
struct Broadcast {}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
struct Said(String);

impl Model for Broadcast {
    const NAME: &'static str = "broadcast";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Said;

    fn apply((): &mut (), _: &Said, _: &By) -> Result<(), Rejection> {
        Ok(())
    }

    fn tell((): &(), Said(text): &Said, _: &By) -> Vec<Tell> {
        vec![Tell::everyone(format!("Broadcast: {text}"))]
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Said> {
        message.into_text().map(Said).into()
    }
}

fn main() -> ExitCode {
    program::main::<Broadcast>("localhost:8765", Page::None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Broadcast>();
    }
}
