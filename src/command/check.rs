//! `tallyroom check`: is a data folder sound?

use std::io;

use super::report::{Failure, print_line};
use crate::{
    check::{CheckError, check as check_folder},
    config::{CheckArgs, Store},
    model::counter::Counter,
};

/// Prints a line for each room, and fails with the first that is damaged.
pub fn check(args: &CheckArgs) -> Result<(), Failure> {
    let Store::Disk(folder) = &args.store else {
        return Err(Failure::Said(
            "a store in memory has no folder; name one by --store disk:DIR".to_owned(),
        ));
    };
    let mut rooms = 0;
    let mut printed = Ok(());
    let checked = check_folder::<Counter>(folder, |room| {
        rooms += 1;
        let line = match room {
            Ok(sound) => sound.to_string(),
            Err(err) => err.to_string(),
        };
        if printed.is_ok() {
            printed = print_line(&line);
        }
    });
    checked.map_err(|err| describe(&err, args))?;
    let quiet = |err: &io::Error| err.kind() == io::ErrorKind::BrokenPipe;
    printed.or_else(|err| if quiet(&err) { Ok(()) } else { Err(err) })?;
    eprintln!("{}: all sound; rooms: {rooms}", folder.display());
    Ok(())
}

fn describe(err: &CheckError, args: &CheckArgs) -> Failure {
    Failure::Said(match err {
        // It names the file itself.
        CheckError::Open(err) => err.to_string(),
        _ => format!("{}: {err}", args.store),
    })
}
