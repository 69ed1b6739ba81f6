//! A shared board of sticky notes, whose fields are each as whoever wrote last left them.

use std::{collections::BTreeMap, process::ExitCode};

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    ids::Revision,
    model::{By, Model},
    program,
    rejection::Rejection,
};

/// A board of sticky notes in each room, on which several may drag and type at once.
#[derive(clap::Args)]
struct Board {}

const MAX_NOTES: usize = 500;
const MAX_TEXT: usize = 2000;
const MAX_PLACE: u32 = 10_000;

/// The notes by their ids, which whoever puts one up makes up.
type Notes = BTreeMap<String, Note>;

/// Each field is by itself: whoever drags a note and whoever writes on it do not undo each other.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Note {
    text: Field<String>,
    x: Field<u32>,
    y: Field<u32>,
    color: Field<u8>,
}

/// A value and the revision that wrote it, by which a page knows whether it is newer than its own.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Field<T> {
    value: T,
    rev: Revision,
}

impl<T: Clone> Field<T> {
    fn write(&mut self, value: &Option<T>, rev: Revision) {
        if let Some(value) = value.clone() {
            *self = Self { value, rev };
        }
    }
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
#[serde(tag = "action", rename_all = "lowercase")]
enum Action {
    /// Writes the fields that are named, on a note that is there or is put up by this.
    Put {
        id: String,
        text: Option<String>,
        x: Option<u32>,
        y: Option<u32>,
        color: Option<u8>,
    },
    Remove {
        id: String,
    },
}

impl Model for Board {
    const NAME: &'static str = "board";
    type State = Notes;
    type Action = Action;

    fn apply(notes: &mut Notes, action: &Action, by: &By) -> Result<(), Rejection> {
        match action {
            Action::Put {
                id,
                text,
                x,
                y,
                color,
            } => {
                check(id, text.as_deref(), [*x, *y])?;
                if !notes.contains_key(id) && notes.len() >= MAX_NOTES {
                    let message = format!("the board has {MAX_NOTES} notes, as many as fit");
                    return Err(Rejection::new("board_full", message));
                }
                let note = notes.entry(id.clone()).or_default();
                note.text.write(text, by.rev);
                note.x.write(x, by.rev);
                note.y.write(y, by.rev);
                note.color.write(color, by.rev);
            }
            Action::Remove { id } => {
                let gone = || Rejection::new("no_such_note", "the note is gone already");
                notes.remove(id).ok_or_else(gone)?;
            }
        }
        Ok(())
    }
}

fn check(id: &str, text: Option<&str>, place: [Option<u32>; 2]) -> Result<(), Rejection> {
    if !(1..=64).contains(&id.len()) {
        return Err(Rejection::bad_field("id", "a text of 1 to 64 bytes"));
    }
    if text.is_some_and(|text| text.len() > MAX_TEXT) {
        let allowed = format!("a text of up to {MAX_TEXT} bytes");
        return Err(Rejection::bad_field("text", &allowed));
    }
    if place.into_iter().flatten().any(|place| place > MAX_PLACE) {
        let message = format!("a note hangs from 0 to {MAX_PLACE} in both directions");
        return Err(Rejection::out_of_range(message));
    }
    Ok(())
}

fn main() -> ExitCode {
    let page = Page::Alone(include_str!("../static/examples/board.html"));
    program::main::<Board>("localhost:6791", page)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Board>();
    }
}
