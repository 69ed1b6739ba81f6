//! A clock that pushes the time.

use std::{
    process::ExitCode,
    time::{Duration, UNIX_EPOCH},
};

use tallyroom::{
    http::page::Page,
    model::{Beat, By, Events, Keep, Model, Never, Reply, Who},
    program,
    rejection::Rejection,
};

/// Tells each client the time, again and again after a while of its own.
#[derive(clap::Args)]
struct Clock {
    /// The longest that one waits for the next time, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    longest: u32,
}

impl Model for Clock {
    const NAME: &'static str = "clock";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    type State = ();
    type Action = Never;

    fn apply((): &mut (), never: &Never, _: &By) -> Result<(), Rejection> {
        match *never {}
    }

    fn beat(&self, _: Who<'_>, Beat { micros, random }: Beat) -> Option<(Reply, Duration)> {
        let now = UNIX_EPOCH + Duration::from_micros(micros);
        let time = humantime::format_rfc3339_micros(now).to_string();
        let wait = random % (u64::from(self.longest) * 1_000_000 + 1);
        Some((Reply::of(time), Duration::from_micros(wait)))
    }
}

fn main() -> ExitCode {
    let page = Page::Alone(include_str!("../static/examples/clock.html"));
    program::main::<Clock>("localhost:5678", page)
}
