//! The floors of the source: a file imports only what is below it, and the ground floor knows
//! nothing of the outside world.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Which floor a file is on, lowest first. One of `src/` that is not here has no place yet.
const FLOORS: [&[&str]; 5] = [
    &[
        "ids",
        "limits",
        "waiting",
        "rate",
        "rejection",
        "fields",
        "model",
        "model/counter",
        "model/contract",
        "model/edge",
        "model/laws",
        "model/tell",
        "protocol",
        "protocol/classic",
        "protocol/v1",
        "permissions",
        "entry",
        "settled",
        "replica",
        "replica/asked",
        "replica/changes",
        "replica/draft",
        "replica/history",
        "replica/numbers",
        "replica/ordinals",
        "replica/views",
        "presence",
        "pulse",
        "outbox",
        "outbox/frames",
        "outbox/recent",
        "client/event",
        "client/moment",
        "client/numbers",
        "client/timeouts",
        "client/view",
        "client/machine",
    ],
    &[
        "journal",
        "framing",
        "connections",
        "deliver",
        "link",
        "link/wire",
        "fanout",
        "room",
        "room/audience",
        "room/answers",
        "room/commit",
        "room/handlers",
        "room/import",
        "room/shown",
        "room/load",
        "room/messages",
        "room/queue",
        "rooms",
        "rooms/leases",
    ],
    &[
        "session",
        "session/dialogue",
        "session/edge",
        "session/member",
        "session/source",
        "socket",
        "socket/admission",
        "socket/direct",
        "socket/embedded",
        "socket/handshake",
        "http",
        "http/api",
        "http/api/actions",
        "http/api/context",
        "http/api/journal",
        "http/api/key",
        "http/api/query",
        "http/api/state",
        "http/api/transfer",
        "http/body",
        "http/methods",
        "http/page",
        "http/problem",
        "client",
        "client/address",
        "client/connection",
        "client/transport",
        "client/watched",
    ],
    &[
        "journal/memory",
        "journal/passing",
        "journal/disk",
        "journal/disk/inspect",
        "journal/disk/checkpoint",
        "journal/disk/row",
        "journal/disk/schema",
        "journal/disk/reader",
        "journal/disk/insert",
        "journal/disk/trim",
        "journal/disk/writer",
    ],
    &[
        "check",
        "config",
        "config/bench",
        "config/commands",
        "config/tls",
        "config/values",
        "listen",
        "server",
        "server/assembly",
        "tls",
        "tls/files",
        "tls/self_signed",
        "program",
        "command",
        "command/action",
        "command/bench",
        "command/bench/course",
        "command/bench/course/outcome",
        "command/bench/fault",
        "command/bench/latency",
        "command/bench/member",
        "command/bench/pacer",
        "command/bench/plan",
        "command/bench/process",
        "command/bench/progress",
        "command/bench/report",
        "command/bench/run",
        "command/bench/said",
        "command/bench/seen",
        "command/bench/writer",
        "command/check",
        "command/journal",
        "command/report",
        "command/request",
        "command/transfer",
        "command/watch",
        "lib",
        "main",
    ],
];

/// What the ground floor does not know.
const OUTSIDE: [&str; 10] = [
    "actix",
    "tokio",
    "std::net",
    "std::fs",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "async ",
    ".await",
    "Uuid::new_v4",
];

#[test]
fn every_file_has_a_floor_and_every_floor_its_files() {
    let files: BTreeSet<String> = sources().into_keys().collect();
    let placed: BTreeSet<String> = FLOORS
        .iter()
        .copied()
        .flatten()
        .map(|name| (*name).to_owned())
        .collect();
    let homeless: Vec<_> = files.difference(&placed).collect();
    assert!(
        homeless.is_empty(),
        "on no floor: {homeless:?}; give each its place in FLOORS"
    );
    let missing: Vec<_> = placed.difference(&files).collect();
    assert!(
        missing.is_empty(),
        "FLOORS names what is not there: {missing:?}"
    );
}

#[test]
fn a_file_imports_only_from_its_own_floor_and_those_below() {
    for (file, text) in sources() {
        let Some(own) = floor(&file) else { continue };
        for import in imports(&file, &text) {
            let other = floor(&import);
            assert!(
                other.is_some_and(|other| other <= own),
                "src/{file}.rs, floor {own}, imports {import:?}, floor {other:?}"
            );
        }
    }
}

#[test]
fn no_file_imports_itself_by_a_detour() {
    let graph: BTreeMap<String, BTreeSet<String>> = sources()
        .into_iter()
        .map(|(file, text)| (file.clone(), imports(&file, &text)))
        .collect();
    for start in graph.keys() {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = graph[start].iter().collect();
        while let Some(file) = next.pop() {
            assert_ne!(file, start, "src/{start}.rs is in a cycle with {seen:?}");
            if seen.insert(file) {
                next.extend(graph.get(file).into_iter().flatten());
            }
        }
    }
}

#[test]
fn the_ground_floor_knows_nothing_of_the_outside_world() {
    for (file, text) in sources() {
        if floor(&file) != Some(0) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let known = OUTSIDE.iter().find(|word| line.contains(*word));
            assert!(
                known.is_none(),
                "src/{file}.rs, line {}: {line}",
                number + 1
            );
        }
    }
}

#[test]
fn imports_are_read_however_they_are_written() {
    let text = "use crate::{\n    entry::{\n        Batch,\n        Entry,\n    },\n    ids::RoomName,\n    socket::{Sockets, admission::Admission},\n};\n\
                use crate::room::{\n    messages::Join,\n    load::Load,\n};\nuse super::classic;\npub use self::counter::Counter;\nlet x = crate::rate::Rate::new();\n";
    let read = imports(
        "protocol",
        &text.replace("super::classic", "super::protocol::classic"),
    );
    let expected = [
        "entry",
        "ids",
        "protocol/classic",
        "rate",
        "room/load",
        "room/messages",
        "socket",
        "socket/admission",
    ];
    assert_eq!(read.into_iter().collect::<Vec<_>>(), expected);
    assert!(imports("model", text).contains("model/counter"));
}

fn floor(file: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&file))
}

/// Each file of `src/` by its path without `.rs`, without its comments and tests.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                let of_tests = path.ends_with("tests");
                folders.extend((!of_tests).then_some(path));
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                files.insert(module(&root, &path), code(&text));
            }
        }
    }
    files
}

fn module(root: &Path, path: &Path) -> String {
    let path: PathBuf = path.strip_prefix(root).unwrap().with_extension("");
    path.to_str().unwrap().replace('\\', "/")
}

/// The lines that are no comments, before the tests at the end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let no_comment = |line: &&str| !line.trim_start().starts_with("//");
    let blanked = text
        .lines()
        .map(|line| if no_comment(&line) { line } else { "" });
    blanked.collect::<Vec<_>>().join("\n")
}

/// The files that a file's code names, by `crate::`, `self::` and `super::`.
fn imports(file: &str, text: &str) -> BTreeSet<String> {
    let parent = file.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (root, base) in [("crate::", ""), ("self::", file), ("super::", parent)] {
        for (at, _) in text.match_indices(root) {
            let whole =
                !text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
            if whole {
                for path in paths(&text[at + root.len()..]) {
                    let names = base.split('/').chain(path.iter().map(String::as_str));
                    found.extend(file_of(names.filter(|name| !name.is_empty())));
                }
            }
        }
    }
    found.remove(file);
    found
}

/// The paths that begin here: `a::{b::C, d}` are `a b C` and `a d`.
fn paths(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    let name: String = text
        .chars()
        .take_while(|next| next.is_alphanumeric() || *next == '_')
        .collect();
    let rest = &text[name.len()..];
    if let Some(inner) = text.strip_prefix('{') {
        let (mut depth, mut from, mut parts) = (0, 0, Vec::new());
        for (at, next) in inner.char_indices() {
            match next {
                '{' => depth += 1,
                '}' if depth == 0 => {
                    parts.push(&inner[from..at]);
                    break;
                }
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&inner[from..at]);
                    from = at + 1;
                }
                _ => {}
            }
        }
        // Nothing stands behind the last comma of several lines.
        parts.retain(|part| !part.trim().is_empty());
        return parts.into_iter().flat_map(paths).collect();
    }
    match rest.strip_prefix("::") {
        Some(rest) => {
            let with_name = |mut path: Vec<String>| {
                path.insert(0, name.clone());
                path
            };
            paths(rest).into_iter().map(with_name).collect()
        }
        // What comes after the last comma is nothing.
        None if name.is_empty() => Vec::new(),
        None => vec![vec![name]],
    }
}

/// The longest beginning of a path that is a file.
fn file_of<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut file = String::new();
    let mut found = None;
    for name in names {
        if !file.is_empty() {
            file.push('/');
        }
        file.push_str(name);
        if root.join(&file).with_extension("rs").is_file() {
            found = Some(file.clone());
        }
    }
    found
}
