//! The conversations of the protocol's documentation that have a client's side are held with the library's client.

mod support;

use std::thread;

use support::conversation::{FOR_CLIENTS, Side, all};

#[test]
fn the_client_holds_every_conversation() {
    let ours: Vec<_> = all()
        .into_iter()
        .filter(|conversation| conversation.is_for(Side::Client))
        .collect();
    assert_eq!(ours.len(), FOR_CLIENTS);
    let held: Vec<_> = ours
        .into_iter()
        .map(|conversation| thread::spawn(move || conversation.attend()))
        .collect();
    let ends = held.into_iter().map(|held| held.join().unwrap());
    let failures: Vec<_> = ends.filter_map(Result::err).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}
