//! A vote with several options: one vote for each voter, live bars in the page, kept on disk.

use std::{collections::BTreeMap, process::ExitCode};

use serde::{Deserialize, Serialize};
use tallyroom::{
    http::page::Page,
    ids::ClientId,
    model::{By, Model},
    program,
    rejection::Rejection,
};

/// A vote with several options in each room: whoever votes again moves the vote.
#[derive(clap::Args)]
struct Poll {}

/// What is asked, and who voted for which option.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Votes {
    question: String,
    options: Vec<String>,
    votes: BTreeMap<ClientId, usize>,
}

#[derive(Serialize, Deserialize)]
#[cfg_attr(test, derive(Debug, proptest_derive::Arbitrary))]
#[serde(tag = "action", rename_all = "lowercase")]
enum Action {
    /// Begins a vote; that of before is gone.
    Ask {
        question: String,
        #[cfg_attr(test, proptest(strategy = "tests::options()"))]
        options: Vec<String>,
    },
    /// `voter` is a secret of whoever votes, who may come as several clients; without it the client votes.
    Vote {
        #[cfg_attr(test, proptest(strategy = "\"[a-d]\""))]
        option: String,
        #[cfg_attr(test, proptest(value = "None"))]
        voter: Option<ClientId>,
    },
}

/// What everybody sees: never who voted for what.
#[derive(Serialize)]
struct Bars<'a> {
    question: &'a str,
    options: Vec<Bar<'a>>,
    voters: usize,
}

#[derive(Serialize)]
struct Bar<'a> {
    option: &'a str,
    votes: usize,
}

impl Model for Poll {
    const NAME: &'static str = "poll";
    type State = Votes;
    type Action = Action;

    fn apply(state: &mut Votes, action: &Action, by: &By) -> Result<(), Rejection> {
        match action {
            Action::Ask { question, options } => {
                let distinct = |nth: usize| !options[..nth].contains(&options[nth]);
                let fits = |text: &String| (1..=200).contains(&text.trim().len());
                let lawful = (2..=12).contains(&options.len()) && (0..options.len()).all(distinct);
                if !lawful || !fits(question) || !options.iter().all(fits) {
                    let message = "a vote has a question and 2 to 12 different options, of 1 to 200 bytes each";
                    return Err(Rejection::new("bad_question", message));
                }
                *state = Votes {
                    question: question.clone(),
                    options: options.clone(),
                    votes: BTreeMap::new(),
                };
            }
            Action::Vote { option, voter } => {
                let nth = state.options.iter().position(|known| known == option);
                let nth = nth.ok_or_else(|| {
                    Rejection::new("no_such_option", "that is not among the options")
                })?;
                let voter = voter.or(by.client);
                let voter = voter.ok_or_else(|| Rejection::missing_field("voter"))?;
                state.votes.insert(voter, nth);
            }
        }
        Ok(())
    }

    fn view(state: &Votes) -> impl Serialize + '_ {
        let mut options: Vec<Bar<'_>> = state
            .options
            .iter()
            .map(|option| Bar { option, votes: 0 })
            .collect();
        for nth in state.votes.values() {
            options[*nth].votes += 1;
        }
        Bars {
            question: &state.question,
            options,
            voters: state.votes.len(),
        }
    }
}

fn main() -> ExitCode {
    let page = Page::Alone(include_str!("../static/examples/poll.html"));
    program::main::<Poll>("localhost:6790", page)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    /// A few that are lawful, and a few that are not.
    pub fn options() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[a-d]", 1..4)
    }

    #[test]
    fn it_keeps_the_laws() {
        tallyroom::model::laws::<super::Poll>();
    }
}
