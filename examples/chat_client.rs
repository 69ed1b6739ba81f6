//! A client for the chat, with a prompt: `chat_client ws://localhost:8080/websocket/ROOM/USER`.

use std::{
    env,
    error::Error,
    io::{self, BufRead, Write},
};

use actix_web::rt;
use awc::ws::{Frame, Message};
use futures_util::{SinkExt, StreamExt};
use tokio::sync::mpsc;

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: chat_client ws://localhost:8080/websocket/ROOM/USER";
    let url = env::args().nth(1).ok_or(usage)?;
    let url = percent_encoding::utf8_percent_encode(&url, percent_encoding::CONTROLS).to_string();
    let connector = awc::Client::builder()
        .max_http_version(awc::http::Version::HTTP_11)
        .finish();
    let (_, socket) = connector
        .ws(url)
        .connect()
        .await
        .map_err(|err| err.to_string())?;
    let (mut to_server, mut from_server) = socket.split();
    say("connected; each line is said to the others in the room")?;

    let mut lines = lines();
    rt::spawn(async move {
        while let Some(line) = lines.recv().await {
            to_server.send(Message::Text(line.into())).await?;
        }
        to_server.send(Message::Close(None)).await
    });
    while let Some(frame) = from_server.next().await {
        match frame? {
            // An empty text is the receipt for what one said oneself.
            Frame::Text(text) if !text.is_empty() => say(&String::from_utf8_lossy(&text))?,
            Frame::Close(_) => break,
            _ => {}
        }
    }
    Ok(())
}

/// The lines of standard input, which waits for nobody else.
fn lines() -> mpsc::Receiver<String> {
    let (said, lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if said.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}
