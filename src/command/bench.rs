//! `bench`: load for a server, and what it makes of it.
//!
//! [`Course`](course::Course) decides all, and knows neither socket nor clock; a [`Member`](member::Member) is a
//! connection; [`Run`] lets them come in and waits for the end.

mod course;
mod fault;
mod latency;
mod member;
mod pacer;
mod plan;
mod process;
mod progress;
mod report;
mod run;
mod said;
mod seen;
mod writer;

use self::{plan::Plan, process::Process, run::Run};
use crate::{
    command::report::{Failure, print_line, said},
    config::bench::BenchArgs,
    server::max_connections,
};

/// Puts a server under load and prints what was found.
pub async fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let plan = Plan::new(args);
    let process = args.pid.map(Process::find).transpose().map_err(said)?;
    may_open(plan.clients())?;
    let url = &args.url;
    let run = Run::new(plan, url, args.timeout.0)?;
    let found = run.run(process.as_ref()).await;
    let found = found.map_err(|why| said(format!("{url}: {why}")))?;
    print_line(&match args.json {
        true => serde_json::to_string(&found.report).map_err(std::io::Error::other)?,
        false => found.report.table(),
    })?;
    match found.missing.is_empty() {
        true => Ok(()),
        false => Err(said(format!(
            "{url}: not complete: {}",
            found.missing.join("; ")
        ))),
    }
}

/// Raises the limit of open files as far as it may be.
fn may_open(clients: usize) -> Result<(), Failure> {
    match max_connections() {
        Some(most) if most < clients => Err(said(format!(
            "{clients} clients are more than the {most} that the limit of open files allows (see `ulimit -n`)"
        ))),
        _ => Ok(()),
    }
}
