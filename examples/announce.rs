//! Clients bear numbers, and everybody hears who comes and what is said.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Received, Tell, Who},
    program,
    rejection::Rejection,
};

/// Numbers its clients, and tells everybody who comes and what is said.
#[derive(clap::Args)]
struct Announce {}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
enum Happened {
    Joined,
    Said(String),
}

impl Model for Announce {
    const NAME: &'static str = "announce";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    const NUMBERED: bool = true;
    type State = ();
    type Action = Happened;

    fn apply((): &mut (), _: &Happened, _: &By) -> Result<(), Rejection> {
        Ok(())
    }

    fn tell((): &(), happened: &Happened, by: &By) -> Vec<Tell> {
        vec![Tell::everyone(match happened {
            Happened::Joined => "Hey all, a new client has joined us".to_owned(),
            Happened::Said(text) => {
                format!("Client({}) said: {text}", by.ordinal.unwrap_or_default())
            }
        })]
    }

    fn joined(&self, _: Who<'_>) -> Received<Happened> {
        Received::Act(Happened::Joined)
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Happened> {
        message.into_text().map(Happened::Said).into()
    }
}

fn main() -> ExitCode {
    program::main::<Announce>("localhost:9001", Page::None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Announce>();
    }
}
