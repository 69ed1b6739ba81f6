//! Groups by URL, in which everybody hears what is said.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Received, Reply, Seat, Tell, Who},
    program,
    rejection::Rejection,
};

/// Carries groups by URL, /room/GROUP/: a newcomer is greeted, and each text goes to the whole group.
#[derive(clap::Args)]
struct Group {
    /// What a newcomer is told
    #[arg(long, value_name = "TEXT", default_value = "来了呀客官")]
    greeting: String,
    /// The text by which a client has itself closed
    #[arg(long, value_name = "TEXT", default_value = "关闭")]
    farewell: String,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
struct Said(String);

impl Model for Group {
    const NAME: &'static str = "group";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Said;

    fn apply((): &mut (), _: &Said, _: &By) -> Result<(), Rejection> {
        Ok(())
    }

    fn tell((): &(), Said(text): &Said, _: &By) -> Vec<Tell> {
        vec![Tell::everyone(text.as_str())]
    }

    fn seat(&self, path: &str) -> Option<Seat> {
        let group = path.strip_prefix("/room/")?.strip_suffix('/')?;
        (!group.contains('/')).then(|| Seat::named_like(group))?
    }

    fn joined(&self, _: Who<'_>) -> Received<Said> {
        Received::reply(self.greeting.as_str())
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Said> {
        match message.into_text() {
            Ok(text) if text == self.farewell => Received::Reply(Reply::close(1000)),
            text => text.map(Said).into(),
        }
    }
}

fn main() -> ExitCode {
    program::main::<Group>("localhost:8000", Page::None)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Group>();
    }
}
