//! Whoever says a name is greeted by it.

use std::process::ExitCode;

use tallyroom::{
    http::page::Page,
    model::{By, Events, Keep, Message, Model, Never, Received, Reply, Who},
    program,
    rejection::Rejection,
};

/// Reads a name, greets whoever bears it, and closes.
#[derive(clap::Args)]
struct Greet {
    /// The greeting, in which NAME stands for the name that came
    #[arg(long, value_name = "TEXT", default_value = "Hello NAME!")]
    reply: String,
}

impl Model for Greet {
    const NAME: &'static str = "greet";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Never;

    fn apply((): &mut (), never: &Never, _: &By) -> Result<(), Rejection> {
        match *never {}
    }

    fn receive(&self, message: Message, _: Who<'_>) -> Received<Never> {
        match message {
            Message::Text(name) => {
                let greeting = self.reply.replace("NAME", &name);
                Received::Reply(Reply::of(greeting).and_close(1000))
            }
            Message::Binary(_) => Received::Reply(Reply::close(1003)),
        }
    }
}

fn main() -> ExitCode {
    program::main::<Greet>("localhost:8765", Page::None)
}
