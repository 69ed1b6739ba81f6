//! What durability costs: acked actions a second on disk beside memory and beside a bare loop of
//! `pwrite` and `fdatasync`; how long one client waits for its ack; how long a large room takes to
//! start. `benches/README.md` tells more.

// What a benchmark finds goes to standard output.
#![allow(clippy::print_stdout)]

#[path = "journal/device.rs"]
mod device;
#[path = "journal/load.rs"]
mod load;
#[path = "support/server.rs"]
mod server;

use std::{path::Path, process::ExitCode, time::Duration};

use device::{Groups, Loop};
use load::{Actions, Load};
use server::Server;
use tempfile::TempDir;

/// How much is done: a run without `--bench`, as `cargo test` makes it, only shows that all works.
#[derive(Clone, Copy)]
struct Size {
    warm_up: Duration,
    turns: usize,
    turn: Duration,
    /// Of one turn.
    acks: usize,
    entries: u64,
    starts: usize,
}

const WHOLE: Size = Size {
    warm_up: Duration::from_secs(1),
    turns: 7,
    turn: Duration::from_secs(1),
    acks: 500,
    entries: 1_000_000,
    starts: 5,
};

const SHORT: Size = Size {
    warm_up: Duration::from_millis(50),
    turns: 2,
    turn: Duration::from_millis(50),
    acks: 20,
    entries: 20_000,
    starts: 1,
};

fn main() -> ExitCode {
    let whole = std::env::args().any(|arg| arg == "--bench");
    let size = if whole { WHOLE } else { SHORT };
    let mut targets = Targets::default();
    println!("{}", machine());
    throughput(size, &mut targets);
    latency(size, &mut targets);
    start_up(size, &mut targets);
    if !whole {
        println!("\na short run, which says nothing of speed: the targets are not judged");
        return ExitCode::SUCCESS;
    }
    println!("\ntargets");
    for (met, target) in &targets.0 {
        println!("  {} {target}", if *met { "PASS" } else { "FAIL" });
    }
    match targets.0.iter().all(|(met, _)| *met) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

#[derive(Default)]
struct Targets(Vec<(bool, String)>);

impl Targets {
    fn check(&mut self, met: bool, target: String) {
        self.0.push((met, target));
    }
}

/// A folder on the disk that is measured, and not in memory as `/tmp` may be.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name\t: "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores, {}, Linux {}",
        model.unwrap_or("unknown processor"),
        kernel.trim()
    )
}

/// Clients that pipeline, all in one room. Disk, memory and the loop take turns, so that whatever else
/// the machine does falls on all of them; of each the median counts.
fn throughput(size: Size, targets: &mut Targets) {
    println!("\nacked actions a second, clients that pipeline in one room");
    println!(
        "{:>8} {:>10} {:>12} {:>12} {:>12} {:>12} {:>12} {:>16} {:>14}",
        "clients",
        "actions",
        "disk",
        "memory",
        "loop",
        "disk/memory",
        "disk/loop",
        "actions/commit",
        "bytes/commit"
    );
    let alike = [1, 8, 64].map(|clients| (clients, Actions::Alike));
    for (clients, actions) in alike.into_iter().chain([(64, Actions::Different)]) {
        let folder = folder();
        let servers = (Server::on_disk(folder.path()), Server::in_memory());
        let mut disk = Load::connect(servers.0.port(), clients, actions);
        let mut memory = Load::connect(servers.1.port(), clients, actions);
        for load in [&mut disk, &mut memory] {
            load.run_for(size.warm_up);
            load.settle();
        }
        let groups = Groups::of_folder(folder.path());
        let mut bare = Loop::new(folder.path());
        let mut rates = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..size.turns {
            for (load, rates) in [&mut disk, &mut memory].into_iter().zip(&mut rates) {
                rates.push(load.run_for(size.turn));
                load.settle();
            }
            rates[2].push(bare.actions_per_second(&groups, size.turn));
        }
        let [disk, memory, bare] = rates.map(median);
        println!(
            "{clients:>8} {:>10} {disk:>12.0} {memory:>12.0} {bare:>12.0} {:>12.2} {:>12.2} {:>16.1} {:>14.0}",
            format!("{actions:?}").to_lowercase(),
            disk / memory,
            disk / bare,
            groups.entries_per_group(),
            groups.bytes_per_group(),
        );
        if (clients, actions) == (64, Actions::Alike) {
            let ratio = disk / memory;
            targets.check(
                ratio >= 0.7,
                format!("64 clients: disk/memory {ratio:.2}, at least 0.7"),
            );
            targets.check(
                disk >= 100_000.0,
                format!("64 clients: {disk:.0} acked actions a second, at least 100000"),
            );
        }
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// One client that waits for each ack, in turns with the loop.
fn latency(size: Size, targets: &mut Targets) {
    let folder = folder();
    let server = Server::on_disk(folder.path());
    let mut load = Load::connect(server.port(), 1, Actions::Alike);
    load.wait_for_each(size.acks);
    let bytes = Groups::of_folder(folder.path()).bytes_per_group();
    let mut device = Loop::new(folder.path());
    let (mut acks, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..size.turns {
        acks.extend(load.wait_for_each(size.acks));
        bare.extend(device.times(bytes as usize, size.acks));
    }
    let (acks, bare) = (Times::of(acks), Times::of(bare));
    println!("\none client that waits for each ack, microseconds");
    println!("{:>14} {:>8} {:>8} {:>8}", "", "p50", "p99", "p99.9");
    let row = |name, value: &dyn Fn(f64) -> String| {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(value);
        println!("{name:>14} {p50:>8} {p99:>8} {p999:>8}");
    };
    row("ack", &|at| format!("{:.0}", acks.micros(at)));
    row("loop", &|at| format!("{:.0}", bare.micros(at)));
    let ratio = |at| acks.micros(at) / bare.micros(at);
    row("ack/loop", &|at| format!("{:.2}", ratio(at)));
    let ratio = ratio(0.5);
    targets.check(
        ratio <= 4.0,
        format!("one client: p50 {ratio:.2} times the loop's, at most 4"),
    );
}

/// Durations, shortest first.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    fn micros(&self, at: f64) -> f64 {
        let nth = ((self.0.len() - 1) as f64 * at).round() as usize;
        self.0[nth].as_secs_f64() * 1e6
    }
}

/// From the start of the program until the state of a large room is told.
fn start_up(size: Size, targets: &mut Targets) {
    let folder = folder();
    let server = Server::on_disk(folder.path());
    let mut load = Load::connect(server.port(), 64, Actions::Alike);
    load.run_until(size.entries);
    load.settle();
    drop(server);
    let entries = Groups::of_folder(folder.path()).entries();
    assert!(entries >= size.entries, "{entries} entries are kept");
    let started = |_| started(folder.path(), entries);
    let times = Times::of((0..size.starts).map(started).collect());
    let (median, worst) = (times.micros(0.5) / 1e3, times.micros(1.0) / 1e3);
    println!("\nstart with {entries} entries in a room, after a kill, milliseconds");
    println!(
        "{:>14} {median:>8.0}\n{:>14} {worst:>8.0}",
        "median", "worst"
    );
    targets.check(
        worst < 1000.0,
        format!("start-up: {worst:.0} ms, less than 1000"),
    );
}

fn started(folder: &Path, entries: u64) -> Duration {
    let start = std::time::Instant::now();
    let server = Server::on_disk(folder);
    let rev = server.revision();
    let took = start.elapsed();
    assert!(rev >= entries, "revision {rev}");
    took
}
