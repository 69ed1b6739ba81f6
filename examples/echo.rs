//! Each message back to whoever sent it.

use std::process::ExitCode;

use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Never, Received, Seat, Who},
    program,
    rejection::Rejection,
};

/// Sends each message back: text between a prefix and a suffix, binary as it is.
#[derive(clap::Args)]
struct Echo {
    /// What stands before each text
    #[arg(long, value_name = "TEXT", default_value = "Echo: ")]
    prefix: String,
    /// What stands after it
    #[arg(long, value_name = "TEXT", default_value = "")]
    suffix: String,
}

impl Model for Echo {
    const NAME: &'static str = "echo";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Never;

    fn apply((): &mut (), never: &Never, _: &By) -> Result<(), Rejection> {
        match *never {}
    }

    fn seat(&self, path: &str) -> Option<Seat> {
        Seat::main_at(path, &["/", "/websocket"])
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Never> {
        let Self { prefix, suffix } = self;
        Received::reply(match message {
            Message::Text(text) => format!("{prefix}{text}{suffix}").into(),
            binary => binary,
        })
    }
}

fn main() -> ExitCode {
    program::main::<Echo>("localhost:8765", Page::None)
}
