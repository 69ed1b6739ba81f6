//! `export` and `import`: rooms' values, from one server to another or from elsewhere.

use std::io::{self, IsTerminal, Read};

use awc::http::header;
use serde::Deserialize;

use crate::{
    command::{
        report::{Failure, print_line, said},
        request::Server,
    },
    config::commands::{ExportArgs, ImportArgs},
};

const LOOK: &str = "the rooms may be set or not: look at them by `tallyroom export`";

/// Prints rooms with their values as they come.
pub async fn export(args: &ExportArgs) -> Result<(), Failure> {
    let server = Server::new(&args.remote, &args.patience)?;
    let rooms: Vec<String> = args
        .rooms
        .iter()
        .map(|room| format!("room={room}"))
        .collect();
    let path = match rooms.is_empty() {
        true => "/api/export".to_owned(),
        false => format!("/api/export?{}", rooms.join("&")),
    };
    let request = server.get(&path);
    server.answer(request.send()).await?.print().await
}

/// Gives rooms the values that stand in standard input.
pub async fn import(args: &ImportArgs) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Imported {
        rooms: u64,
    }
    let server = Server::new(&args.remote, &args.patience)?;
    if io::stdin().is_terminal() {
        eprintln!(
            "tallyroom: reading lines such as {{\"room\":\"main\",\"value\":7}}, to their end"
        );
    }
    let mut lines = Vec::new();
    io::stdin().lock().read_to_end(&mut lines)?;
    let request = server
        .post("/api/import")
        .insert_header((header::CONTENT_TYPE, "application/x-ndjson"));
    let answer = async { server.answer(request.send_body(lines)).await?.read().await };
    let answer = answer.await.map_err(|err| match err {
        Failure::Unanswered(why) => said(format!("{why}; {LOOK}")),
        err => err,
    })?;
    let Imported { rooms } = serde_json::from_slice(&answer)
        .map_err(|err| said(format!("the server's answer was not understood: {err}")))?;
    let plural = if rooms == 1 { "" } else { "s" };
    print_line(&format!("imported {rooms} room{plural}"))?;
    Ok(())
}
