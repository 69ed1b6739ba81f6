//! The command line: flags over `TALLYROOM_…` variables over defaults, checked before a port opens.

pub mod bench;
pub mod commands;
pub mod tls;
pub mod values;

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand};

use self::{
    commands::Ask,
    tls::TlsFlags,
    values::{Count, Size, Span},
};
use crate::{
    journal::disk::Keep,
    limits::Limits,
    socket::{
        Transport,
        admission::{AllowedHost, AllowedOrigin},
    },
};

/// Keeps one shared value per room and every open browser in step with it, live.
///
/// Without a command it serves, with the same options as `tallyroom serve`.
#[derive(Debug, Parser)]
#[command(
    name = "tallyroom",
    version,
    args_conflicts_with_subcommands = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serves the counter page and the rooms' sockets (this is also done without a command)
    #[command(max_term_width = 100)]
    Serve(Box<Serve>),
    #[command(max_term_width = 100)]
    Check(CheckArgs),
    #[command(flatten)]
    Ask(Ask),
}

impl Cli {
    /// What to do: where no command is named, to serve.
    pub fn into_command(self) -> Command {
        let serve = || Command::Serve(Box::new(self.serve));
        self.command.unwrap_or_else(serve)
    }
}

/// Verifies a data folder and prints what it found, a line for each room
///
/// Revisions go on without gaps, each batch names the one before it, and what happened makes the states
/// and the settled numbers that the snapshots hold. It changes nothing, and a server may have the folder
/// open. Damage ends it with 1 and names the room and the revision.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// The data folder, as `disk:DIR`
    #[arg(
        long,
        value_name = "STORE",
        default_value = "disk:data",
        env = "TALLYROOM_STORE"
    )]
    pub store: Store,
}

/// How to serve.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Address to listen on, HOST:PORT; may be given several times. `localhost` is both
    /// `127.0.0.1` and `[::1]`; port 0 takes a free one; `0.0.0.0` or `[::]` lets other machines in
    #[arg(long, value_name = "ADDR", default_value = "localhost:6789")]
    #[arg(env = "TALLYROOM_LISTEN", value_delimiter = ',')]
    pub listen: Vec<Listen>,

    /// Where rooms are kept. `disk:DIR`: in that folder, and every change that anybody was shown
    /// survives a crash; `memory`: nowhere, they are gone when the server stops
    #[arg(
        long,
        value_name = "STORE",
        default_value = "disk:data",
        env = "TALLYROOM_STORE"
    )]
    pub store: Store,

    /// Origin whose pages may open sockets, beside the server's own; may be given several times:
    /// `https://example.org`, `null` (pages opened as files) or `*` (all)
    #[arg(
        long,
        value_name = "ORIGIN",
        env = "TALLYROOM_ALLOW_ORIGIN",
        value_delimiter = ','
    )]
    pub allow_origin: Vec<AllowedOrigin>,

    /// Name by which a listener on loopback may be called, beside localhost; may be given several
    /// times
    #[arg(
        long,
        value_name = "HOST",
        env = "TALLYROOM_ALLOW_HOST",
        value_delimiter = ','
    )]
    pub allow_host: Vec<AllowedHost>,

    /// Folder to serve the page's files from, read at each request, while designing them
    #[arg(long = "static", value_name = "DIR", env = "TALLYROOM_STATIC", value_parser = page_folder)]
    pub static_dir: Option<PathBuf>,

    /// Worker threads that carry connections; 0: as many as there are processors
    #[arg(long, value_name = "N", default_value_t = 0, env = "TALLYROOM_WORKERS")]
    #[arg(allow_negative_numbers = true, value_parser = worker_count)]
    pub workers: u16,

    /// What carries the rooms' sockets
    #[arg(long, value_name = "TRANSPORT", env = "TALLYROOM_TRANSPORT")]
    #[arg(default_value = "direct")]
    pub transport: Transport,

    #[command(flatten)]
    pub tls: TlsFlags,

    #[command(flatten)]
    pub limits: LimitFlags,
}

/// The limits; 0 switches one off.
#[derive(Args, Clone, Debug)]
#[command(
    next_help_heading = "Limits (0 switches one off; sizes: 64KiB; durations: 200ms, 30s, 12h)"
)]
pub struct LimitFlags {
    /// Size of one message from a client; past it the session closes with 1009
    #[arg(long, value_name = "SIZE", env = "TALLYROOM_MAX_MESSAGE_BYTES")]
    #[arg(allow_negative_numbers = true, default_value_t = Size(Limits::default().max_message_bytes))]
    pub max_message_bytes: Size,

    /// Size of a room's state; an action that would pass it is refused
    #[arg(long, value_name = "SIZE", env = "TALLYROOM_MAX_STATE_BYTES")]
    #[arg(allow_negative_numbers = true, default_value_t = Size(Limits::default().max_state_bytes))]
    pub max_state_bytes: Size,

    /// Clients of a room whose numbers are remembered, each for an hour at least; past it a new one
    /// is asked to wait
    #[arg(long, value_name = "N", env = "TALLYROOM_MAX_CLIENTS_PER_ROOM")]
    #[arg(allow_negative_numbers = true, default_value_t = Count(Limits::default().max_clients_per_room.map(|max| max as u32)))]
    pub max_clients_per_room: Count,

    /// Open sockets in all; past it a handshake gets 503. By default what the limit of open files
    /// allows, less 128
    #[arg(long, value_name = "N", env = "TALLYROOM_MAX_CONNECTIONS")]
    #[arg(allow_negative_numbers = true)]
    pub max_connections: Option<Count>,

    /// Time for a request's head; past it the connection is cut
    #[arg(long, value_name = "TIME", env = "TALLYROOM_HANDSHAKE_TIMEOUT")]
    #[arg(allow_negative_numbers = true, default_value_t = Span(Limits::default().handshake_timeout))]
    pub handshake_timeout: Span,

    /// Time for a request's body; past it the connection is cut
    #[arg(long, value_name = "TIME", env = "TALLYROOM_BODY_TIMEOUT")]
    #[arg(allow_negative_numbers = true, default_value_t = Span(Limits::default().body_timeout))]
    pub body_timeout: Span,

    /// Messages a second of one session, with a burst of as many; past it each is refused
    #[arg(long, value_name = "N", env = "TALLYROOM_SESSION_RATE")]
    #[arg(allow_negative_numbers = true, default_value_t = Count(Limits::default().session_rate))]
    pub session_rate: Count,

    /// Rooms in memory; past it no further one is opened
    #[arg(long, value_name = "N", env = "TALLYROOM_MAX_ROOMS")]
    #[arg(allow_negative_numbers = true, default_value_t = Count(Limits::default().max_rooms.map(|max| max as u32)))]
    pub max_rooms: Count,

    /// Recent events kept for the sessions of a room that are behind; further behind, a session
    /// gets only the newest state
    #[arg(long, value_name = "SIZE", env = "TALLYROOM_BACKLOG_BYTES")]
    #[arg(allow_negative_numbers = true, default_value_t = Size(Limits::default().backlog_bytes))]
    pub backlog_bytes: Size,

    /// Time that a session may take nothing of what it is sent; past it, it closes with 1013
    #[arg(long, value_name = "TIME", env = "TALLYROOM_SLOW_TIMEOUT")]
    #[arg(allow_negative_numbers = true, default_value_t = Span(Limits::default().slow_timeout))]
    pub slow_timeout: Span,

    /// Ping after this much silence of a client, which is gone after as much again
    #[arg(long, value_name = "TIME", env = "TALLYROOM_HEARTBEAT")]
    #[arg(allow_negative_numbers = true, default_value_t = Span(Limits::default().heartbeat))]
    pub heartbeat: Span,

    /// Entries of a room that are kept; older ones go when a snapshot holds what they did
    #[arg(long, value_name = "N", env = "TALLYROOM_KEEP_ENTRIES")]
    #[arg(allow_negative_numbers = true, default_value_t = Count(Keep::default().entries))]
    pub keep_entries: Count,

    /// Days that entries are kept; whichever of the two is met first
    #[arg(long, value_name = "N", env = "TALLYROOM_KEEP_DAYS")]
    #[arg(allow_negative_numbers = true, default_value_t = Count(Keep::default().days))]
    pub keep_days: Count,

    /// Time that an empty room stays in memory
    #[arg(long, value_name = "TIME", env = "TALLYROOM_ROOM_IDLE")]
    #[arg(allow_negative_numbers = true, default_value_t = Span(Limits::default().room_idle))]
    pub room_idle: Span,
}

impl LimitFlags {
    /// What of a room's journal is kept.
    pub fn to_keep(&self) -> Keep {
        Keep {
            entries: self.keep_entries.0,
            days: self.keep_days.0,
        }
    }

    /// The limits as the server takes them; `max_connections` is used where none was given.
    pub fn to_limits(&self, max_connections: Option<usize>) -> Limits {
        let count = |Count(count): Count| count.map(|count| count as usize);
        Limits {
            max_message_bytes: self.max_message_bytes.0,
            max_state_bytes: self.max_state_bytes.0,
            max_clients_per_room: count(self.max_clients_per_room),
            max_connections: self.max_connections.map_or(max_connections, count),
            handshake_timeout: self.handshake_timeout.0,
            body_timeout: self.body_timeout.0,
            session_rate: self.session_rate.0,
            max_rooms: count(self.max_rooms),
            backlog_bytes: self.backlog_bytes.0,
            slow_timeout: self.slow_timeout.0,
            heartbeat: self.heartbeat.0,
            room_idle: self.room_idle.0,
        }
    }
}

fn worker_count(text: &str) -> Result<u16, &'static str> {
    let allowed = "allowed is a whole number up to 65535; 0: one for each processor";
    text.parse().map_err(|_| allowed)
}

fn page_folder(text: &str) -> Result<PathBuf, &'static str> {
    let folder = PathBuf::from(text);
    let has_page = folder.join("index.html").is_file();
    has_page
        .then_some(folder)
        .ok_or("allowed is a folder with an index.html in it")
}

/// An address as it was given: names are looked up when it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub host: String,
    pub port: u16,
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "allowed is HOST:PORT, such as localhost:6789, 0.0.0.0:80 or [::1]:0";
        let (host, port) = text.rsplit_once(':').ok_or(ALLOWED)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let plain = bracketed.is_some() || !host.contains([':', '[', ']', '/', ' ']);
        let port = port.parse().map_err(|_| ALLOWED)?;
        if host.is_empty() || !plain {
            return Err(ALLOWED);
        }
        let host = host.to_owned();
        Ok(Self { host, port })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        match host.contains(':') {
            true => write!(f, "[{host}]:{port}"),
            false => write!(f, "{host}:{port}"),
        }
    }
}

/// Where rooms are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    Memory,
    /// In a folder of its own.
    Disk(PathBuf),
}

impl FromStr for Store {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("disk", folder)) if !folder.is_empty() => Ok(Self::Disk(folder.into())),
            _ => Err("allowed are disk:DIR and memory"),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory: rooms are gone when the server stops"),
            Self::Disk(folder) => write!(f, "disk:{}", folder.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(args: &[&str]) -> Result<Serve, clap::Error> {
        let args = std::iter::once("tallyroom").chain(args.iter().copied());
        match Cli::try_parse_from(args)?.into_command() {
            Command::Serve(serve) => Ok(*serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_flags_the_limits_are_the_defaults() {
        let limits = parse(&[]).unwrap().limits.to_limits(None);
        assert_eq!(format!("{limits:?}"), format!("{:?}", Limits::default()));
    }

    #[test]
    fn serving_is_said_with_and_without_its_name() {
        for args in [
            &["--listen", "[::1]:0"][..],
            &["serve", "--listen", "[::1]:0"],
        ] {
            let listen = parse(args).unwrap().listen;
            assert_eq!(listen[0].to_string(), "[::1]:0");
        }
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let flags = [
            "--heartbeat",
            "0",
            "--backlog-bytes",
            "0",
            "--session-rate",
            "0",
        ];
        let limits = parse(&flags).unwrap().limits.to_limits(None);
        assert_eq!(
            (limits.heartbeat, limits.backlog_bytes, limits.session_rate),
            (None, None, None)
        );
    }

    #[test]
    fn wrong_settings_name_the_flag_the_value_and_what_is_allowed() {
        for (flag, value, allowed) in [
            ("--listen", "6789", "HOST:PORT"),
            ("--listen", "localhost:99999", "HOST:PORT"),
            ("--listen", "::1:80", "HOST:PORT"),
            ("--store", "floppy", "disk:DIR and memory"),
            ("--store", "disk:", "disk:DIR and memory"),
            ("--allow-origin", "example.org", "https://example.org"),
            ("--allow-host", "a b", "example.org"),
            ("--heartbeat", "soon", "200ms, 30s or 12h"),
            ("--backlog-bytes", "-1", "64KiB"),
            ("--max-rooms", "many", "whole number"),
            ("--workers", "x", "whole number"),
            ("--allow-host", "*", "example.org"),
        ] {
            let said = parse(&[flag, value]).unwrap_err().to_string();
            for part in [flag, value, allowed] {
                assert!(said.contains(part), "{said}");
            }
        }
    }
}
