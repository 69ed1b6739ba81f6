//! Models that speak a protocol of their own: who hears what, in which order, and what becomes of those
//! who fall behind, come too fast, or meet a fault of the model.

mod support;

use std::{
    io::Write,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use support::{
    Client, await_that,
    in_process::InProcess,
    raw::{Raw, TEXT, frame, with_little_buffer},
};
use tallyroom::{
    journal::{Journal, disk::DiskJournal, memory::MemoryJournal},
    limits::{Limits, MAX_READ_PAUSE},
    model::{By, Events, Keep, Message, Model, ModelId, Received, Reply, Seat, Tell, To, Who},
    rejection::Rejection,
};
use tungstenite::Message as Sent;

/// `TO TEXT` goes to whom it says; `/NAME` is a name in room `main`, `/ROOM/NAME` in another.
struct Letters;

#[derive(Serialize, Deserialize)]
struct Letter(String);

impl Model for Letters {
    const NAME: &'static str = "letters";
    const KEEP: Keep = Keep::Nothing;
    const EVENTS: Events = Events::None;
    const NUMBERED: bool = true;
    type State = ();
    type Action = Letter;

    fn apply((): &mut (), Letter(text): &Letter, _: &By) -> Result<(), Rejection> {
        match text.as_str() {
            "refuse" => Err(Rejection::new("no", "not this one")),
            _ => Ok(()),
        }
    }

    fn tell((): &(), Letter(letter): &Letter, by: &By) -> Vec<Tell> {
        let (to, text) = letter.split_once(' ').unwrap_or((letter, ""));
        let name = |name: &str| name.parse().unwrap();
        let to = match to {
            "everyone" => To::Everyone,
            "sender" => To::Sender,
            "others" => To::Others,
            "number" | "shout" => {
                let number = by.ordinal.unwrap().to_string();
                let to = if to == "shout" {
                    To::Everyone
                } else {
                    To::Sender
                };
                return vec![Tell::new(to, number)];
            }
            to => match to.strip_prefix('-') {
                Some(but) => To::AllBut(name(but)),
                None => To::Named(name(to)),
            },
        };
        vec![Tell::new(to, text)]
    }

    fn seat(&self, path: &str) -> Option<Seat> {
        let path = path.strip_prefix('/')?;
        assert_ne!(path, "fault", "a fault of the model");
        let (room, name) = path.split_once('/').unwrap_or(("main", path));
        Some(Seat {
            room: room.parse().ok()?,
            name: name.parse().ok(),
        })
    }

    fn receive(&self, message: Message, who: Who<'_>) -> Received<Letter> {
        match message.into_text() {
            Ok(text) if text == "fault" => panic!("a fault of the model"),
            Ok(text) if text == "who" => {
                Received::reply(who.name.map_or("nobody", |name| name.as_str()))
            }
            Ok(text) if text.starts_with("echo ") => Received::reply(text),
            Ok(text) if text == "close" => Received::Reply(Reply::of("closing").and_close(4000)),
            text => text.map(Letter).into(),
        }
    }

    fn left(&self, who: Who<'_>) -> Received<Letter> {
        match who.name {
            Some(name) => Received::Act(Letter(format!("others {name} left"))),
            None => Received::nothing(),
        }
    }
}

fn letters(limits: Limits) -> InProcess {
    InProcess::start(Letters, Arc::new(MemoryJournal::new()), limits)
}

fn open(server: &InProcess, path: &str) -> Client {
    let mut client = support::open(server.port(), path).unwrap();
    // It is in its room when it hears itself.
    client.send("sender here");
    assert_eq!(client.next_text().unwrap(), "here");
    client
}

#[track_caller]
fn hears(client: &mut Client, expected: &[&str]) {
    for expected in expected {
        assert_eq!(client.next_text().unwrap(), *expected);
    }
}

#[test]
fn each_hears_what_is_for_it_in_the_order_of_the_room() {
    let server = letters(Limits::default());
    let mut ann = open(&server, "/ann");
    let mut phone = open(&server, "/ann");
    let mut bob = open(&server, "/bob");
    let mut elsewhere = open(&server, "/other/ann");
    for letter in [
        "everyone 1",
        "others 2",
        "sender 3",
        "ann 4",
        "bob 5",
        "-ann 6",
        "-bob 7",
        "nobody 8",
        "-nobody 9",
        "refuse",
        "everyone 10",
    ] {
        ann.send(letter);
    }
    hears(&mut ann, &["1", "3", "4", "7", "9", "10"]);
    hears(&mut phone, &["1", "2", "4", "7", "9", "10"]);
    hears(&mut bob, &["1", "2", "5", "6", "9", "10"]);
    elsewhere.send("everyone alone");
    hears(&mut elsewhere, &["alone"]);
    // A name is gone with the last who bears it.
    phone.close();
    hears(&mut bob, &["ann left"]);
    hears(&mut ann, &["ann left"]);
    bob.send("ann still here");
    hears(&mut ann, &["still here"]);
    drop(ann);
    hears(&mut bob, &["ann left"]);
    bob.send("ann nobody");
    bob.send("everyone last");
    hears(&mut bob, &["last"]);
}

#[test]
fn what_a_session_alone_is_told_needs_no_room_and_may_close_it() {
    let server = letters(Limits::default());
    let mut ann = open(&server, "/ann");
    ann.send("who");
    hears(&mut ann, &["ann"]);
    ann.send_message(Sent::Binary(vec![1].into()));
    ann.send("who");
    hears(&mut ann, &["ann"]);
    ann.send("close");
    hears(&mut ann, &["closing"]);
    assert_eq!(ann.expect_close(), Some(4000));
}

/// A session that had more to say than may wait stopped reading, said all of it at once, and then slept for
/// five seconds on what it had read already.
#[test]
fn what_comes_behind_a_long_answer_is_answered_as_soon_as_that_is_taken() {
    /// How much the connection takes at a time is the kernel's affair.
    const LONG: [usize; 4] = [65, 100, 256, 4096];
    let limits = Limits {
        max_message_bytes: None,
        ..Limits::default()
    };
    let server = letters(limits);
    for kib in LONG.repeat(5) {
        let text = format!("echo {}", "x".repeat(kib * 1024));
        let asked = [
            frame(TEXT, text.as_bytes()),
            frame(TEXT, b"who"),
            frame(TEXT, b"close"),
        ];
        let mut ann = Raw::open(server.port(), "/ann");
        let mut writing = ann.stream.try_clone().unwrap();
        let asked = asked.concat();
        let start = Instant::now();
        let writer = thread::spawn(move || writing.write_all(&asked).unwrap());
        let mut told = || ann.next_frame().unwrap();
        assert_eq!(told().1.len(), text.len());
        assert_eq!(told(), (1, b"ann".to_vec()));
        assert_eq!(told(), (1, b"closing".to_vec()));
        assert_eq!(told().0, 8);
        assert!(start.elapsed() < MAX_READ_PAUSE, "{:?}", start.elapsed());
        writer.join().unwrap();
    }
}

#[test]
fn a_number_is_given_with_the_first_action_that_is_accepted_and_never_again() {
    const IDLE: Duration = Duration::from_millis(20);
    let limits = Limits {
        room_idle: Some(IDLE),
        ..Limits::default()
    };
    let server = letters(limits);
    let mut watching = open(&server, "/watching");
    let mut ann = support::open(server.port(), "/ann").unwrap();
    ann.send("refuse");
    ann.send("number");
    hears(&mut ann, &["2"]);
    // What is said right before leaving is still its own.
    ann.send("shout");
    ann.close();
    hears(&mut watching, &["2", "ann left"]);
    let mut bob = support::open(server.port(), "/bob").unwrap();
    bob.send("shout");
    hears(&mut watching, &["3"]);
    hears(&mut bob, &["3"]);
    let mut elsewhere = support::open(server.port(), "/other/ann").unwrap();
    elsewhere.send("number");
    hears(&mut elsewhere, &["1"]);
    bob.close();
    watching.close();
    // Nobody is there for so long that the room goes to rest.
    thread::sleep(10 * IDLE);
    let mut eve = support::open(server.port(), "/eve").unwrap();
    eve.send("number");
    hears(&mut eve, &["4"]);
}

#[test]
fn who_is_over_the_rate_is_read_later_and_nothing_is_lost() {
    const RATE: u32 = 50;
    let limits = Limits {
        session_rate: Some(RATE),
        ..Limits::default()
    };
    let server = letters(limits);
    let mut ann = open(&server, "/ann");
    let texts = (0..2 * RATE).map(|nth| format!("everyone {nth}"));
    ann.send_all(texts);
    for nth in 0..2 * RATE {
        hears(&mut ann, &[&nth.to_string()]);
    }
}

#[test]
fn a_fault_of_the_model_closes_its_session_alone() {
    let server = letters(Limits::default());
    let mut bob = open(&server, "/bob");
    let mut ann = open(&server, "/ann");
    ann.send("fault");
    assert_eq!(ann.expect_close(), Some(1011));
    hears(&mut bob, &["ann left"]);
    assert!(support::open(server.port(), "/fault").is_err());
    assert!(support::open(server.port(), "/no.such.room/ann").is_err());
    bob.send("everyone fine");
    hears(&mut bob, &["fine"]);
}

/// A message of the model's own is left out for nobody: who falls too far behind is closed instead.
#[test]
fn who_falls_behind_is_dropped_and_the_others_hear_everything() {
    const PIECE: usize = 1000;
    let limits = Limits {
        backlog_bytes: Some(64 * 1024),
        session_rate: None,
        slow_timeout: None,
        heartbeat: None,
        ..Limits::default()
    };
    let server = letters(limits);
    let mut ann = open(&server, "/ann");
    let mut deaf = Raw::open_by(with_little_buffer(server.port()), "/deaf");
    let text = "x".repeat(PIECE);
    let mut gone = false;
    let mut sent = 0;
    while !gone {
        ann.send_all((0..10).map(|_| format!("everyone {text}")));
        sent += 10;
        let mut heard = 0;
        while heard < 10 {
            match ann.next_text().unwrap().as_str() {
                "deaf left" => gone = true,
                told => {
                    assert_eq!(told.len(), PIECE);
                    heard += 1;
                }
            }
        }
        assert!(sent < 100_000, "it is never dropped");
    }
    // It heard what the kernel had taken for it, in order, and then the end.
    let mut heard = 0;
    while let Ok((opcode, payload)) = deaf.next_frame() {
        if opcode == 8 {
            assert_eq!(payload[..2], 1013u16.to_be_bytes());
            break;
        }
        assert_eq!(payload.len(), PIECE);
        heard += 1;
    }
    assert!(heard < sent);
}

/// Keeps who said what; tells it beside the state, too.
struct Guestbook;

#[derive(Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
enum Entry {
    Sign { text: String },
}

impl Model for Guestbook {
    const NAME: &'static str = "guestbook";
    const NUMBERED: bool = true;
    type State = Vec<String>;
    type Action = Entry;

    fn apply(
        book: &mut Vec<String>,
        Entry::Sign { text }: &Entry,
        by: &By,
    ) -> Result<(), Rejection> {
        let name = by.name.as_ref().map_or("nobody", |name| name.as_str());
        book.push(format!("{} {name}: {text}", by.ordinal.unwrap_or(0)));
        Ok(())
    }

    fn tell(book: &Vec<String>, _: &Entry, _: &By) -> Vec<Tell> {
        let last = book.last().cloned().unwrap_or_default();
        vec![Tell::new(To::Others, format!("signed {last}"))]
    }

    fn seat(&self, path: &str) -> Option<Seat> {
        let name = path.strip_prefix("/as/")?.parse().ok()?;
        Some(Seat {
            room: "main".parse().ok()?,
            name: Some(name),
        })
    }
}

fn sign(text: &str) -> String {
    format!(r#"{{"action":"sign","text":"{text}"}}"#)
}

fn until(client: &mut Client, expected: &str) -> Vec<String> {
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some(expected) {
        told.push(client.next_text().unwrap());
    }
    told
}

#[test]
fn names_and_numbers_are_kept_with_what_was_done_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let open_journal = || {
        let mut journal = None;
        await_that("the folder is free", || {
            let opened = DiskJournal::open(
                folder.path(),
                ModelId::of::<Guestbook>(),
                Default::default(),
            );
            journal = opened.ok();
            journal.is_some()
        });
        Arc::new(journal.unwrap()) as Arc<dyn Journal>
    };
    let server = InProcess::start(Guestbook, open_journal(), Limits::default());
    let mut ann = support::open(server.port(), "/as/ann").unwrap();
    let mut bob = support::open(server.port(), "/as/%E4%BD%A0").unwrap();
    until(&mut bob, r#"{"type":"state","value":[]}"#);
    ann.send(&sign("hello"));
    let first = r#"{"type":"state","value":["1 ann: hello"]}"#;
    // What is told beside the state comes before it.
    let told = until(&mut bob, first);
    assert_eq!(told[told.len() - 2], "signed 1 ann: hello");
    let told = until(&mut ann, first);
    assert!(told.iter().all(|text| !text.starts_with("signed")));
    bob.send(&sign("hi"));
    until(&mut ann, "signed 2 你: hi");
    ann.close();
    bob.close();
    drop(server);
    let server = InProcess::start(Guestbook, open_journal(), Limits::default());
    let mut eve = support::open(server.port(), "/as/eve").unwrap();
    until(
        &mut eve,
        r#"{"type":"state","value":["1 ann: hello","2 你: hi"]}"#,
    );
    eve.send(&sign("back"));
    until(
        &mut eve,
        r#"{"type":"state","value":["1 ann: hello","2 你: hi","3 eve: back"]}"#,
    );
}
