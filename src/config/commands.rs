//! The commands that ask a running server: their arguments.

use clap::{ArgAction, Args, Subcommand};

use crate::{
    client::Address,
    config::{bench::BenchArgs, values::Span},
    ids::RoomName,
    model::counter::{MAX_STEP, MAX_VALUE},
};

/// What a running server is asked for.
#[derive(Debug, Subcommand)]
pub enum Ask {
    #[command(max_term_width = 100)]
    Watch(WatchArgs),
    /// Adds to a room's value, exactly once, and prints the value
    ///
    /// It is tried until the room has judged it, over lost connections and restarts of the server, and applied
    /// once. Where that takes longer than `--timeout`, it says whether the action may be taken nevertheless.
    #[command(max_term_width = 100)]
    Plus(StepArgs),
    /// Takes from a room's value, exactly once, and prints the value
    ///
    /// It is tried until the room has judged it, over lost connections and restarts of the server, and applied
    /// once. Where that takes longer than `--timeout`, it says whether the action may be taken nevertheless.
    #[command(max_term_width = 100)]
    Minus(StepArgs),
    /// Sets a room's value, exactly once, and prints it
    ///
    /// It is tried until the room has judged it, over lost connections and restarts of the server, and applied
    /// once. Where that takes longer than `--timeout`, it says whether the action may be taken nevertheless.
    #[command(max_term_width = 100)]
    Set(SetArgs),
    /// Sets a room's value to 0, exactly once, and prints it
    ///
    /// It is tried until the room has judged it, over lost connections and restarts of the server, and applied
    /// once. Where that takes longer than `--timeout`, it says whether the action may be taken nevertheless.
    #[command(max_term_width = 100)]
    Reset(ActionArgs),
    #[command(max_term_width = 100)]
    Journal(JournalArgs),
    #[command(max_term_width = 100)]
    Export(ExportArgs),
    #[command(max_term_width = 100)]
    Import(ImportArgs),
    #[command(max_term_width = 100)]
    Bench(BenchArgs),
}

/// Which server is asked.
#[derive(Args, Clone, Debug)]
pub struct Remote {
    /// URL of the server, http or https
    #[arg(long, value_name = "URL", env = "TALLYROOM_URL")]
    #[arg(default_value = "http://localhost:6789/")]
    pub url: Address,
}

/// For how long a server is asked.
#[derive(Args, Clone, Debug)]
pub struct Patience {
    /// Time to wait for an answer, such as 200ms, 30s or 12h; 0: for ever
    #[arg(long, value_name = "TIME", env = "TALLYROOM_TIMEOUT")]
    #[arg(allow_negative_numbers = true, default_value = "30s")]
    pub timeout: Span,
}

/// Shows a room, live, until it is interrupted
///
/// In a terminal it is one line that is always current. Elsewhere each change is a line with a JSON
/// object: the value, its revision and epoch, how many users are here, and how the connection stands.
/// A connection that is lost is tried again.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// The room's name
    pub room: RoomName,

    #[command(flatten)]
    pub remote: Remote,
}

/// Where an action goes.
#[derive(Args, Clone, Debug)]
pub struct ActionArgs {
    /// The room's name
    pub room: RoomName,

    #[command(flatten)]
    pub remote: Remote,

    #[command(flatten)]
    pub patience: Patience,
}

#[derive(Args, Clone, Debug)]
pub struct StepArgs {
    #[command(flatten)]
    pub to: ActionArgs,

    /// How much
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        allow_negative_numbers = true
    )]
    #[arg(value_parser = clap::value_parser!(i64).range(1..=MAX_STEP))]
    pub by: i64,
}

#[derive(Args, Clone, Debug)]
pub struct SetArgs {
    #[command(flatten)]
    pub to: ActionArgs,

    /// The new value, a whole number within ±(2^53 − 1)
    #[arg(allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-MAX_VALUE..=MAX_VALUE))]
    pub value: i64,
}

/// Prints what happened in a room: a line for every action that was accepted, oldest first
///
/// Each is a JSON object with its revision, time, client, number and action, and the value after it.
#[derive(Args, Clone, Debug)]
pub struct JournalArgs {
    /// The room's name
    pub room: RoomName,

    /// Only what came after this revision; without it, all that is kept
    #[arg(long, value_name = "REV", allow_negative_numbers = true)]
    pub since: Option<u64>,

    /// As CSV, with a line of headings first
    #[arg(long, action = ArgAction::SetTrue)]
    pub csv: bool,

    #[command(flatten)]
    pub remote: Remote,

    #[command(flatten)]
    pub patience: Patience,
}

/// Prints rooms' values as `import` reads them, a line for each: {"room":"main","value":7}
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The rooms' names; without any, all rooms, which only the server's own machine may ask for
    #[arg(value_name = "ROOM")]
    pub rooms: Vec<RoomName>,

    #[command(flatten)]
    pub remote: Remote,

    #[command(flatten)]
    pub patience: Patience,
}

/// Sets rooms to the values that `export` printed, read from standard input
///
/// All lines are checked before any room is changed. A room that is there already begins anew with its
/// value: what happened in it before is gone. Only the server's own machine may do it.
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    #[command(flatten)]
    pub remote: Remote,

    #[command(flatten)]
    pub patience: Patience,
}
