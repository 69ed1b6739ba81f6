//! `plus`, `minus`, `set` and `reset`: one action, exactly once.

use std::{sync::Arc, time::Instant};

use actix_web::rt::{self, time::timeout};
use serde_json::Value;

use crate::{
    client::{Client, Connection, End, SendError, Settled},
    command::report::{Failure, print_line, said},
    config::commands::ActionArgs,
    model::counter::CounterAction,
    server::stop_signal,
};

const LOOK: &str = "it may be taken or not: look at the room's value before doing it again";

/// Sends an action until it is settled, and prints the room's value with the action in it.
pub async fn act(args: &ActionArgs, action: CounterAction) -> Result<(), Failure> {
    let start = Instant::now();
    let patience = args.patience.timeout.0;
    let client = Client::builder(args.remote.url.to_string())
        .room(args.room.as_str())
        .connect()?;
    close_when_stopped(&client)?;
    let sent = match patience {
        Some(patience) => client.send_within(action, patience).await,
        None => client.send(action).await,
    };
    let settled = sent.map_err(|err| said(sentence(args, &client, err)))?;
    let value = value_at(&client, settled);
    let value = match patience {
        Some(patience) => timeout(patience.saturating_sub(start.elapsed()), value)
            .await
            .ok()
            .flatten(),
        None => value.await,
    };
    match value {
        Some(value) => print_line(&value.to_string())?,
        None => eprintln!("tallyroom: it is done; the value was not told in time"),
    }
    client.close().await;
    Ok(())
}

/// Who interrupts the command is told, too, whether the action may be taken.
fn close_when_stopped(client: &Client) -> Result<(), Failure> {
    let stopped = stop_signal()?;
    let client = client.clone();
    rt::spawn(async move {
        stopped.await;
        client.close().await;
    });
    Ok(())
}

async fn value_at(client: &Client, settled: Settled) -> Option<Arc<Value>> {
    let mut watch = client.watch();
    let view = watch.find(|view| {
        let state = view.state.as_ref();
        state.is_some_and(|state| state.epoch != settled.epoch || state.rev >= settled.rev)
    });
    Some(view.await?.state?.value)
}

fn sentence(args: &ActionArgs, client: &Client, err: SendError) -> String {
    let url = &args.remote.url;
    match err {
        SendError::Refused(why) => format!("refused: {} ({})", why.message, why.code),
        SendError::Unsure => {
            format!(
                "the room began anew, or may have forgotten the action, while it was on its way; {LOOK}"
            )
        }
        SendError::TimedOut { sent } => {
            let timeout = args.patience.timeout;
            let what = format!("no answer within {timeout}; {}", whether_taken(sent));
            match client.view().connection {
                Connection::Lost(why) => format!("{what} ({url}: {why})"),
                _ => what,
            }
        }
        SendError::Ended {
            end: End::Closed,
            sent,
        } => format!("interrupted; {}", whether_taken(sent)),
        SendError::Ended { end, sent } => format!("{url}: {end}; {}", whether_taken(sent)),
        err => err.to_string(),
    }
}

fn whether_taken(sent: bool) -> String {
    match sent {
        true => format!("the action was sent, so {LOOK}"),
        false => "the action was not sent".to_owned(),
    }
}
