//! The arguments of `bench`.

use clap::{ArgAction, Args};

use crate::{client::address::SocketUrl, config::values::Span};

/// The most clients of each kind: more than an address has ports for.
const MAX_CLIENTS: u64 = 65_535;
/// A time is kept for each action, of 8 bytes.
const MAX_ACTIONS: u64 = 100_000_000;
const MAX_RATE: u64 = 10_000_000;
const MAX_PID: u64 = i32::MAX as u64;

/// The most actions that a writer keeps unanswered, whatever it is asked for.
pub const MAX_UNANSWERED: u64 = 65_536;

/// Reads a whole number within limits, which are named where it is none.
fn from_to(least: u64, most: u64) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok();
        let within = number.filter(|number| (least..=most).contains(number));
        let number = within.and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| format!("allowed is a whole number from {least} to {most}"))
    }
}

/// Measures a server: how much it does, how fast, and whether every client is told everything
///
/// Its clients enter one room, of this server or of any other that speaks the dialect of the well-known counter
/// example. When all are in, writers send `plus`, each its next when an earlier one is answered. Latency is from then
/// to a client's hearing of it, at up to 100 of the subscribers. Whoever else acts in the room spoils a run, which is
/// said. A run that is not complete ends with 1.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// URL of the room's socket, ws or wss (or http or https), with any path
    #[arg(long, value_name = "URL", env = "TALLYROOM_URL")]
    #[arg(default_value = "ws://localhost:6789/")]
    pub url: SocketUrl,

    /// Clients that only listen; without any, latency is that of the writers
    #[arg(
        long,
        value_name = "N",
        default_value_t = 100,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = from_to(0, MAX_CLIENTS))]
    pub subscribers: usize,

    /// Clients that send actions, and listen as well
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = from_to(1, MAX_CLIENTS))]
    pub writers: usize,

    /// Clients with a small receive buffer that read nothing while actions go on, not even a ping. After the last action
    /// they read again: each must come to the last state, whatever was left out, or the server must have dropped it, with
    /// 1013 or, where that could not reach it, without a word
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = from_to(0, MAX_CLIENTS))]
    pub stalled: usize,

    /// Actions that each writer keeps unanswered
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = from_to(1, MAX_UNANSWERED))]
    pub pipeline: usize,

    /// Actions in all
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = from_to(1, MAX_ACTIONS))]
    pub actions: usize,

    /// Actions a second of all writers together, answered or not, instead of as many as --pipeline allows. Latency
    /// then counts from the time at which an action was due
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = from_to(1, MAX_RATE))]
    pub rate: Option<usize>,

    /// Speak tallyroom.v1: writers number their actions, and each must be settled. Clients may then be told only the
    /// newest state
    #[arg(long, action = ArgAction::SetTrue)]
    pub v1: bool,

    /// Time for the whole run, such as 30s or 5m; 0: no limit
    #[arg(
        long,
        value_name = "TIME",
        default_value = "60s",
        allow_negative_numbers = true
    )]
    pub timeout: Span,

    /// Process of the server on this machine, whose CPU time and memory are to be measured (Linux only)
    #[arg(long, value_name = "PID", allow_negative_numbers = true)]
    #[arg(value_parser = from_to(1, MAX_PID))]
    pub pid: Option<usize>,

    /// Print one JSON object instead of a table
    #[arg(long, action = ArgAction::SetTrue)]
    pub json: bool,
}
