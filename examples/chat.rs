//! Chat rooms by URL: `/websocket/ROOM/USER`.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Received, Seat, Tell, To, Who},
    program,
    rejection::Rejection,
};

/// Carries chat rooms by URL, /websocket/ROOM/USER: the others in the room get `USER: TEXT`, and whoever
/// bears the sender's name an empty text, as a receipt.
#[derive(clap::Args)]
struct Chat {}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
struct Said(String);

impl Model for Chat {
    const NAME: &'static str = "chat";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Said;

    fn apply((): &mut (), _: &Said, _: &By) -> Result<(), Rejection> {
        Ok(())
    }

    fn tell((): &(), Said(text): &Said, by: &By) -> Vec<Tell> {
        let Some(name) = by.name.clone() else {
            return Vec::new();
        };
        let said = format!("{name}: {text}");
        vec![
            Tell::new(To::AllBut(name.clone()), said),
            Tell::new(To::Named(name), ""),
        ]
    }

    fn seat(&self, path: &str) -> Option<Seat> {
        let (room, user) = path.strip_prefix("/websocket/")?.split_once('/')?;
        let is_word = |text: &str| {
            text.chars()
                .all(|char| char.is_alphanumeric() || char == '_')
        };
        let seat = Seat {
            name: Some(user.parse().ok()?),
            ..Seat::named_like(room)?
        };
        (is_word(room) && is_word(user)).then_some(seat)
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Said> {
        message.into_text().map(Said).into()
    }
}

fn main() -> ExitCode {
    program::main::<Chat>("localhost:8080", Page::None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Chat>();
    }
}
