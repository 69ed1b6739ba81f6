//! The commands beside serving. What they find goes to standard output, all else to standard error.

mod action;
mod bench;
mod check;
mod journal;
mod report;
mod request;
mod transfer;
mod watch;

use std::io::ErrorKind;

pub use self::{check::check, report::Failure};

use crate::{
    config::commands::{Ask, SetArgs, StepArgs},
    model::counter::CounterAction,
};

/// Asks a server for what the command line says.
///
/// # Errors
///
/// It failed. That nobody reads its output any more is no failure.
pub async fn run(ask: Ask) -> Result<(), Failure> {
    match dispatch(ask).await {
        Err(Failure::Io(err)) if err.kind() == ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

async fn dispatch(ask: Ask) -> Result<(), Failure> {
    match ask {
        Ask::Watch(args) => watch::watch(&args).await,
        Ask::Plus(StepArgs { to, by }) => action::act(&to, CounterAction::Plus { by }).await,
        Ask::Minus(StepArgs { to, by }) => action::act(&to, CounterAction::Minus { by }).await,
        Ask::Set(SetArgs { to, value }) => action::act(&to, CounterAction::Set { value }).await,
        Ask::Reset(to) => action::act(&to, CounterAction::Reset).await,
        Ask::Journal(args) => journal::journal(&args).await,
        Ask::Export(args) => transfer::export(&args).await,
        Ask::Import(args) => transfer::import(&args).await,
        Ask::Bench(args) => bench::bench(&args).await,
    }
}
