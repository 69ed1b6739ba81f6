//! `watch`: a room, live.

use std::{
    future::pending,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use serde_json::{Value, json};
use tokio::{io::Interest, net::unix::pipe::Sender};

use crate::{
    client::{Client, Connection, View},
    command::report::{Failure, print_line, said},
    config::commands::WatchArgs,
    ids::RoomName,
    server::stop_signal,
};

/// Shows a room until the command is interrupted.
pub async fn watch(args: &WatchArgs) -> Result<(), Failure> {
    let stopped = stop_signal()?;
    let client = Client::builder(args.remote.url.to_string())
        .room(args.room.as_str())
        .connect()?;
    let mut display = Display::new(args.room.clone());
    let shown = tokio::select! {
        shown = show(&client, &mut display) => shown,
        () = stopped => Ok(()),
        () = nobody_reads() => Ok(()),
    };
    display.end()?;
    if let Connection::Ended(end) = &client.view().connection {
        let url = &args.remote.url;
        return Err(said(format!("{url}: {end}")));
    }
    shown?;
    client.close().await;
    Ok(())
}

async fn show(client: &Client, display: &mut Display) -> Result<(), Failure> {
    let mut watch = client.watch();
    while let Some(view) = watch.next().await {
        if matches!(view.connection, Connection::Ended(_)) {
            break;
        }
        display.show(&view)?;
    }
    Ok(())
}

/// Resolves when whoever read standard output is gone: in a quiet room there is nothing to write by which that
/// would be noticed.
async fn nobody_reads() {
    let out = io::stdout().as_fd().try_clone_to_owned();
    // Unchecked: it stays a blocking one, since nothing is written by this.
    match out.and_then(Sender::from_owned_fd_unchecked) {
        Ok(out) => drop(out.ready(Interest::ERROR).await),
        // A file has no reader.
        Err(_) => pending().await,
    }
}

/// Where a room is shown.
enum Display {
    /// One line that is written over.
    Terminal(RoomName),
    /// A line for each change, and the last of them.
    Lines(RoomName, Option<View>),
}

impl Display {
    fn new(room: RoomName) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match io::stdout().is_terminal() && !dumb {
            true => Self::Terminal(room),
            false => Self::Lines(room, None),
        }
    }

    fn show(&mut self, view: &View) -> io::Result<()> {
        match self {
            Self::Terminal(room) => overwrite(&line_for_people(room, view)),
            Self::Lines(room, last) if is_news(last.as_ref(), view) => {
                *last = Some(view.clone());
                print_line(&line_for_programs(room, view).to_string())
            }
            Self::Lines(..) => Ok(()),
        }
    }

    /// Leaves the terminal as it should be found.
    fn end(&self) -> io::Result<()> {
        match self {
            Self::Terminal(_) => print_line(""),
            Self::Lines(..) => Ok(()),
        }
    }
}

/// Whether a line is due: nothing is known before the first state, and nothing is new while a connection is lost.
fn is_news(last: Option<&View>, view: &View) -> bool {
    match &view.connection {
        Connection::Connecting => false,
        Connection::Live => last != Some(view),
        Connection::Lost(_) | Connection::Ended(_) => {
            last.is_none_or(|last| last.connection != view.connection)
        }
    }
}

fn line_for_programs(room: &RoomName, view: &View) -> Value {
    let (status, why) = match &view.connection {
        Connection::Connecting => ("connecting", None),
        Connection::Live => ("live", None),
        Connection::Lost(why) => ("lost", Some(why)),
        Connection::Ended(_) => ("ended", None),
    };
    let state = view.state.as_ref();
    let mut line = json!({
        "room": room.as_str(),
        "connection": status,
        "epoch": state.map(|state| state.epoch),
        "rev": state.map(|state| state.rev),
        "value": state.map(|state| &*state.value),
        "users": view.users.map(|users| users.count),
    });
    if let Some(why) = why {
        line["why"] = (**why).into();
    }
    line
}

fn line_for_people(room: &RoomName, view: &View) -> String {
    let value = match &view.state {
        Some(state) => state.value.to_string(),
        None => "–".to_owned(),
    };
    let users = match view.users {
        Some(users) => format!(
            "{}{} here",
            if users.exact { "" } else { "at least " },
            users.count
        ),
        None => String::new(),
    };
    let status = match &view.connection {
        Connection::Connecting => "connecting …".to_owned(),
        Connection::Live => "live".to_owned(),
        Connection::Lost(why) => format!("not connected, trying again: {why}"),
        Connection::Ended(end) => end.to_string(),
    };
    let parts = [format!("{room}: {value}"), users, status];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("   ")
}

/// Writes over the line that the terminal shows, which is cut at the terminal's edge: one that went on in the next
/// line could not be written over.
fn overwrite(line: &str) -> io::Result<()> {
    const CLEAR: &str = "\r\x1b[2K";
    const CUT: &str = "\x1b[?7l";
    const WRAP: &str = "\x1b[?7h";
    let mut out = io::stdout().lock();
    write!(out, "{CLEAR}{CUT}{line}{WRAP}")?;
    out.flush()
}
