//! `journal`: what happened in a room.

use awc::http::header;

use crate::{
    command::{report::Failure, request::Server},
    config::commands::JournalArgs,
};

/// Prints the entries of a room's journal as they come.
///
/// Where nobody says from which revision on, it begins with the first that is kept.
pub async fn journal(args: &JournalArgs) -> Result<(), Failure> {
    let server = Server::new(&args.remote, &args.patience)?;
    let mut since = args.since.unwrap_or(0);
    loop {
        match print(&server, args, since).await {
            // Older entries may go meanwhile, so that this happens again.
            Err(Failure::Gone { first, .. }) if args.since.is_none() && first > since + 1 => {
                eprintln!("tallyroom: what came before revision {first} is no longer kept");
                since = first - 1;
            }
            done => return done,
        }
    }
}

async fn print(server: &Server, args: &JournalArgs, since: u64) -> Result<(), Failure> {
    let path = format!("/api/rooms/{}/journal?since={since}", args.room);
    let form = match args.csv {
        true => "text/csv",
        false => "application/x-ndjson",
    };
    let request = server.get(&path).insert_header((header::ACCEPT, form));
    server.answer(request.send()).await?.print().await
}
