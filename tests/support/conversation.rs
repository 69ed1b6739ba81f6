//! The conversations of `docs/protocol/`, as they stand in the files.
//!
//! `docs/protocol/README.md` says what the files may hold.

use std::{fs, path::Path};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// How many of them have a client's side; `tests/page/conversation.js` and `tests/clients/reconnecting.py` have the
/// same number.
pub const FOR_CLIENTS: usize = 23;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    #[serde(skip)]
    pub name: String,
    pub title: String,
    pub about: String,
    #[serde(default = "both")]
    pub sides: Vec<Side>,
    #[serde(default)]
    pub flags: Vec<String>,
    #[serde(rename = "steps")]
    raw: Vec<Map<String, Value>>,
    #[serde(skip)]
    pub steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    Server,
    Client,
}

fn both() -> Vec<Side> {
    vec![Side::Server, Side::Client]
}

/// One step, and on which side alone it is done.
#[derive(Debug)]
pub struct Step {
    pub side: Option<Side>,
    pub what: What,
    /// As it stands in the file.
    pub text: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum What {
    Connect {
        connect: String,
        path: Option<String>,
        #[serde(default)]
        protocols: Vec<String>,
        #[serde(default, deserialize_with = "stated")]
        chosen: Option<Option<String>>,
        refused: Option<Expected>,
    },
    Send {
        from: String,
        send: Value,
    },
    Text {
        from: String,
        text: String,
    },
    Binary {
        from: String,
        binary: String,
    },
    Quiet {
        from: String,
        quiet: bool,
    },
    Event {
        to: String,
        event: Value,
        #[serde(default)]
        may: bool,
    },
    Events {
        to: String,
        events: Vec<Value>,
    },
    Close {
        to: String,
        close: u16,
    },
    Disconnect {
        disconnect: String,
    },
    Stop {
        stop: bool,
    },
    Wait {
        wait: Value,
    },
    Act {
        act: String,
        action: Value,
    },
    Shows {
        shows: Shows,
    },
    Http {
        request: Request,
        answer: Expected,
    },
}

/// What a client shows; its fields are for those who test clients.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shows {
    pub client: String,
    pub value: Option<i64>,
    pub pending: Option<usize>,
    pub users: Option<usize>,
    pub refused: Option<Vec<String>>,
    pub unsure: Option<usize>,
    pub ended: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub headers: Map<String, Value>,
    pub body: Option<Value>,
    pub text: Option<String>,
}

/// The HTTP answer that is expected.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub status: u16,
    #[serde(default)]
    pub headers: Map<String, Value>,
    pub body: Option<Value>,
    pub lines: Option<Vec<Value>>,
    pub csv: Option<Vec<Vec<String>>>,
}

/// Keeps a field that is `null` apart from one that is missing.
fn stated<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// All files, by their names.
pub fn all() -> Vec<Conversation> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/protocol");
    let paths = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
        .map(|path| Conversation::read(&path))
        .collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

impl Conversation {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let text = fs::read_to_string(path).unwrap();
        let mut read: Self =
            serde_json::from_str(&text).unwrap_or_else(|err| panic!("{name}.json: {err}"));
        read.name = name.to_owned();
        read.steps = std::mem::take(&mut read.raw)
            .into_iter()
            .enumerate()
            .map(|(nth, step)| {
                Step::read(step)
                    .unwrap_or_else(|err| panic!("{name}.json, step {}: {err}", nth + 1))
            })
            .collect();
        read
    }

    pub fn is_for(&self, side: Side) -> bool {
        self.sides.contains(&side)
    }

    /// Whether it needs a server of its own.
    pub fn is_alone(&self) -> bool {
        let stops = |step: &Step| matches!(step.what, What::Stop { .. });
        !self.flags.is_empty() || self.steps.iter().any(stops)
    }
}

impl Step {
    fn read(mut step: Map<String, Value>) -> serde_json::Result<Self> {
        let text = serde_json::to_string(&step)?;
        let side = step
            .remove("side")
            .map(serde_json::from_value)
            .transpose()?;
        let what = serde_json::from_value(Value::Object(step))?;
        Ok(Self { side, what, text })
    }

    /// Whose message it sends.
    pub fn sender(&self) -> Option<&str> {
        match &self.what {
            What::Send { from, .. } | What::Text { from, .. } | What::Binary { from, .. } => {
                Some(from)
            }
            _ => None,
        }
    }
}
