//! The protocol as `docs/protocol.md` says it: the conversations in `docs/protocol/` are held with the
//! real server, and the documentation's examples and tables are those of the conversations.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;
use support::{
    Server,
    conversation::{Conversation, Expected, FOR_CLIENTS, Side, Step, What, all},
};
use tallyroom::{http::problem::Problem, rejection::Rejection};
use tempfile::TempDir;

/// Codes that no conversation can bring about: they need a journal that fails or has dropped entries, a
/// model's fault, or a body that stays away. Other tests do.
const ELSEWHERE: [&str; 5] = [
    "request_timeout",
    "gone",
    "unavailable",
    "store_full",
    "internal",
];
/// The code that this version gives to nobody: it asks for no tokens.
const NOWHERE: &str = "unauthorized";
/// Codes that are no rejection's, whose status stands where each is made. Conversations have all but
/// `request_timeout`, which `tests/posting.rs` has.
const OF_REQUESTS: [&str; 3] = ["request_timeout", "wrong_host", "method_not_allowed"];

#[test]
fn the_server_holds_every_conversation_with_its_rooms_in_memory() {
    hold_all(Store::Memory);
}

#[test]
fn the_server_holds_every_conversation_with_its_rooms_on_disk() {
    hold_all(Store::Disk);
}

/// Where a server keeps its rooms.
#[derive(Clone, Copy)]
enum Store {
    Memory,
    Disk,
}

impl Store {
    /// What sessions are told of it.
    fn durability(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// A server of its own with these flags, and the folder that it keeps its rooms in.
    fn start(self, flags: &[&str]) -> (Server, TempDir) {
        let folder = TempDir::new().unwrap();
        let store = match self {
            Self::Memory => "memory".to_owned(),
            Self::Disk => format!("disk:{}", folder.path().display()),
        };
        let server = Server::start(&[&["--store", &store], flags].concat());
        (server, folder)
    }
}

fn hold_all(store: Store) {
    let (shared, _folder) = store.start(&[]);
    let mut failures = Vec::new();
    for conversation in all() {
        if !conversation.is_for(Side::Server) {
            continue;
        }
        let held = match conversation.is_alone() {
            true => hold_alone(&conversation, store),
            false => conversation.hold(&shared, store.durability()),
        };
        failures.extend(held.err());
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

fn hold_alone(conversation: &Conversation, store: Store) -> Result<(), String> {
    let flags: Vec<&str> = conversation.flags.iter().map(String::as_str).collect();
    let (mut server, _folder) = store.start(&flags);
    conversation.hold(&server, store.durability())?;
    let stops = |step: &Step| matches!(step.what, What::Stop { .. });
    if conversation.steps.iter().any(stops) {
        assert!(server.await_exit().success(), "{}", server.log());
    }
    Ok(())
}

/// Those whose clients do what no library of a client does, or speak another dialect or HTTP.
const FOR_THE_SERVER_ALONE: [&str; 19] = [
    "classic-counting",
    "classic-mistakes",
    "dialects",
    "gap",
    "given-id",
    "http-actions",
    "http-bad-keys",
    "http-keys",
    "http-mistakes",
    "http-numbers",
    "http-state",
    "journal",
    "malformed-actions",
    "new-epoch",
    "not-understood",
    "overloaded",
    "repeats",
    "replaced",
    "too-large",
];
/// Those whose server does what ours does not when it is asked, or of which a server sees nothing.
const FOR_CLIENTS_ALONE: [&str; 10] = [
    "closed-for-good",
    "closed-for-now",
    "forgotten-epoch",
    "forgotten-number",
    "forgotten-while-connected",
    "retry-longest",
    "showing",
    "showing-after-a-reconnect",
    "unknown-events",
    "window",
];

#[test]
fn no_conversation_is_missing_or_held_on_one_side_where_both_can() {
    let held_by = |sides: &[Side]| -> Vec<String> {
        let conversations = all().into_iter().filter(|one| one.sides == sides);
        conversations.map(|one| one.name).collect()
    };
    assert_eq!(held_by(&[Side::Server]), FOR_THE_SERVER_ALONE);
    assert_eq!(held_by(&[Side::Client]), FOR_CLIENTS_ALONE);
    let both = held_by(&[Side::Server, Side::Client]).len();
    assert_eq!(both + FOR_CLIENTS_ALONE.len(), FOR_CLIENTS);
}

#[test]
fn every_conversation_is_for_somebody_and_says_what_it_shows() {
    for conversation in all() {
        let Conversation {
            name,
            title,
            about,
            sides,
            ..
        } = &conversation;
        assert!(!title.is_empty() && !about.is_empty(), "{name}");
        assert!(!sides.is_empty(), "{name}");
        let asks = |step: &Step| matches!(step.what, What::Http { .. });
        let for_clients = sides.contains(&Side::Client);
        assert!(
            !for_clients || !conversation.steps.iter().any(asks),
            "{name}: HTTP"
        );
        let speaks_v1 = |step: &Step| matches!(&step.what, What::Connect { protocols, .. } if protocols.iter().any(|one| one == "tallyroom.v1"));
        assert!(
            !for_clients || conversation.steps.iter().any(speaks_v1),
            "{name}: no client of v1"
        );
        let shows = |step: &Step| matches!(step.what, What::Shows { .. });
        assert!(
            !for_clients || name == "beat" || conversation.steps.iter().any(shows),
            "{name}"
        );
    }
}

#[test]
fn every_event_that_the_documentation_names_stands_in_a_conversation_and_no_other() {
    let said: BTreeSet<String> = told()
        .iter()
        .filter_map(|event| text(event, "type"))
        .collect();
    let mut named: BTreeSet<String> = table("What comes, and what you do").into_iter().collect();
    // A conversation has one that no version knows, to show that it is passed over.
    named.insert("weather".to_owned());
    assert_eq!(said, named);
}

#[test]
fn every_code_of_the_documentation_stands_in_a_conversation() {
    let mut said = BTreeSet::new();
    for conversation in all().iter().filter(|one| one.is_for(Side::Server)) {
        said.extend(
            events(conversation)
                .iter()
                .filter_map(|event| text(event, "code")),
        );
        said.extend(
            bodies(conversation)
                .iter()
                .filter_map(|body| text(body, "code")),
        );
    }
    let elsewhere = ELSEWHERE.into_iter().chain([NOWHERE]).map(str::to_owned);
    let elsewhere: BTreeSet<String> = elsewhere.collect();
    assert_eq!(said.intersection(&elsewhere).next(), None);
    let all: BTreeSet<String> = said.union(&elsewhere).cloned().collect();
    assert_eq!(all, table("Codes").into_iter().collect());
}

#[test]
fn every_code_has_the_status_that_the_documentation_gives_it() {
    let named = statuses();
    assert_eq!(named.len(), table("Codes").len());
    for conversation in all() {
        for (status, body) in answers(&conversation) {
            if let Some(code) = text(body, "code") {
                assert_eq!(named.get(&code), Some(&status), "{code}");
            }
        }
    }
    for (code, status) in &named {
        let problem = Problem::from(Rejection::new(code.clone(), "why"));
        if code != NOWHERE && !OF_REQUESTS.contains(&code.as_str()) {
            assert_eq!(problem.status.as_u16(), *status, "{code}");
        }
    }
}

/// The statuses of the documentation's codes: a row has one for all its codes, or one for each.
fn statuses() -> BTreeMap<String, u16> {
    let documentation = documentation();
    let rows = section(&documentation, "Codes").lines();
    let rows = rows.filter(|line| line.starts_with("| `"));
    let pairs = rows.flat_map(|row| {
        let columns: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let codes: Vec<String> = in_code(columns[0]).map(str::to_owned).collect();
        let statuses: Vec<u16> = columns[2]
            .split(", ")
            .map(|one| one.parse().unwrap())
            .collect();
        assert!([1, codes.len()].contains(&statuses.len()), "{row}");
        codes.into_iter().zip(statuses.into_iter().cycle())
    });
    pairs.collect()
}

/// What the clients of the conversations do after a close is what the documentation says.
#[test]
fn clients_come_back_after_the_close_codes_of_the_documentation_and_no_others() {
    let mut seen = BTreeMap::new();
    for conversation in all().iter().filter(|one| one.is_for(Side::Client)) {
        for (nth, step) in conversation.steps.iter().enumerate() {
            let (client, code) = match &step.what {
                What::Close { to, close } => (to, *close),
                What::Disconnect { disconnect } => (disconnect, 1006),
                _ => continue,
            };
            let name = &conversation.name;
            let back = comes_back(&conversation.steps[nth + 1..], client);
            let back = back.unwrap_or_else(|| panic!("{name}: what does {client} after {code}?"));
            assert_eq!(*seen.entry(code).or_insert(back), back, "{name}: {code}");
        }
    }
    assert_eq!(seen, close_codes());
}

/// Whether a client that was closed is said to connect again, or to have ended.
fn comes_back(later: &[Step], client: &str) -> Option<bool> {
    later.iter().find_map(|step| match &step.what {
        What::Connect { connect, .. } if connect == client => Some(true),
        What::Shows { shows } if shows.client == client && shows.ended == Some(true) => Some(false),
        _ => None,
    })
}

/// The close codes of the documentation, and whether it says to come back after each.
fn close_codes() -> BTreeMap<u16, bool> {
    let documentation = documentation();
    let rows = section(&documentation, "Coming back").lines();
    let rows = rows.filter(|line| line.starts_with("| 1") || line.starts_with("| 4"));
    let codes = rows.flat_map(|row| {
        let columns: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let back = match columns[2] {
            "yes" => true,
            no if no.starts_with("no") => false,
            other => panic!("neither yes nor no: {other}"),
        };
        let codes = columns[0].split(", ").map(|code| code.parse().unwrap());
        codes.map(move |code| (code, back))
    });
    codes.collect()
}

#[test]
fn the_examples_of_the_documentation_have_the_fields_of_the_conversations() {
    let mut shapes = BTreeMap::new();
    for conversation in all().iter().filter(|one| one.is_for(Side::Server)) {
        for said in [
            events(conversation),
            sent(conversation),
            bodies(conversation),
        ]
        .concat()
        {
            shapes.insert(shape(&said), said);
        }
    }
    let examples = examples();
    assert!(examples.len() > 20, "{examples:?}");
    for example in examples {
        let known = shapes.contains_key(&shape(&example));
        assert!(known, "no conversation has a message such as {example}");
    }
}

/// The names of the fields, of those within them too, and which kind of event it is.
fn shape(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let kind = fields.get("type").and_then(Value::as_str).unwrap_or("");
            // A problem's type is no kind of event.
            let kind = if fields.contains_key("status") {
                "problem"
            } else {
                kind
            };
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{name}{}", shape(value)))
                .collect();
            format!("{kind}{{{}}}", fields.join(","))
        }
        Value::Array(list) => list
            .first()
            .filter(|one| one.is_object())
            .map(shape)
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn text(value: &Value, field: &str) -> Option<String> {
    value[field].as_str().map(str::to_owned)
}

fn told() -> Vec<Value> {
    all().iter().flat_map(events).collect()
}

/// The events of a conversation.
fn events(conversation: &Conversation) -> Vec<Value> {
    let events = conversation.steps.iter().flat_map(|step| match &step.what {
        What::Event { event, .. } => vec![event.clone()],
        What::Events { events, .. } => events.clone(),
        _ => Vec::new(),
    });
    events.collect()
}

/// What clients send in a conversation.
fn sent(conversation: &Conversation) -> Vec<Value> {
    let sent = conversation
        .steps
        .iter()
        .filter_map(|step| match &step.what {
            What::Send { send, .. } => Some(send.clone()),
            What::Http { request, .. } => request.body.clone(),
            _ => None,
        });
    sent.collect()
}

/// The HTTP answers in a conversation that have a body.
fn answers(conversation: &Conversation) -> impl Iterator<Item = (u16, &Value)> {
    let answers = expected(conversation);
    answers.filter_map(|answer| answer.body.as_ref().map(|body| (answer.status, body)))
}

fn expected(conversation: &Conversation) -> impl Iterator<Item = &Expected> {
    let steps = conversation.steps.iter();
    steps.filter_map(|step| match &step.what {
        What::Http { answer, .. } => Some(answer),
        What::Connect { refused, .. } => refused.as_ref(),
        _ => None,
    })
}

/// The bodies of the answers in a conversation, and the lines of those that have lines.
fn bodies(conversation: &Conversation) -> Vec<Value> {
    let bodies = |answer: &Expected| {
        let lines = answer.lines.iter().flatten();
        answer.body.iter().chain(lines).cloned().collect::<Vec<_>>()
    };
    expected(conversation).flat_map(bodies).collect()
}

fn documentation() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol.md");
    fs::read_to_string(path).unwrap()
}

/// What stands under a heading, up to the next one.
fn section<'a>(documentation: &'a str, heading: &str) -> &'a str {
    let (_, rest) = documentation
        .split_once(&format!("# {heading}\n"))
        .unwrap_or_else(|| panic!("no section {heading:?}"));
    rest.split("\n#").next().unwrap()
}

/// The words in code in the first column of the table under a heading.
fn table(heading: &str) -> Vec<String> {
    let documentation = documentation();
    let section = section(&documentation, heading);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let words = rows.flat_map(|row| in_code(row.split(" | ").next().unwrap()));
    // `error` with and without its number stands in two rows.
    let words = words.filter(|word| *word != "n").map(str::to_owned);
    words.collect()
}

/// The words of a text that are set in code.
fn in_code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The JSON values in the blocks of the documentation that say that they are JSON.
fn examples() -> Vec<Value> {
    let documentation = documentation();
    let blocks = documentation.split("```json\n").skip(1);
    let values = blocks.flat_map(|block| {
        let block = block.split("```").next().unwrap();
        let values = serde_json::Deserializer::from_str(block).into_iter::<Value>();
        values.map(move |value| value.unwrap_or_else(|err| panic!("{err} in {block}")))
    });
    values.collect()
}
