//! The counter in its shortest form, within an actix-web application that has other routes, too.

use std::io;

use actix_web::{App, web};
use serde::{Deserialize, Serialize};
use tallyroom::{
    http::{page::Page, site},
    model::{By, Model},
    program::Program,
    rejection::Rejection,
    server,
};

/// A counter in each room, beside another route (/hello).
#[derive(clap::Args)]
struct Tally {}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
#[serde(tag = "action", rename_all = "lowercase")]
enum Step {
    Plus,
    Minus,
}

impl Model for Tally {
    const NAME: &'static str = "tally";
    type State = i64;
    type Action = Step;

    fn apply(value: &mut i64, step: &Step, _: &By) -> Result<(), Rejection> {
        let next = match step {
            Step::Plus => value.checked_add(1),
            Step::Minus => value.checked_sub(1),
        };
        *value = next.ok_or_else(|| Rejection::out_of_range("no number is beyond this one"))?;
        Ok(())
    }
}

#[actix_web::main]
async fn main() -> io::Result<()> {
    let shutdown = server::stop_signal()?;
    let program = Program::<Tally>::parse("localhost:6789").open()?;
    let (sockets, journal) = (program.sockets(), program.journal());
    let app = move || {
        App::new()
            .route("/hello", web::get().to(hello))
            .configure(site(sockets.clone(), journal.clone(), Page::Counter))
    };
    program.serve(app, shutdown).await
}

async fn hello() -> &'static str {
    "Hello beside the counter!"
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Tally>();
    }
}
