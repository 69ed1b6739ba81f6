//! The oracle of exactly once: what clients were told, and whether the journal bears it out.
//!
//! A [`Ledger`] is one client's, over all of its sessions. It fails the test as soon as something it
//! hears contradicts something it heard before; [`verify`] compares what all were told with what is
//! kept.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::kept::Kept;

/// How many numbers a client may have unsettled, and among how many a room remembers refusals.
pub const WINDOW: u64 = 1024;

/// The largest value of a counter.
const MAX_VALUE: i64 = (1 << 53) - 1;

/// What a client of `tallyroom.v1` is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Welcome {
        epoch: String,
        rev: u64,
        n: u64,
        refused: Vec<(u64, String)>,
    },
    State {
        epoch: String,
        rev: u64,
        value: i64,
    },
    Ack {
        n: u64,
        rev: u64,
    },
    Error {
        n: Option<u64>,
        code: String,
    },
    Retry {
        n: u64,
        expected: u64,
        code: String,
        after_ms: u64,
    },
    Bye {
        code: u16,
    },
    /// `users` and `beat`.
    Other,
}

impl Said {
    pub fn read(text: &str) -> Self {
        let event: Value = serde_json::from_str(text).unwrap();
        let number = |name: &str| event[name].as_u64().unwrap_or_else(|| panic!("{text}"));
        let word = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{text}"));
        match word("type") {
            "welcome" => {
                assert_eq!(number("window"), WINDOW);
                let refused = event["refused"].as_array().unwrap().iter();
                let refused = refused.map(|refused| {
                    let code = refused["code"].as_str().unwrap();
                    (refused["n"].as_u64().unwrap(), code.to_owned())
                });
                Self::Welcome {
                    epoch: word("epoch").to_owned(),
                    rev: number("rev"),
                    n: number("n"),
                    refused: refused.collect(),
                }
            }
            "state" => Self::State {
                epoch: word("epoch").to_owned(),
                rev: number("rev"),
                value: event["value"].as_i64().unwrap(),
            },
            "ack" => Self::Ack {
                n: number("n"),
                rev: number("rev"),
            },
            "error" => Self::Error {
                n: event.get("n").map(|_| number("n")),
                code: word("code").to_owned(),
            },
            "retry" => Self::Retry {
                n: number("n"),
                expected: number("expected"),
                code: word("code").to_owned(),
                after_ms: number("after_ms"),
            },
            "bye" => Self::Bye {
                code: number("code") as u16,
            },
            "users" | "beat" => Self::Other,
            _ => panic!("no event: {text}"),
        }
    }
}

/// An action as it is sent, whatever number it gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The fields of its message beside `n`, in the form in which an accepted one is stored.
    pub fields: String,
    /// The code with which it must be refused; `None`: it depends on the state.
    pub refused: Option<&'static str>,
}

impl Planned {
    pub fn new(fields: impl Into<String>) -> Self {
        Self {
            fields: fields.into(),
            refused: None,
        }
    }

    pub fn plus(by: i64) -> Self {
        let action = if by < 0 { "minus" } else { "plus" };
        Self::new(match by.abs() {
            1 => format!(r#""action":"{action}""#),
            by => format!(r#""action":"{action}","by":{by}"#),
        })
    }

    /// One of those that are refused, whatever the state is.
    pub fn wrong(nth: usize) -> Self {
        let (fields, code) = [
            (r#""action":"set","value":9007199254740992"#, "out_of_range"),
            (r#""action":"nothing""#, "unknown_action"),
            (r#""act":"plus""#, "missing_field"),
            (r#""action":"plus","by":0"#, "bad_field"),
            (r#""action":["plus"]"#, "bad_field"),
        ][nth % 5];
        Self {
            fields: fields.to_owned(),
            refused: Some(code),
        }
    }

    pub fn message(&self, n: u64) -> String {
        format!(r#"{{{},"n":{n}}}"#, self.fields)
    }

    /// As HTTP takes it, without its number.
    pub fn body(&self) -> String {
        format!("{{{}}}", self.fields)
    }
}

/// One client's actions, and what it was told of them.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub client: Uuid,
    planned: Vec<Planned>,
    /// Up to which number all is known to be settled.
    settled: u64,
    refused: BTreeMap<u64, String>,
    /// By numbers that were told to be settled: the lowest revision that was said to include it.
    bounds: BTreeMap<u64, u64>,
    /// What some actions of HTTP made: revision and value.
    made: BTreeMap<u64, (u64, i64)>,
    epoch: Option<String>,
    /// By revision: the values that were shown.
    shown: BTreeMap<u64, i64>,
}

/// What one session heard so far.
#[derive(Clone, Debug, Default)]
pub struct Hearing {
    pub welcomed: bool,
    /// It is read so late that newer sessions heard more.
    pub late: bool,
    /// The last ack's number and revision.
    pub acked: (u64, u64),
    /// The last state's revision.
    pub rev: Option<u64>,
    welcome_rev: u64,
}

impl Ledger {
    pub fn new(client: Uuid) -> Self {
        Self {
            client,
            planned: Vec::new(),
            settled: 0,
            refused: BTreeMap::new(),
            bounds: BTreeMap::new(),
            made: BTreeMap::new(),
            epoch: None,
            shown: BTreeMap::new(),
        }
    }

    /// Takes an action and gives its number.
    pub fn plan(&mut self, action: Planned) -> u64 {
        self.planned.push(action);
        self.planned.len() as u64
    }

    pub fn settled(&self) -> u64 {
        self.settled
    }

    pub fn last(&self) -> u64 {
        self.planned.len() as u64
    }

    pub fn action(&self, n: u64) -> &Planned {
        &self.planned[n as usize - 1]
    }

    pub fn message(&self, n: u64) -> String {
        self.action(n).message(n)
    }

    /// How many more numbers may be taken.
    pub fn room(&self) -> u64 {
        WINDOW - (self.last() - self.settled)
    }

    pub fn hear(&mut self, hearing: &mut Hearing, said: &Said) {
        match said {
            Said::Welcome {
                epoch,
                rev,
                n,
                refused,
            } => {
                self.same_epoch(epoch);
                hearing.welcomed = true;
                hearing.welcome_rev = *rev;
                assert!(
                    hearing.late || *n >= self.settled,
                    "welcome says {n}; {} was settled",
                    self.settled
                );
                self.welcomed(*n, *rev, refused);
                return;
            }
            Said::State { epoch, rev, value } => {
                self.same_epoch(epoch);
                let before = hearing.rev.replace(*rev);
                assert!(
                    before.is_none_or(|before| before < *rev) && *rev >= hearing.welcome_rev,
                    "state {rev} after {before:?}, welcomed at {}",
                    hearing.welcome_rev
                );
                self.show(*rev, *value);
            }
            Said::Ack { n, rev } => {
                let (before, before_rev) = hearing.acked;
                assert!(
                    before <= *n && before_rev <= *rev,
                    "ack {n} at {rev} after {:?}",
                    hearing.acked
                );
                hearing.acked = (*n, *rev);
                self.settle(*n, *rev);
            }
            Said::Error { n: Some(n), code } => self.refuse(*n, code),
            Said::Error { n: None, code } => panic!("an error without a number: {code}"),
            Said::Retry { n, expected, .. } => {
                let (acked, _) = hearing.acked;
                assert!(
                    acked < *expected && expected <= n && *n <= self.last(),
                    "{said:?} after ack {acked}; {} were sent",
                    self.last()
                );
            }
            Said::Bye { .. } | Said::Other => {}
        }
        let first = matches!(said, Said::Bye { .. } | Said::Other);
        assert!(hearing.welcomed || first, "{said:?} first");
    }

    fn same_epoch(&mut self, epoch: &str) {
        let known = self.epoch.get_or_insert_with(|| epoch.to_owned());
        assert_eq!(known, epoch, "another epoch began");
    }

    fn welcomed(&mut self, n: u64, rev: u64, refused: &[(u64, String)]) {
        for (n, code) in refused {
            self.refuse(*n, code);
        }
        for (known, code) in self.refused.range((n + 1).saturating_sub(WINDOW)..=n) {
            let listed = refused.iter().any(|(n, named)| n == known && named == code);
            assert!(listed, "{known} was refused and is not among {refused:?}");
        }
        self.settle(n, rev);
    }

    pub fn refuse(&mut self, n: u64, code: &str) {
        assert!(n <= self.last(), "{n} was refused and never sent");
        let known = self.refused.get(&n);
        assert!(
            n > self.settled || known.is_some(),
            "{n} was settled, and is now refused with {code}"
        );
        assert!(
            known.is_none_or(|known| known == code),
            "{n}: {known:?}, now {code}"
        );
        let planned = self.action(n);
        // Whether the state was such is seen when all is known.
        let expected = planned.refused.unwrap_or("out_of_range");
        assert_eq!(code, expected, "{n}: {planned:?}");
        self.refused.insert(n, code.to_owned());
    }

    /// All up to `n` is settled, at this revision or before.
    pub fn settle(&mut self, n: u64, rev: u64) {
        assert!(n <= self.last(), "{n} is settled and was never sent");
        for newly in self.settled + 1..=n {
            let planned = self.action(newly);
            let refused = self.refused.contains_key(&newly);
            assert!(
                refused || planned.refused.is_none(),
                "{newly} was accepted: {planned:?}"
            );
        }
        self.settled = self.settled.max(n);
        let bound = self.bounds.entry(n).or_insert(rev);
        *bound = rev.min(*bound);
    }

    /// An action made this revision and value.
    pub fn make(&mut self, n: u64, rev: u64, value: i64) {
        let before = self.made.insert(n, (rev, value));
        assert!(
            before.is_none_or(|before| before == (rev, value)),
            "{n}: {before:?}, now {rev}"
        );
        self.show(rev, value);
    }

    /// What its settled, accepted actions add up to; each of them adds or subtracts.
    pub fn sum(&self) -> i64 {
        let accepted = (1..=self.settled).filter(|n| !self.refused.contains_key(n));
        let by = |n| {
            let mut state = State::default();
            state.apply(&serde_json::from_str(&self.action(n).body()).unwrap());
            state.value
        };
        accepted.map(by).sum()
    }

    /// A state was shown.
    pub fn show(&mut self, rev: u64, value: i64) {
        let before = self.shown.insert(rev, value);
        assert!(
            before.is_none_or(|before| before == value),
            "revision {rev} was {before:?} and is {value}"
        );
    }
}

/// Checks what is kept of a room in which nobody else acted against what clients were told, and gives
/// its value.
///
/// What began before the entries that are kept is passed over.
pub fn verify(ledgers: &[&Ledger], kept: &Kept) -> i64 {
    verify_beside(0, ledgers, kept)
}

/// The same in a room that has so many entries of others, who did not say who they are.
pub fn verify_beside(others: usize, ledgers: &[&Ledger], kept: &Kept) -> i64 {
    let unnamed = kept.entries.iter().filter(|entry| entry.client.is_none());
    assert_eq!(unnamed.count(), others, "entries of nobody's");
    let entries = numbers(ledgers, kept);
    let states = States::of(kept);
    for ledger in ledgers {
        told(ledger, &entries, kept);
        refused(ledger, &entries, &states, kept);
        for (rev, value) in ledger.shown.range(kept.after..) {
            assert_eq!(states.value(*rev), Some(*value), "revision {rev} was shown");
        }
        for (n, (rev, _)) in &ledger.made {
            let known = entries.get(&(ledger.client, *n));
            assert!(
                *rev <= kept.after || known == Some(rev),
                "{n} made {rev}: {known:?}"
            );
        }
    }
    states.last().value
}

/// Where each number of each client is: nowhere twice, in the order of numbers, as it was sent.
fn numbers(ledgers: &[&Ledger], kept: &Kept) -> HashMap<(Uuid, u64), u64> {
    let clients: HashMap<_, _> = ledgers
        .iter()
        .map(|ledger| (ledger.client, ledger))
        .collect();
    assert_eq!(clients.len(), ledgers.len(), "one ledger a client");
    let mut last: HashMap<Uuid, u64> = HashMap::new();
    let mut entries = HashMap::new();
    for (rev, entry) in (kept.after + 1..).zip(&kept.entries) {
        assert_eq!(entry.rev, rev, "revisions have no gaps");
        let (Some(client), Some(n)) = (entry.client, entry.n) else {
            continue;
        };
        let before = last.insert(client, n);
        assert!(
            before.is_none_or(|before| before < n),
            "number {n} after {before:?}"
        );
        entries.insert((client, n), rev);
        let ledger = clients
            .get(&client)
            .expect("an entry of a client that is not ours");
        let planned = ledger
            .planned
            .get(n as usize - 1)
            .expect("a number that was never sent");
        let sent: Value = serde_json::from_str(&planned.body()).unwrap();
        assert_eq!(entry.action, sent, "number {n}");
        assert!(
            !ledger.refused.contains_key(&n),
            "{n} was refused and is in: {planned:?}"
        );
    }
    entries
}

/// What was told to be accepted is in, at or below the revision told.
fn told(ledger: &Ledger, entries: &HashMap<(Uuid, u64), u64>, kept: &Kept) {
    let dropped = kept.settled_before(ledger.client);
    let mut bounds = ledger.bounds.iter().rev().peekable();
    let mut bound = u64::MAX;
    for n in (1..=ledger.settled).rev() {
        while let Some((_, told)) = bounds.next_if(|(by, _)| **by >= n) {
            bound = bound.min(*told);
        }
        if ledger.refused.contains_key(&n) {
            continue;
        }
        match entries.get(&(ledger.client, n)) {
            Some(rev) => assert!(
                *rev <= bound,
                "{n} is at {rev}, and was told to be in {bound}"
            ),
            None => assert!(
                n <= dropped,
                "{n} was acked and is not kept: {:?}",
                ledger.action(n)
            ),
        }
    }
}

/// What was refused for the state's sake could not be taken at some moment between what the client was
/// told before and after it.
fn refused(ledger: &Ledger, entries: &HashMap<(Uuid, u64), u64>, states: &States, kept: &Kept) {
    let dropped = kept.settled_before(ledger.client);
    let entry = |n: u64| entries.get(&(ledger.client, n)).copied();
    for n in ledger.refused.keys().filter(|n| **n > dropped) {
        let planned = ledger.action(*n);
        if planned.refused.is_some() {
            continue;
        }
        let action = serde_json::from_str(&planned.body()).unwrap();
        let from = (1..*n).rev().find_map(entry).unwrap_or(kept.after);
        let next = (n + 1..=ledger.last()).find_map(entry);
        let until = next.map_or(kept.end(), |next| next - 1);
        let unfit = |rev| !states.at(rev).is_some_and(|state| state.takes(&action));
        assert!(
            (from..=until).any(unfit),
            "{n} was refused and fitted at all times from {from} to {until}: {planned:?}"
        );
    }
}

/// The state at each revision that is kept, by a counter of our own.
struct States {
    after: u64,
    states: Vec<State>,
}

impl States {
    fn of(kept: &Kept) -> Self {
        let mut state = kept.state;
        let mut states = vec![state];
        for entry in &kept.entries {
            state.apply(&entry.action);
            states.push(state);
            if let Some(value) = entry.value {
                assert_eq!(value, state.value, "revision {}", entry.rev);
            }
        }
        Self {
            after: kept.after,
            states,
        }
    }

    fn at(&self, rev: u64) -> Option<&State> {
        self.states.get(rev.checked_sub(self.after)? as usize)
    }

    fn value(&self, rev: u64) -> Option<i64> {
        self.at(rev).map(|state| state.value)
    }

    fn last(&self) -> &State {
        self.states.last().unwrap()
    }
}

/// A counter's state.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct State {
    pub value: i64,
    pub min: Option<i64>,
    pub max: Option<i64>,
}

impl State {
    /// Applies an entry, which the room took: it must fit.
    pub fn apply(&mut self, action: &Value) {
        *self = self.with(action);
        assert!(self.fits(), "{action} made {self:?}");
    }

    fn takes(&self, action: &Value) -> bool {
        self.with(action).fits()
    }

    fn with(mut self, action: &Value) -> Self {
        let by = action["by"].as_i64().unwrap_or(1);
        match action["action"].as_str().unwrap() {
            "plus" => self.value += by,
            "minus" => self.value -= by,
            "set" => self.value = action["value"].as_i64().unwrap(),
            "reset" => self.value = 0,
            "limits" => {
                let limit = |name: &str, now| action.get(name).map_or(now, Value::as_i64);
                (self.min, self.max) = (limit("min", self.min), limit("max", self.max));
            }
            other => panic!("an entry {other}"),
        }
        self
    }

    fn fits(&self) -> bool {
        (self.min.unwrap_or(-MAX_VALUE)..=self.max.unwrap_or(MAX_VALUE)).contains(&self.value)
    }

    pub fn read(state: &Value) -> Self {
        Self {
            value: state["value"].as_i64().unwrap(),
            min: state["min"].as_i64(),
            max: state["max"].as_i64(),
        }
    }
}
